//! Placeholder.
use crate::wire::http::Limits;
use std::time::Duration;

/// Times and bounds of HTTP on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http.keepalive` / `entrypoint.keepalive`: whether a connection may carry more than one request.
    pub keepalive: bool,
    /// `http.headTimeout`: from the first byte of a request head to its end.
    pub head_timeout: Duration,
    /// `http.idleTimeout`: how long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// `readTimeout` / `entrypoint.readTimeout`: from the end of the request to the end of the reply head (504).
    pub reply_timeout: Duration,
    /// `http.stallTimeout`: how long a body may make no progress in either direction.
    pub stall_timeout: Duration,
    /// `http.maxHeadSize`, `http.maxHeadFields`.
    pub limits: Limits,
    /// `http.routeHeader`: add `Pointsman-Route` (client, tunnel, connector, node) to requests, in place of any that came in.
    pub route_header: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keepalive: true,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            reply_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
            limits: Limits::default(),
            route_header: false,
        }
    }
}
