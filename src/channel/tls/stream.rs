//! A TLS connection as a byte stream.

use super::{Side, explain_later};
use crate::net::{BoxStream, ByteStream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// A connection whose handshake is done. Its end is a close_notify: a transport that ends without one is an error, for then
/// something may be missing.
#[derive(Debug)]
pub struct TlsStream(tokio_rustls::TlsStream<BoxStream>);

impl TlsStream {
    pub(super) fn new(stream: tokio_rustls::TlsStream<BoxStream>) -> Self {
        Self(stream)
    }

    fn side(&self) -> Side {
        match self.0 {
            tokio_rustls::TlsStream::Client(_) => Side::Client,
            tokio_rustls::TlsStream::Server(_) => Side::Server,
        }
    }

    /// What both sides agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(|error| explain_later(error, self.side()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl ByteStream for TlsStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let side = self.side();
        Pin::new(&mut self.0).poll_fill_buf(cx).map_ok(drop).map_err(|error| explain_later(error, side))
    }

    fn half_close(&self) -> bool {
        self.0.get_ref().0.half_close()
    }

    fn abort(&mut self) {
        self.0.get_mut().0.abort();
    }
}
