//! Placeholder.
use std::time::Duration;

/// How long and how much is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `sniffing.timeout`: how long to wait for the first bytes before the connection passes as unknown.
    pub timeout: Duration,
    /// `sniffing.clientHelloTimeout`: how long a ClientHello that has begun may take.
    pub client_hello_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), client_hello_timeout: Duration::from_secs(10) }
    }
}
