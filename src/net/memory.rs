//! Two byte streams without a socket between them: what is written to one is read from the other.

use super::ByteStream;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end. Its drop is the end of both directions; after [`abort`](ByteStream::abort) the other end reads an error instead.
#[derive(Debug)]
pub struct MemoryStream {
    incoming: Arc<Mutex<Direction>>,
    outgoing: Arc<Mutex<Direction>>,
}

/// The bytes of one direction that were written and not read; what is idle holds no memory.
#[derive(Debug)]
struct Direction {
    buf: BytesMut,
    /// Most that may be under way.
    size: usize,
    end: Option<End>,
    /// Nobody will read any more.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    Reset,
}

/// Two ends; `size`: bytes of each direction that may be under way.
pub fn pair(size: usize) -> (MemoryStream, MemoryStream) {
    let direction = || {
        let direction =
            Direction { buf: BytesMut::new(), size, end: None, deaf: false, reader: None, writer: None };
        Arc::new(Mutex::new(direction))
    };
    let (one, other) = (direction(), direction());
    let near = MemoryStream { incoming: Arc::clone(&one), outgoing: Arc::clone(&other) };
    (near, MemoryStream { incoming: other, outgoing: one })
}

fn lock(direction: &Mutex<Direction>) -> MutexGuard<'_, Direction> {
    direction.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Direction {
    /// Ready when there are bytes, or will be none.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.end {
            _ if !self.buf.is_empty() => Poll::Ready(Ok(())),
            Some(End::Orderly) => Poll::Ready(Ok(())),
            Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Says that no more will come; the first end counts.
    fn finish(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl ByteStream for MemoryStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.incoming).poll_readable(cx)
    }

    fn half_close(&self) -> bool {
        false
    }

    fn abort(&mut self) {
        lock(&self.outgoing).finish(End::Reset);
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut incoming = lock(&self.incoming);
        std::task::ready!(incoming.poll_readable(cx))?;
        let n = incoming.buf.len().min(out.remaining());
        out.put_slice(&incoming.buf[..n]);
        incoming.buf.advance(n);
        if incoming.buf.is_empty() {
            incoming.buf = BytesMut::new();
        }
        incoming.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut outgoing = lock(&self.outgoing);
        if outgoing.deaf || outgoing.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = data.len().min(outgoing.size - outgoing.buf.len());
        if n == 0 && !data.is_empty() {
            outgoing.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        outgoing.buf.extend_from_slice(&data[..n]);
        outgoing.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.outgoing).finish(End::Orderly);
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        lock(&self.outgoing).finish(End::Orderly);
        let mut incoming = lock(&self.incoming);
        incoming.deaf = true;
        incoming.writer.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::pattern;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_end_is_orderly_unless_it_was_aborted() {
        for aborted in [false, true] {
            let (mut near, mut far) = pair(16);
            near.write_all(b"all of it").await.unwrap();
            if aborted {
                near.abort();
            }
            drop(near);
            let mut got = Vec::new();
            let end = far.read_to_end(&mut got).await;
            assert_eq!((got.as_slice(), end.is_err()), (&b"all of it"[..], aborted));
        }
    }

    #[tokio::test]
    async fn everything_comes_through_a_small_buffer_in_both_directions() {
        let (near, far) = pair(7);
        let send = |stream: MemoryStream, len| async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let (sent, mut got) = (pattern(len), Vec::new());
            let write = async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
            got
        };
        let (at_near, at_far) = tokio::join!(send(near, 10_000), send(far, 9_999));
        assert!(at_near == pattern(9_999) && at_far == pattern(10_000));
    }

    #[tokio::test]
    async fn whoever_waits_to_write_learns_that_nobody_reads() {
        let (mut near, far) = pair(1);
        let write = async { near.write_all(b"two").await.unwrap_err().kind() };
        let (kind, ()) = tokio::join!(write, async { drop(far) });
        assert_eq!(kind, io::ErrorKind::BrokenPipe);
    }
}
