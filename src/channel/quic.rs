//! Streams of QUIC as byte streams: channel `quic` (section 7.4 of the wire specification).
//!
//! The protocol is the `quinn` crate's, version 1 of it; who a side has to be is `tls`' as everywhere. One connection carries
//! many streams, all of them opened by the side that dialled and seen by the other one with their first byte.

mod client;
mod failure;
mod port;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

pub(super) use client::Client;
pub use port::{Arrival, Port, PortError};

use quinn::{Connection, IdleTimeout, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Bytes of one stream that may be on their way without having been read.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for a connection, either way.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// Of an end in order, of connections.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// Of streams that are not to be taken for complete.
const CANCELLED: VarInt = VarInt::from_u32(1);
/// What the peer is given to learn that a connection has ended.
const CLOSING: Duration = Duration::from_secs(1);

/// The keys of dialer and listener for `quic`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `keepAlive` and `ttl`: the peer is asked this often whether it is there.
    pub keepalive: Option<Duration>,
    /// `maxIdleTimeout`: a connection on which nothing came for so long is dead; the smaller one of both sides counts.
    pub idle_timeout: Duration,
    /// `maxStreams` that a client may have on one connection.
    pub max_streams: u32,
}

impl Settings {
    fn transport(&self, peer_opens: u32) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or_else(|_| VarInt::MAX.into());
        transport
            .max_concurrent_bidi_streams(peer_opens.into())
            .max_concurrent_uni_streams(NO_ERROR)
            .datagram_receive_buffer_size(None)
            .stream_receive_window(STREAM_WINDOW.into())
            .receive_window(CONNECTION_WINDOW.into())
            .send_window(CONNECTION_WINDOW.into())
            .max_idle_timeout(Some(idle))
            // Two of them may be lost on the way.
            .keep_alive_interval(self.keepalive.map(|every| every.min(self.idle_timeout / 3)));
        Arc::new(transport)
    }
}

/// Ends a connection once all that was written on its streams has arrived.
async fn drain(connection: &Connection, streams: &TaskTracker) {
    streams.close();
    tokio::select! {
        () = streams.wait() => connection.close(NO_ERROR, b""),
        // What waited for it was told.
        _ = connection.closed() => {}
    }
}
