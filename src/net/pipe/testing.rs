//! What the tests of several modules need: joined sockets, an in-memory stream without half-close, a known byte pattern.

use crate::net::ByteStream;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Two ends of one loopback connection.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

/// Bytes in which every shift and every loss shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| step()).collect()
}

/// One end of an in-memory stream, as the mux would give it: no socket, and by choice no half-close.
#[derive(Debug)]
pub(crate) struct Memory {
    inner: DuplexStream,
    /// What `poll_readable` had to take from `inner` to know.
    seen: Vec<u8>,
    eof: bool,
    half_close: bool,
}

impl Memory {
    pub(crate) fn new(inner: DuplexStream, half_close: bool) -> Self {
        Self { inner, seen: Vec::new(), eof: false, half_close }
    }
}

impl ByteStream for Memory {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() && !self.eof {
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            self.seen.extend_from_slice(read.filled());
            self.eof = self.seen.is_empty();
        }
        Poll::Ready(Ok(()))
    }

    fn half_close(&self) -> bool {
        self.half_close
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(cx))?;
        let n = self.seen.len().min(out.remaining());
        out.put_slice(&self.seen[..n]);
        self.seen.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
