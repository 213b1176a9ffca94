//! A yamux stream: opened when the driver gets to it, read and written through the crate's own.

use super::Shared;
use bytes::Bytes;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Bytes looked ahead when only readability was asked for.
const PEEK: usize = 2048;

#[derive(Debug)]
pub(super) enum State {
    Opening(oneshot::Receiver<yamux::Stream>),
    Open(Compat<yamux::Stream>),
}

#[derive(Debug)]
pub(in crate::mux) struct YamuxStream {
    shared: Arc<Shared>,
    state: State,
    /// Bytes read ahead.
    peeked: Bytes,
    /// The peer's stream, and the peer was not told that it is read.
    ack_due: bool,
}

impl YamuxStream {
    pub(super) fn new(shared: Arc<Shared>, state: State) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        let ack_due = matches!(state, State::Open(_));
        Self { shared, state, peeked: Bytes::new(), ack_due }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Compat<yamux::Stream>>>> {
        if let State::Opening(opened) = &mut self.state {
            match ready!(Pin::new(opened).poll(cx)) {
                Ok(stream) => self.state = State::Open(stream.compat()),
                Err(_) => return Poll::Ready(Err(over())),
            }
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            State::Opening(_) => Poll::Pending,
        }
    }

    pub(in crate::mux) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.peeked.is_empty() {
            let n = self.peeked.len().min(buf.remaining());
            buf.put_slice(&self.peeked.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining();
        ready!(ready!(self.poll_open(cx))?.poll_read(cx, buf))?;
        // The crate ends streams alike, whether the peer has ended them or the connection broke.
        if buf.remaining() == room && room > 0 && self.shared.lost.load(Ordering::Relaxed) {
            return Poll::Ready(Err(over()));
        }
        self.acknowledge(cx);
        Poll::Ready(Ok(()))
    }

    /// Tells the peer by an empty frame that its stream is read. By itself the crate waits until it has something to say.
    fn acknowledge(&mut self, cx: &mut Context<'_>) {
        if self.ack_due
            && let State::Open(stream) = &mut self.state
        {
            self.ack_due = Pin::new(stream).poll_write(cx, &[]).is_pending();
        }
    }

    /// By the acknowledgement of the stream. Whether one that is closed was acknowledged the crate does not tell.
    pub(in crate::mux) fn far_end_has_read(&self) -> Option<bool> {
        let State::Open(stream) = &self.state else { return Some(false) };
        let stream = stream.get_ref();
        if stream.is_pending_ack() {
            return Some(false);
        }
        (!stream.is_closed()).then_some(true)
    }

    pub(in crate::mux) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peeked.is_empty() {
            let mut room = [0; PEEK];
            let mut buf = ReadBuf::new(&mut room);
            ready!(self.poll_read(cx, &mut buf))?;
            self.peeked = Bytes::copy_from_slice(buf.filled());
        }
        Poll::Ready(Ok(()))
    }

    pub(in crate::mux) fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_readable(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.peeked)))
    }

    pub(in crate::mux) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    pub(in crate::mux) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    pub(in crate::mux) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_shutdown(cx)
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the mux session is over")
}

impl Drop for YamuxStream {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}
