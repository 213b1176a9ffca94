//! Many streams over one connection: smux versions 1 and 2, and yamux.
//!
//! [`Session`] opens streams, [`Incoming`] accepts them, a driver future that the caller spawns moves the bytes. The
//! protocol is the state machine in `session`; `driver` is the only part that touches the transport.

pub mod driver;
pub mod session;

use std::time::Duration;

/// Which protocol both ends agreed on by configuration; there is no negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No windows per stream; relay BIND's default.
    SmuxV1,
    /// With windows per stream; the tunnel's default.
    SmuxV2,
    /// `mux.type: yamux`.
    Yamux,
}

/// Which ids the streams opened here get: odd from 3 for the client, even from 2 for the server (yamux: odd from 1, even from 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that opens streams in a tunnel: the tunnel *server*.
    Client,
    /// The side that accepts them: the connector.
    Server,
}

/// The `mux.*` keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `mux.type` and `mux.version`.
    pub kind: Kind,
    /// `mux.keepaliveInterval`: a NOP is sent this often; `None` for `mux.keepaliveDisabled`.
    pub keepalive_interval: Option<Duration>,
    /// `mux.keepaliveTimeout`: without a byte from the peer for this long the session is dead.
    pub keepalive_timeout: Duration,
    /// `mux.maxFrameSize`: largest payload sent in one frame, 1 to 65535.
    pub max_frame_size: usize,
    /// `mux.maxReceiveBuffer`: unread bytes that one session may hold.
    pub max_receive_buffer: usize,
    /// `mux.maxStreamBuffer`: unread bytes that one stream may hold, and the window advertised (smux v2).
    pub max_stream_buffer: usize,
    /// `mux.maxStreamWindow`: receive window of a yamux stream.
    pub max_stream_window: usize,
    /// `mux.maxStreams`: streams alive at once; more are refused with FIN.
    pub max_streams: usize,
}

impl Settings {
    /// What both ends of a tunnel start from (the wire specification, section 2.2).
    pub fn tunnel() -> Self {
        Self {
            kind: Kind::SmuxV2,
            keepalive_interval: Some(Duration::from_secs(10)),
            keepalive_timeout: Duration::from_secs(30),
            max_frame_size: 32 * 1024,
            max_receive_buffer: 4 * 1024 * 1024,
            max_stream_buffer: 1024 * 1024,
            max_stream_window: 256 * 1024,
            max_streams: 10_000,
        }
    }

    /// What both ends of a relay BIND start from.
    pub fn relay() -> Self {
        Self { kind: Kind::SmuxV1, ..Self::tunnel() }
    }
}
