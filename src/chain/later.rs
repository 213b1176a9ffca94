//! A stream whose first bytes are a relay response that may come as late as the first bytes behind it (section 1.5).

use super::Chosen;
use super::connect::{Failed, relay_answer};
use crate::addr::HostPort;
use crate::channel::Way;
use crate::net::{BoxStream, ByteStream};
use crate::route;
use crate::wire::relay::{self, Status};
use bytes::{Buf, BytesMut};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;
use tracing::warn;

/// What those who meet another protocol in its place are told.
const ADVICE: &str = "compare dialer.type and its path with the listener of the server";

/// Takes the response off before the first byte is read. A refusal is an error of that read, a line in the log, for whoever reads
/// does not know whom the connection goes through, and where the server is to blame a mark on its node.
#[derive(Debug)]
pub(super) struct Later {
    inner: BoxStream,
    asked: Asked,
    answer: Answer,
    /// Read, but not taken: part of the response, then what came with it.
    buf: BytesMut,
    /// Nothing more is written.
    ended: bool,
}

/// The server that owes the answer.
#[derive(Debug)]
struct Asked {
    node: Arc<route::Node>,
    /// What failure marks are counted from.
    since: Instant,
    service: String,
    name: String,
    addr: HostPort,
    /// Up to it, and on from it.
    before: Way,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Awaited,
    Good,
    Bad,
}

impl Later {
    /// `service` has asked the chosen server, which was reached by `before`.
    pub(super) fn new(inner: BoxStream, chosen: &Chosen<'_>, service: &str, before: Way) -> Self {
        let asked = Asked {
            node: chosen.node.clone(),
            since: chosen.chain.since,
            service: service.to_owned(),
            name: chosen.name.to_owned(),
            addr: chosen.server.addr.clone(),
            way: before.step(),
            before,
        };
        Self { inner, asked, answer: Answer::Awaited, buf: BytesMut::new(), ended: false }
    }

    /// To what lies behind the server.
    pub(super) fn way(&self) -> Way {
        self.asked.way.clone()
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.answer {
            Answer::Good => return Poll::Ready(Ok(())),
            Answer::Bad => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Answer::Awaited => {}
        }
        let answer = match ready!(self.poll_status(cx)) {
            Ok(status) => relay_answer(status).map_err(|failed| self.refused(failed)),
            Err(error) => Err(self.broken(error)),
        };
        if answer.is_ok() {
            self.answer = Answer::Good;
            self.asked.node.health.succeeded();
        }
        Poll::Ready(answer)
    }

    fn poll_status(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Status>> {
        loop {
            let malformed = |error| {
                let text = format!("no answer of a relay server ({error}): {ADVICE}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            };
            if let Some((response, len)) = relay::Response::decode(&self.buf).map_err(malformed)? {
                self.buf.advance(len);
                return Poll::Ready(Ok(response.status));
            }
            if ready!(poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.buf))? == 0 {
                let text = format!("the connection ended without an answer: {ADVICE}");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
            }
        }
    }

    /// It says no.
    fn refused(&mut self, failed: Failed) -> io::Error {
        self.answer = Answer::Bad;
        let kind = match failed {
            Failed::Refused(_) => {
                self.asked.warn(&failed);
                self.asked.node.health.succeeded();
                io::ErrorKind::ConnectionRefused
            }
            Failed::Broken(_) => {
                self.asked.failed(&failed);
                io::ErrorKind::PermissionDenied
            }
        };
        io::Error::new(kind, failed)
    }

    /// It says nothing that is an answer.
    fn broken(&mut self, error: io::Error) -> io::Error {
        self.answer = Answer::Bad;
        // A server that keeps its answer for the target's first bytes ends without it when the target says nothing to the end.
        if !self.ended || error.kind() == io::ErrorKind::InvalidData {
            self.asked.failed(&error);
        }
        error
    }

    /// What cannot be written may have failed for a reason that can be read.
    fn written<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match done {
            Poll::Ready(Err(error)) if self.answer == Answer::Awaited => match self.poll_answer(cx) {
                Poll::Ready(Err(reason)) => Poll::Ready(Err(reason)),
                Poll::Ready(Ok(())) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Ready(Err(self.broken(error))),
            },
            _ => done,
        }
    }
}

impl Asked {
    fn failed(&self, error: &dyn fmt::Display) {
        // A server before it that failed is marked, and told of, by its own stream.
        if self.before.failure().is_none() {
            self.warn(error);
            self.node.health.failed(self.since.elapsed());
            self.way.fail(format!("node {:?}: {error}", self.name));
        }
    }

    fn warn(&self, error: &dyn fmt::Display) {
        let Self { service, name: node, addr, .. } = self;
        warn!(service, node, %addr, %error, "cannot connect");
    }
}

impl ByteStream for Later {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        if self.buf.is_empty() { self.inner.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        (self.answer == Answer::Good && self.buf.is_empty()).then(|| self.inner.tcp()).flatten()
    }

    fn half_close(&self) -> bool {
        self.inner.half_close()
    }

    fn far_end_has_read(&self) -> Option<bool> {
        self.inner.far_end_has_read()
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}

impl AsyncRead for Later {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        if self.buf.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, out);
        }
        let n = self.buf.len().min(out.remaining());
        out.put_slice(&self.buf.split_to(n));
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Later {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, data);
        self.written(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, data);
        self.written(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
