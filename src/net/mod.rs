//! Byte streams and connections as the rest of the program sees them.
//!
//! [`ByteStream`] is what sockets and mux streams have in common; [`Conn`] is an accepted one with what is known about
//! it. Binding, dialling and copying live in the submodules.

pub(crate) mod buffer;
pub mod copy;
pub mod dial;
pub mod listen;
pub mod memory;
pub mod pipe;
pub mod prefixed;
pub mod probation;
pub mod proxied;
mod splice;
pub(crate) mod timer;
pub mod udp;

use crate::addr::HostPort;
use bytes::{Buf, Bytes, BytesMut};
use rustix::net::RecvFlags;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use uuid::Uuid;

/// An ordered two-way byte stream: a TCP socket or a stream of a mux session.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug {
    /// Ready when a read would return at once (data, end or error); needs no buffer, so an idle stream holds none.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes that have come already, as they lie in memory, from `least` to `most` of them; `None` where there are fewer or no such
    /// memory: they are to be read. To be asked when [`poll_readable`](Self::poll_readable) is ready.
    fn take_chunk(&mut self, _least: usize, _most: usize) -> Option<Bytes> {
        None
    }

    /// Whether [`poll_write_block`](Self::poll_write_block) does without a copy.
    fn takes_blocks(&self) -> bool {
        false
    }

    /// Writes bytes off the front of `block`, whose memory may be kept instead of copied; says how many.
    fn poll_write_block(&mut self, cx: &mut Context<'_>, block: &mut BytesMut) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(self).poll_write(cx, block))?;
        block.advance(n);
        Poll::Ready(Ok(n))
    }

    /// The socket itself, where `splice(2)` may be used on it.
    fn tcp(&self) -> Option<&TcpStream> {
        None
    }

    /// Whether shutting down the writing side leaves the reading side open. smux has no half-close: there the end of
    /// one direction is the end of both.
    fn half_close(&self) -> bool {
        true
    }

    /// Whether the far end is known to have read something of what was written here; `None` where the protocol does not tell.
    /// smux version 2 tells by its first window update, yamux by acknowledging a stream.
    fn far_end_has_read(&self) -> Option<bool> {
        None
    }

    /// Whether the far end has ended the stream for both directions, although bytes of it may still be there to be read; false
    /// where the protocol does not tell.
    fn far_end_is_gone(&self) -> bool {
        false
    }

    /// Makes the drop that follows a reset instead of an orderly end, so that the peer does not take what it got for all
    /// there is. smux has no reset: there the drop is the same end as ever.
    fn abort(&mut self) {}
}

impl ByteStream for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn abort(&mut self) {
        // Fails on a socket that is reset already.
        let _ = self.set_zero_linger();
    }
}

/// Whether there is nothing to read, neither bytes nor an end. A socket is asked itself: of what has just come the runtime
/// may not know yet.
pub(crate) fn is_quiet(stream: &mut dyn ByteStream, cx: &mut Context<'_>) -> bool {
    match stream.tcp() {
        Some(socket) => peek(socket).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock),
        None => stream.poll_readable(cx).is_pending(),
    }
}

/// Ready when bytes, an end or an error are there for sure: a socket that was read to the last byte asked for may pass for
/// readable until it is tried. For waits that last; before a read `poll_readable` does, without a system call.
pub(crate) fn poll_arrival(stream: &mut dyn ByteStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_readable(cx))?;
        let Some(socket) = stream.tcp() else { return Poll::Ready(Ok(())) };
        match socket.try_io(Interest::READABLE, || peek(socket)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            _ => return Poll::Ready(Ok(())),
        }
    }
}

fn peek(socket: &TcpStream) -> io::Result<()> {
    rustix::net::recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(())
}

/// Any byte stream.
pub type BoxStream = Box<dyn ByteStream>;

/// What a tunnel or relay server told about a stream that it opened towards us.
#[derive(Debug, Clone)]
pub struct Via {
    /// The tunnel that the stream came through; `None` for a port opened by relay BIND.
    pub tunnel: Option<Uuid>,
    /// The server's name for our session, from the BIND reply.
    pub connector: Option<Uuid>,
    /// The address that the visitor asked for (`host:port` of the stream header).
    pub destination: Option<HostPort>,
}

/// An accepted connection and what is known about it.
#[derive(Debug)]
pub struct Conn {
    /// The bytes themselves.
    pub stream: BoxStream,
    /// Bytes already taken from `stream` that come before whatever it still holds.
    pub prefix: Bytes,
    /// Who is at the other end: the socket's peer, or the source address of a stream header.
    pub client: SocketAddr,
    /// Our own address, as the peer sees it.
    pub local: SocketAddr,
    /// Whether TLS on it has ended here.
    pub secure: bool,
    /// Set on connections that came through a tunnel or relay server.
    pub via: Option<Arc<Via>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::tcp_pair;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The runtime takes a socket for readable until a read comes back short.
    #[tokio::test]
    async fn a_socket_read_to_the_last_byte_is_quiet() {
        let (mut near, mut far) = tcp_pair().await;
        far.write_all(b"all").await.unwrap();
        near.read_exact(&mut [0; 3]).await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(near.poll_readable(cx))).await.is_ready());
        assert!(poll_fn(|cx| Poll::Ready(poll_arrival(&mut near, cx))).await.is_pending());
        assert!(poll_fn(|cx| Poll::Ready(is_quiet(&mut near, cx))).await);
        far.write_all(b"x").await.unwrap();
        assert!(!poll_fn(|cx| Poll::Ready(is_quiet(&mut near, cx))).await);
        poll_fn(|cx| poll_arrival(&mut near, cx)).await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
    }
}
