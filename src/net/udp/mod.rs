//! Flows of datagrams: what a connection is where there are no streams.
//!
//! [`Datagrams`] is what a UDP socket, one peer of a port and a framed stream have in common: whole datagrams, which may be
//! lost, but are never split or joined. [`exchange`](exchange::exchange) moves them between two of these. Who may talk to
//! whom, and what they say, is for later stages.

pub mod exchange;
pub mod flows;
pub mod framed;
pub mod port;
pub mod socket;

use super::{Conn, Via};
use bytes::Bytes;
use framed::Framed;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// One end of a flow of datagrams.
pub trait Datagrams: Send + Sync + Unpin + fmt::Debug {
    /// The next datagram that comes from there; `None`: none will.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// Sends one there. What cannot be sent, though others may (it is too long, or there is no way at the moment), is lost
    /// without an error.
    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &Bytes) -> Poll<io::Result<()>>;

    /// Ready when nothing that was sent waits here.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Tells the other end that no more will come, where there is a way to tell.
    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Any end.
pub type BoxDatagrams = Box<dyn Datagrams>;

/// A flow that somebody began, and what is known about it.
#[derive(Debug)]
pub struct Flow {
    /// The end at whoever began it.
    pub datagrams: BoxDatagrams,
    /// Who that is.
    pub client: SocketAddr,
    /// Our own address, as far as it is known.
    pub local: SocketAddr,
    /// How long a silence ends it; `None`: it has an end of its own.
    pub ttl: Option<Duration>,
    /// Set on flows that came through a tunnel or relay server.
    pub via: Option<Arc<Via>>,
}

impl From<Conn> for Flow {
    /// A stream that carries datagrams in form A.
    fn from(conn: Conn) -> Self {
        let Conn { stream, prefix, client, local, via, .. } = conn;
        Self { datagrams: Box::new(Framed::new(stream, prefix)), client, local, ttl: None, via }
    }
}
