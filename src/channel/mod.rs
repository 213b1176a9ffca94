//! Data channels: what lies between a TCP connection, or a UDP port, and the protocol that is spoken through it (section 7 of the wire
//! specification). The same word stands at both ends, as `dialer.type` and `listener.type`.
//!
//! A channel is a pile of layers, each a module of its own: TLS or not, then WebSocket, HTTP/2 or nothing, then a mux session or
//! not. [`Dialer`] puts them onto connections that go out, [`Acceptor`] onto those that come in. QUIC is all of them in one:
//! it has ports of its own, and no TCP below.

mod acceptor;
mod dialer;
mod first;
pub mod http2;
pub mod quic;
#[cfg(test)]
mod tests;
pub mod tls;
mod way;
pub mod websocket;

pub use acceptor::{Acceptor, ServerSettings};
pub use dialer::{ClientSettings, Dialed, Dialer, Failed};
pub use way::Way;

use crate::mux;
use crate::net::dial::DialError;
use std::io;
use std::time::Duration;

/// The kinds there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The word for it.
    pub name: &'static str,
    /// TLS below everything else.
    pub tls: bool,
    /// What is spoken on it.
    pub framing: Framing,
    /// The version of smux that makes one connection many; `None`: no mux session.
    pub mux: Option<mux::Kind>,
}

/// What is spoken on TCP or TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    Bare,
    /// WebSocket.
    WebSocket,
    /// HTTP/2, one stream for each connection.
    Http2,
    /// The same with gRPC's messages.
    Grpc,
    /// QUIC, one stream for each connection, and UDP below it.
    Quic,
}

/// Every channel; `grpc` is without TLS where it says `grpc.insecure`.
pub const KINDS: [Kind; 12] = [
    kind("tcp", false, Framing::Bare, None),
    kind("tls", true, Framing::Bare, None),
    kind("mtls", true, Framing::Bare, Some(mux::Kind::SmuxV1)),
    kind("mtcp", false, Framing::Bare, Some(mux::Kind::SmuxV2)),
    kind("ws", false, Framing::WebSocket, None),
    kind("wss", true, Framing::WebSocket, None),
    kind("mws", false, Framing::WebSocket, Some(mux::Kind::SmuxV1)),
    kind("mwss", true, Framing::WebSocket, Some(mux::Kind::SmuxV1)),
    kind("h2c", false, Framing::Http2, None),
    kind("h2", true, Framing::Http2, None),
    kind("grpc", true, Framing::Grpc, None),
    kind("quic", true, Framing::Quic, None),
];

const fn kind(name: &'static str, tls: bool, framing: Framing, mux: Option<mux::Kind>) -> Kind {
    Kind { name, tls, framing, mux }
}

impl Kind {
    /// TCP as it is.
    pub const TCP: Self = KINDS[0];
    /// TLS with nothing on it.
    pub const TLS: Self = KINDS[1];

    /// The one of that name.
    pub fn of(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    /// What the mux session of this channel starts from.
    pub fn mux_settings(&self) -> Option<mux::Settings> {
        const MTCP_WINDOW: usize = 64 * 1024;
        let kind = self.mux?;
        let mut settings = mux::Settings { kind, ..mux::Settings::tunnel() };
        if kind == mux::Kind::SmuxV2 {
            settings.max_stream_buffer = MTCP_WINDOW;
        }
        Some(settings)
    }

    fn alpn(&self) -> &'static [&'static str] {
        match self.framing {
            Framing::Http2 => &["h2", "http/1.1"],
            Framing::Grpc => &["h2"],
            Framing::Quic => &["h3", "quic/v1"],
            Framing::Bare | Framing::WebSocket => &[],
        }
    }
}

/// The layer between TLS and mux, with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// Nothing.
    Bare,
    /// `ws`, `wss`, `mws`, `mwss`.
    WebSocket(websocket::Settings),
    /// `h2`, `h2c`, `grpc`.
    Http2(http2::Settings),
    /// `quic`, TLS included.
    Quic(quic::Settings),
}

/// A data channel that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// A handshake failed; the text says of which layer.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer does not go on.
    #[error("no handshake of the data channel within {0:?} (handshakeTimeout)")]
    Timeout(Duration),
    /// The peer opens no stream, or none that is let in.
    #[error("no stream of the connection was let in within {0:?} (handshakeTimeout)")]
    Unused(Duration),
    /// The session that carries the streams.
    #[error("no stream on the data channel: {0}")]
    Open(#[from] mux::OpenError),
    /// A connection of its own, which no other one carries.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It came about and was lost.
    #[error("{0}")]
    Lost(io::Error),
}

impl ChannelError {
    /// A peer that goes without having asked for anything.
    fn unused() -> Self {
        Self::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the peer ended the connection without a stream",
        ))
    }

    /// The word for logs and metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Io(_) => "bad_handshake",
            Self::Timeout(_) | Self::Unused(_) => "handshake_timeout",
            Self::Open(_) => "no_stream",
            Self::Dial(_) => "no_connection",
            Self::Lost(_) => "connection_lost",
        }
    }
}
