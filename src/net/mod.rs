//! Byte streams and connections as the rest of the program sees them.
//!
//! [`ByteStream`] is what sockets and mux streams have in common; [`Conn`] is an accepted one with what is known about
//! it. Binding, dialling and copying live in the submodules.

mod buffer;
pub mod copy;
pub mod dial;
pub mod listen;
pub mod pipe;
pub mod prefixed;
mod splice;

use crate::addr::HostPort;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use uuid::Uuid;

/// An ordered two-way byte stream: a TCP socket or a stream of a mux session.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug {
    /// Ready when a read would return at once (data, end or error); needs no buffer, so an idle stream holds none.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

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
    /// smux version 2 tells by its first window update.
    fn far_end_has_read(&self) -> Option<bool> {
        None
    }
}

impl ByteStream for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
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
    /// Set on connections that came through a tunnel or relay server.
    pub via: Option<Arc<Via>>,
}
