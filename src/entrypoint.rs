//! Placeholder.
use crate::net::listen;
use crate::{http, sniff};
use std::time::Duration;

/// One public port of a tunnel server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens and how much it takes.
    pub listen: listen::Settings,
    /// Name of the ingress that decides for it; `None`: the handler's own inline rules.
    pub ingress: Option<String>,
    /// Waiting for the first bytes.
    pub sniff: sniff::Settings,
    /// HTTP/1 on it.
    pub http: http::Settings,
    /// `halfCloseTimeout`: one side has ended and the other is silent for this long.
    pub half_close_timeout: Duration,
    /// `idleTimeout`: both sides silent for this long; `None`: no limit (GOST's default).
    pub idle_timeout: Option<Duration>,
    /// `entrypoint.forwardedNode`: append this node to `Gost-Forwarded-Node` and answer 508 where it is already named.
    pub forwarded_node: bool,
}
