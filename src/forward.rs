//! Placeholder.
use crate::{http, sniff};
use std::time::Duration;

/// The target side: handlers `tcp` and `rtcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `sniffing`; without it every connection is raw.
    pub sniff: Option<sniff::Settings>,
    /// HTTP/1 on it.
    pub http: http::Settings,
    /// `connectTimeout`: for one attempt at one node.
    pub connect_timeout: Duration,
    /// `halfCloseTimeout`.
    pub half_close_timeout: Duration,
    /// `idleTimeout`; `None`: no limit.
    pub idle_timeout: Option<Duration>,
}
