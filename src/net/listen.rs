//! Placeholder.
use crate::addr::HostPort;
use std::time::Duration;

/// A public or tunnel port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; an empty host is every address, IPv4 and IPv6.
    pub addr: HostPort,
    /// Connections open at once; more are closed at accept.
    pub max_connections: usize,
    /// Connections that have not said yet what they want (sniff, head, handshake) at once; more are closed at accept.
    pub max_handshakes: usize,
}

impl Settings {
    /// The default bounds for a port.
    pub fn new(addr: HostPort) -> Self {
        Self { addr, max_connections: 20_000, max_handshakes: 4_096 }
    }
}

/// Waits between tries when accepting fails for want of descriptors.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);
