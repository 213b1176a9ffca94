//! The same for a flow of datagrams, of which only QUIC names a host.

use super::{Settings, SniffError};
use crate::net::udp::Datagrams;
use crate::wire::Malformed;
use crate::wire::quic::InitialReader;
use crate::wire::tls::ClientHello;
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use tokio::time::{Instant, timeout_at};

/// Datagrams that are held while a hello is incomplete. The largest hello takes about 15; a client repeats them until it is
/// answered, and without a bound a stranger would have us hold what it likes.
const MAX_HELD: usize = 40;

/// What a flow began with.
#[derive(Debug, Default)]
pub struct Begun {
    /// Of QUIC.
    pub hello: Option<ClientHello>,
    /// What was taken from the flow.
    pub held: Vec<Bytes>,
}

/// Takes datagrams until it is known who is asked for: for anything but QUIC the first one tells that nobody is.
pub async fn sniff(datagrams: &mut dyn Datagrams, settings: &Settings) -> Result<Begun, SniffError> {
    let mut begun = Begun::default();
    let deadline = Instant::now() + settings.timeout;
    let Ok(first) = timeout_at(deadline, next(datagrams)).await else { return Ok(begun) };
    let first = first?;
    begun.held.push(first.clone());
    let Some(mut reader) = InitialReader::begin(&first) else { return Ok(begun) };
    begun.hello = reader.read(&first)?;
    let deadline = Instant::now() + settings.client_hello_timeout;
    while begun.hello.is_none() {
        if begun.held.len() >= MAX_HELD {
            return Err(Malformed("ClientHello in too many datagrams").into());
        }
        let more = timeout_at(deadline, next(datagrams)).await;
        let datagram = more.map_err(|_| SniffError::ClientHelloTimeout)??;
        begun.hello = reader.read(&datagram)?;
        begun.held.push(datagram);
    }
    Ok(begun)
}

async fn next(datagrams: &mut dyn Datagrams) -> io::Result<Bytes> {
    let datagram = poll_fn(|cx| datagrams.poll_recv(cx)).await?;
    datagram.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
