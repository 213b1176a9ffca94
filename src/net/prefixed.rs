//! A stream with bytes put back in front.
//!
//! Sniffing takes bytes from a stream; whoever needs a plain reader afterwards (a library that parses by itself) gets
//! them again in order. `pipe` and `copy` take a prefix of their own and do not need this.

use super::{BoxStream, ByteStream};
use bytes::{Buf, Bytes};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Reads `prefix` first, then the stream; writing goes straight to the stream.
#[derive(Debug)]
pub struct Prefixed {
    prefix: Bytes,
    inner: BoxStream,
}

impl Prefixed {
    /// Puts `prefix` in front of what `inner` still holds.
    pub fn new(prefix: Bytes, inner: BoxStream) -> Self {
        Self { prefix, inner }
    }

    /// What has not been read again yet, and the stream behind it.
    pub fn into_parts(self) -> (Bytes, BoxStream) {
        (self.prefix, self.inner)
    }
}

impl ByteStream for Prefixed {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() { self.inner.poll_readable(cx) } else { Poll::Ready(Ok(())) }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        // As long as there is a prefix the socket alone is not the whole stream.
        self.prefix.is_empty().then(|| self.inner.tcp()).flatten()
    }

    fn half_close(&self) -> bool {
        self.inner.half_close()
    }

    fn far_end_has_read(&self) -> Option<bool> {
        self.inner.far_end_has_read()
    }

    fn far_end_is_gone(&self) -> bool {
        self.inner.far_end_is_gone()
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, out);
        }
        let n = self.prefix.len().min(out.remaining());
        out.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::tcp_pair;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_prefix_comes_first_and_the_socket_shows_only_behind_it() {
        let (near, mut far) = tcp_pair().await;
        let mut stream = Prefixed::new(Bytes::from_static(b"hello "), Box::new(near));
        far.write_all(b"world").await.unwrap();
        far.shutdown().await.unwrap();
        assert!(stream.tcp().is_none());
        let mut small = [0; 4];
        stream.read_exact(&mut small).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&small, &rest[..]), (b"hell", &b"o world"[..]));
        assert!(stream.tcp().is_some());
    }
}
