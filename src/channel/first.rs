//! A connection whose first bytes are looked at: a peer that speaks TLS, or that ends the connection before it has said anything,
//! is most often one of another type, and no protocol's own error says so.

use crate::handshake::Unfit;
use crate::net::{BoxStream, ByteStream};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes everything on, but for what a peer of another type says first.
#[derive(Debug)]
pub(super) struct FirstBytes {
    inner: BoxStream,
    heard: bool,
    /// The peer owes the first word of its protocol, so that an end without one is an error of its own.
    owes: bool,
}

impl FirstBytes {
    /// Of a server, which answers.
    pub(super) fn of_server(inner: BoxStream) -> BoxStream {
        Box::new(Self { inner, heard: false, owes: true })
    }

    /// Of a client, which may have come to see whether somebody is there.
    pub(super) fn of_client(inner: BoxStream) -> BoxStream {
        Box::new(Self { inner, heard: false, owes: false })
    }

    fn check(&mut self, read: io::Result<&[u8]>) -> io::Result<()> {
        match read {
            Ok([]) if self.owes => Err(Unfit::Silent.into()),
            Err(error) if self.owes && is_end(&error) => Err(Unfit::Silent.into()),
            Ok(bytes) if Unfit::is_tls(bytes) => Err(Unfit::Tls.into()),
            Ok(_) => {
                self.heard = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// By the socket; what lies above it has words of its own.
fn is_end(error: &io::Error) -> bool {
    let ended = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    ended && error.raw_os_error().is_some()
}

impl AsyncRead for FirstBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard || buf.remaining() == 0 {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        let checked = self.check(read.map(|()| &buf.filled()[before..]));
        if checked.is_err() {
            // A read that fails has read nothing.
            buf.set_filled(before);
        }
        Poll::Ready(checked)
    }
}

impl AsyncWrite for FirstBytes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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

impl ByteStream for FirstBytes {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_readable(cx)
    }

    fn half_close(&self) -> bool {
        self.inner.half_close()
    }

    fn abort(&mut self) {
        self.inner.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// What is read from a server, or a client, that says this and goes.
    async fn read(said: &[u8], wrap: impl Fn(BoxStream) -> BoxStream) -> Result<Vec<u8>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (far, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let mut far = far.unwrap();
        far.write_all(said).await.unwrap();
        drop(far);
        let mut all = Vec::new();
        let mut near = wrap(Box::new(accepted.unwrap().0));
        near.read_to_end(&mut all).await.map(|_| all).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_peer_of_another_type_is_told_by_what_it_says_first() {
        let alert = b"\x15\x03\x03\x00\x02\x02\x32";
        for wrap in [FirstBytes::of_server, FirstBytes::of_client] {
            assert!(read(alert, wrap).await.unwrap_err().contains("speaks TLS"));
            let (plain, later) = (b"HTTP/1.1".to_vec(), b"\x01\x16\x03\x03".to_vec());
            assert_eq!(read(&plain, wrap).await, Ok(plain));
            assert_eq!(read(&later, wrap).await, Ok(later));
        }
        assert!(read(b"", FirstBytes::of_server).await.unwrap_err().contains("the same type"));
        assert_eq!(read(b"", FirstBytes::of_client).await, Ok(Vec::new()));
    }
}
