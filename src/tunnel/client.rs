//! Placeholder.
use crate::addr::HostPort;
use crate::mux;
use std::time::Duration;
use uuid::Uuid;

/// A listener of type `rtcp`: a session with a tunnel or relay server that hands us streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The service's `addr`: the bind address that is asked for.
    pub bind: HostPort,
    /// The chain's only hop: servers to try, in the selector's order.
    pub servers: Vec<Server>,
    /// `handshakeTimeout`: for the BIND reply, and for the header of each stream.
    pub handshake_timeout: Duration,
    /// `connectTimeout` for the server.
    pub connect_timeout: Duration,
}

/// One node of the hop towards the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The node's name.
    pub name: String,
    /// `addr`.
    pub addr: HostPort,
    /// `connector`.
    pub connector: Connector,
    /// `connector.auth`.
    pub auth: Option<Auth>,
    /// `connector.metadata` `mux.*`.
    pub mux: mux::Settings,
}

/// `connector.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connector {
    /// `tunnel`, with `tunnel.id` (absent: a time-based UUID made once at start) and `tunnel.weight`.
    Tunnel {
        /// The tunnel to serve.
        id: Uuid,
        /// 0 counts as 1, 255 takes all.
        weight: u8,
    },
    /// `relay`: the server opens the bind address as a port.
    Relay,
}

/// User name and password; `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// At most 255 bytes.
    pub username: String,
    /// At most 255 bytes.
    pub password: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).field("password", &"***").finish()
    }
}
