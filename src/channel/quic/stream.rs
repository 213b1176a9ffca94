//! One stream of QUIC as a byte stream.

use super::CANCELLED;
use super::failure::{unread, unwritten};
use crate::net::ByteStream;
use bytes::{Buf, Bytes};
use quinn::{RecvStream, SendStream};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A stream. Its end is that of its half: the other one goes on.
#[derive(Debug)]
pub(super) struct QuicStream {
    send: SendStream,
    receive: RecvStream,
    /// Taken off the stream by whoever asked whether there is something.
    received: Bytes,
    ended: bool,
    /// The streams of the connection, which lasts until the peer has what was written.
    streams: TaskTracker,
    _counted: TaskTrackerToken,
}

impl QuicStream {
    pub(super) fn new((send, receive): (SendStream, RecvStream), streams: &TaskTracker) -> Self {
        let (streams, _counted) = (streams.clone(), streams.token());
        Self { send, receive, received: Bytes::new(), ended: false, streams, _counted }
    }

    /// Ready when there are bytes in `received`, or the end has come.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() && !self.ended {
            let chunk = ready!(pin!(self.receive.read_chunk(usize::MAX, true)).poll(cx)).map_err(unread)?;
            self.ended = chunk.is_none();
            self.received = chunk.map(|chunk| chunk.bytes).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            // Its end is the same for whoever asks again.
            return self.receive.poll_read_buf(cx, buf).map_err(unread);
        }
        let n = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..n]);
        self.received.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf).map_err(unwritten)
    }

    /// As many of them as there is room for: packets are filled by the connection.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let send = &mut self.send;
        write_in_turn(bufs, |buf| Pin::new(&mut *send).poll_write(cx, buf).map_err(unwritten))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The connection sends what it has without being asked to.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A half that has ended already cannot do so again.
        let _ = self.send.finish();
        Poll::Ready(Ok(()))
    }
}

impl ByteStream for QuicStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_receive(cx)
    }

    fn abort(&mut self) {
        // One that has ended, or was reset, stays so.
        let _ = (self.send.reset(CANCELLED), self.receive.stop(CANCELLED));
    }
}

impl Drop for QuicStream {
    /// Ends in order what has not ended yet, and has the connection wait until it has arrived.
    fn drop(&mut self) {
        let _ = self.send.finish();
        if let Ok(runtime) = Handle::try_current() {
            drop(self.streams.spawn_on(self.send.stopped(), &runtime));
        }
    }
}

/// Writes one after the other until one is not taken whole. There may be room again at once, and what follows must not stand in
/// the place of the rest.
fn write_in_turn(
    bufs: &[io::IoSlice<'_>],
    mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    let mut written = 0;
    for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
        match write(buf) {
            Poll::Ready(Ok(n)) => {
                written += n;
                if n < buf.len() {
                    break;
                }
            }
            // The next write meets the same again.
            _ if written > 0 => break,
            other => return other,
        }
    }
    Poll::Ready(Ok(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that had room for a part only, and for more a moment later, had the rest of that part left out.
    #[test]
    fn nothing_is_written_behind_a_part() {
        let bufs = [&b"head"[..], b"", b"payload", b"head"].map(io::IoSlice::new);
        let mut got = Vec::new();
        let written = write_in_turn(&bufs, |buf| {
            let n = buf.len().min(5);
            got.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        });
        assert!(matches!(written, Poll::Ready(Ok(9))), "{written:?}");
        assert_eq!(got, b"headpaylo");
    }

    #[test]
    fn what_was_written_counts_more_than_what_was_not() {
        let bufs = [&b"head"[..], b"payload"].map(io::IoSlice::new);
        let mut answers = [Poll::Ready(Ok(4)), Poll::Pending, Poll::Pending].into_iter();
        let mut write = || write_in_turn(&bufs, |_| answers.next().unwrap());
        assert!(matches!(write(), Poll::Ready(Ok(4))));
        assert!(write().is_pending());
    }
}
