//! The data channels as both ends of a row are told of them.

use crate::support::Program::{self, Gost};
use crate::support::{wait_for_port, wait_for_udp_port};
use std::time::Duration;

/// How often both ends say that they live, and after how long a silence they take each other for dead: by a mux session, by
/// WebSocket and HTTP/2 (where pings wait behind much data, and nothing but their answers counts), by gRPC (whose server has
/// to be told to put up with it), and by QUIC.
const MUX: &str = "mux.keepaliveInterval: 2s, mux.keepaliveTimeout: 5s";
const PINGS: &str = "keepalive: true, ttl: 4s";
const GRPC: &str = "grpc.keepalive: true, grpc.keepalive.time: 4s, grpc.keepalive.minTime: 1s, grpc.keepalive.permitWithoutStream: true";
const QUIC: &str = "keepAlive: true, ttl: 2s, maxIdleTimeout: 5s";

/// GOST's listeners let 128 streams wait for their turn, and drop the next one.
const BACKLOG: &str = "backlog: 1000";

/// More than two of these keepalives, and longer than any of them is waited for.
const SILENCE: Duration = Duration::from_secs(9);
/// The same for a client by grpc-go, which never pings more often than every 10 s.
const GRPC_GO_SILENCE: Duration = Duration::from_secs(21);

/// A data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Channel {
    /// Its word.
    pub(crate) word: &'static str,
    /// Metadata (`key: value`) at both the listener and the dialer, beside what keeps it alive.
    metadata: &'static str,
}

impl Channel {
    /// TCP as it is.
    pub(crate) const TCP: Self = Self::new("tcp");

    /// The channel of that word.
    pub(crate) const fn new(word: &'static str) -> Self {
        Self::with(word, "")
    }

    /// The same with metadata.
    pub(crate) const fn with(word: &'static str, metadata: &'static str) -> Self {
        Self { word, metadata }
    }

    /// The `listener` or the `dialer` of a configuration.
    pub(crate) fn yaml(&self) -> String {
        let metadata = [&[self.metadata, BACKLOG], self.keepalive()].concat();
        let metadata: Vec<_> = metadata.into_iter().filter(|text| !text.is_empty()).collect();
        format!("{{ type: {}, metadata: {{ {} }} }}", self.word, metadata.join(", "))
    }

    /// What keeps it alive when nothing happens; GOST has nothing of the kind for `h2` and `h2c`, and answers ours.
    fn keepalive(&self) -> &'static [&'static str] {
        match self.word {
            "mtls" | "mtcp" => &[MUX],
            "ws" | "wss" | "h2" | "h2c" => &[PINGS],
            "mws" | "mwss" => &[PINGS, MUX],
            "grpc" => &[GRPC],
            "quic" => &[QUIC],
            _ => &[],
        }
    }

    /// More metadata (`, key: value`) at handler and connector: the session in it, where it does not keep itself alive.
    pub(crate) fn inner_keepalive(&self) -> String {
        if self.keepalive().is_empty() { format!(", {MUX}") } else { String::new() }
    }

    /// How long nothing is said when a session is left alone.
    pub(crate) fn silence(&self, client: Program) -> Duration {
        if self.word == "grpc" && client == Gost { GRPC_GO_SILENCE } else { SILENCE }
    }

    /// Waits until somebody listens at that port.
    pub(crate) fn wait_for(&self, port: u16) {
        if self.word == "quic" { wait_for_udp_port(port) } else { wait_for_port(port) }
    }
}
