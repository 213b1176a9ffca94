//! A stream whose first bytes are a relay response that may come as late as the first bytes behind it (section 1.5).

use super::connect::{Failed, answer};
use crate::net::{BoxStream, ByteStream};
use crate::wire::relay;
use bytes::{Buf, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;
use tracing::warn;

/// Takes the response off before the first byte is read; a refusal is an error of that read, and a line in the log, for whoever
/// reads does not know whom the connection goes through.
#[derive(Debug)]
pub(super) struct Later {
    inner: BoxStream,
    service: String,
    node: String,
    /// Read, but not taken: part of the response, then what came with it.
    buf: BytesMut,
    answered: bool,
}

impl Later {
    /// `service` and `node`: who has asked whom.
    pub(super) fn new(inner: BoxStream, service: &str, node: &str) -> Self {
        let (service, node) = (service.to_owned(), node.to_owned());
        Self { inner, service, node, buf: BytesMut::new(), answered: false }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.answered {
            let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Some((response, len)) = relay::Response::decode(&self.buf).map_err(malformed)? {
                self.buf.advance(len);
                answer(response.status, "").map_err(|failed| self.refused(failed))?;
                self.answered = true;
                break;
            }
            if ready!(poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.buf))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn refused(&self, failed: Failed) -> io::Error {
        warn!(service = self.service, node = self.node, error = %failed, "cannot connect");
        let kind = match failed {
            Failed::Refused(_) => io::ErrorKind::ConnectionRefused,
            Failed::Broken(_) => io::ErrorKind::PermissionDenied,
        };
        io::Error::new(kind, failed)
    }
}

impl ByteStream for Later {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        if self.buf.is_empty() { self.inner.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        (self.answered && self.buf.is_empty()).then(|| self.inner.tcp()).flatten()
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
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
