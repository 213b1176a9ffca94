//! Placeholder.
use crate::mux;
use crate::net::listen;
use std::time::Duration;
use uuid::Uuid;

/// `handler: tunnel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `ingress`: name of the ingress that decides for visitors; `None`: the inline rules of `tunnel`, if any.
    pub ingress: Option<String>,
    /// `entrypoint.id`: the tunnel ID that stands for "a public entrypoint elsewhere".
    pub entrypoint_id: Option<Uuid>,
    /// `tunnel.direct`: visitors that know a tunnel ID need no ingress rule.
    pub direct: bool,
    /// `handshakeTimeout` (GOST: `readTimeout`): for a whole relay request.
    pub handshake_timeout: Duration,
    /// `tunnel.maxConnectors`: connectors in one tunnel.
    pub max_connectors: usize,
    /// `tunnel.silence`: after this long without a sign that a connector has read a request, another one is tried.
    pub silence: Duration,
    /// `halfCloseTimeout`, `idleTimeout` for visitors of this port.
    pub half_close_timeout: Duration,
    /// Both sides silent for this long; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// `mux.*`.
    pub mux: mux::Settings,
}

/// `handler: relay`: opens ports for its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// `bind`: without it BIND is refused with status 3.
    pub bind: bool,
    /// For a whole relay request.
    pub handshake_timeout: Duration,
    /// Bounds of each port that a client opens (its address comes from the request).
    pub listen: listen::Settings,
    /// One side ended, the other silent.
    pub half_close_timeout: Duration,
    /// Both sides silent; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// `mux.*`.
    pub mux: mux::Settings,
}
