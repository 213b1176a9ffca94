//! The one line that every request, every raw connection and every refused one leaves in the log at info.
//!
//! The fields are the same for all, so that one query finds them: service, client, host, protocol, route, node, tunnel,
//! connector, bytes each way, elapsed, outcome, and for failures the error. What is not known is left out. Text that a
//! stranger chose is bounded here and escaped by the log's own format.

use crate::addr::Host;
use crate::net::pipe;
use crate::route::Protocol;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;

/// Longest text of a stranger's that a line carries; without it a visitor could fill a disk with a few requests.
const MAX_TEXT: usize = 256;

/// Where a request or connection went; empty: not known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    /// The ingress rule or the node's condition that decided.
    pub(crate) rule: String,
    /// The forwarder's node.
    pub(crate) node: String,
    /// The tunnel's ID.
    pub(crate) tunnel: String,
    /// The connector's ID.
    pub(crate) connector: String,
}

/// The line while it is being collected.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    service: &'a str,
    client: SocketAddr,
    started: Instant,
    host: Option<Host>,
    protocol: Protocol,
    route: Route,
    bytes_in: u64,
    bytes_out: u64,
    /// One word; `ok` when all went well.
    outcome: &'static str,
    /// What went wrong, where and by which setting.
    error: Option<String>,
}

impl<'a> Record<'a> {
    pub(crate) fn new(service: &'a str, client: SocketAddr, started: Instant) -> Self {
        Self {
            service,
            client,
            started,
            host: None,
            protocol: Protocol::Unknown,
            route: Route::default(),
            bytes_in: 0,
            bytes_out: 0,
            outcome: "ok",
            error: None,
        }
    }

    /// The host that was asked for; an empty one is none.
    pub(crate) fn host(self, host: &Host) -> Self {
        Self { host: Some(host.clone()).filter(|host| !host.is_empty()), ..self }
    }

    /// What the first bytes were.
    pub(crate) fn protocol(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    /// Where it went, or how far it came.
    pub(crate) fn route(self, route: Route) -> Self {
        Self { route, ..self }
    }

    /// Body bytes from the visitor and to the visitor.
    pub(crate) fn bytes(self, (bytes_in, bytes_out): (u64, u64)) -> Self {
        Self { bytes_in, bytes_out, ..self }
    }

    /// It came to nothing.
    pub(crate) fn failed(self, outcome: &'static str, error: impl fmt::Display) -> Self {
        Self { outcome, error: Some(error.to_string()), ..self }
    }

    /// It was piped, and this is how that ended.
    pub(crate) fn piped(self, done: &pipe::Outcome) -> Self {
        let ok = matches!(done.end, pipe::End::ClosedBy(_));
        Self {
            bytes_in: done.a_to_b,
            bytes_out: done.b_to_a,
            outcome: done.end.outcome(),
            error: (!ok).then(|| done.end.to_string()),
            ..self
        }
    }

    /// Writes the line of a raw connection.
    pub(crate) fn connection(&self) {
        self.write("connection", None, None, None);
    }

    /// Writes the line of a request. `request_id` names a refused one to its visitor.
    pub(crate) fn request(&self, method: Option<&str>, status: u16, request_id: Option<&dyn fmt::Display>) {
        let request_id = request_id.map(ToString::to_string);
        self.write("request", method.map(bounded), Some(status), request_id.as_deref());
    }

    fn write(&self, what: &str, method: Option<&str>, status: Option<u16>, request_id: Option<&str>) {
        let Route { rule, node, tunnel, connector } = &self.route;
        info!(
            service = self.service,
            client = %self.client,
            host = self.host.as_ref().map(Host::as_str),
            protocol = known(self.protocol.as_str()),
            method,
            status,
            request_id,
            route = known(rule),
            node = known(node),
            tunnel = known(tunnel),
            connector = known(connector),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            elapsed = seconds(self.started.elapsed()),
            outcome = self.outcome,
            error = self.error.as_deref().map(bounded),
            "{what}"
        );
    }
}

/// A duration as logs give it: seconds, to the microsecond.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

fn known(text: &str) -> Option<&str> {
    Some(bounded(text)).filter(|text| !text.is_empty())
}

/// The first [`MAX_TEXT`] bytes, or a few less where a character would be cut.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        assert_eq!(bounded(&"é".repeat(500)).len(), MAX_TEXT);
        assert_eq!(bounded(&format!("x{}", "é".repeat(500))).len(), MAX_TEXT - 1);
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(seconds(Duration::from_nanos(1_234_567_499)), 1.234567);
    }
}
