//! The one line that every request, every raw connection and every refused one leaves in the log at info.
//!
//! The fields are the same for all, so that one query finds them: service, client, host, protocol, route, node, tunnel,
//! connector, bytes each way, elapsed, outcome, and for failures the error. What is not known is left out. Text that a
//! stranger chose is bounded here and escaped by the log's own format. A line that nobody has written when its task is
//! dropped is written then.

use crate::addr::Host;
use crate::net::pipe::{self, Pipe, Side};
use crate::net::udp::{BoxDatagrams, exchange};
use crate::route::Protocol;
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

/// Longest text of a stranger's that a line carries; without it a visitor could fill a disk with a few requests.
const MAX_TEXT: usize = 256;

/// Where a request or connection went, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    /// The ingress rule or the node's condition that decided.
    pub(crate) rule: Option<Arc<str>>,
    /// The forwarder's node.
    pub(crate) node: Option<Arc<str>>,
    /// The tunnel's ID.
    pub(crate) tunnel: Option<Uuid>,
    /// The connector's ID.
    pub(crate) connector: Option<Uuid>,
}

/// What has gone through; of a request: of its bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// From the visitor.
    pub(crate) bytes_in: u64,
    /// To the visitor.
    pub(crate) bytes_out: u64,
}

/// The line while it is being collected.
#[derive(Debug)]
#[must_use = "dropped unwritten, the record says that its connection or request was cut"]
pub(crate) struct Record<'a> {
    service: &'a str,
    client: SocketAddr,
    started: Instant,
    host: Option<Host>,
    protocol: Protocol,
    /// Of a request.
    method: Option<&'a str>,
    route: Route,
    /// Of a reply that has begun.
    status: Option<u16>,
    moved: Moved,
    /// One word; `ok` when all went well.
    outcome: &'static str,
    /// What went wrong, where and by which setting.
    error: Option<String>,
    written: bool,
}

impl<'a> Record<'a> {
    pub(crate) fn new(service: &'a str, client: SocketAddr, started: Instant) -> Self {
        Self {
            service,
            client,
            started,
            host: None,
            protocol: Protocol::Unknown,
            method: None,
            route: Route::default(),
            status: None,
            moved: Moved::default(),
            outcome: "ok",
            error: None,
            written: false,
        }
    }

    /// The host that was asked for; an empty one is none.
    pub(crate) fn host(mut self, host: &Host) -> Self {
        self.host = Some(host.clone()).filter(|host| !host.is_empty());
        self
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Whoever is behind the connection's own peer.
    pub(crate) fn from(mut self, client: SocketAddr) -> Self {
        self.client = client;
        self
    }

    /// What the first bytes were.
    pub(crate) fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// It is a request's.
    pub(crate) fn method(mut self, method: &'a str) -> Self {
        self.method = Some(method);
        self
    }

    /// Where it went, or how far it came.
    pub(crate) fn route(mut self, route: Route) -> Self {
        self.set_route(route);
        self
    }

    /// The same, where it stays.
    pub(crate) fn set_route(&mut self, route: Route) {
        self.route = route;
    }

    /// Where whoever moves the bytes counts them, so that the line tells how far a request came when it is cut.
    pub(crate) fn moved(&mut self) -> &mut Moved {
        &mut self.moved
    }

    /// The reply has begun.
    pub(crate) fn replied(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// It came to nothing.
    pub(crate) fn failed(mut self, outcome: &'static str, error: impl fmt::Display) -> Self {
        self.outcome = outcome;
        self.error = Some(error.to_string());
        self
    }

    /// Pipes a raw connection and writes its line. `sent` has gone from the visitor to the target already.
    pub(crate) fn pipe(
        mut self,
        visitor: Side,
        target: Side,
        limits: pipe::Limits,
        sent: u64,
    ) -> impl Future<Output = ()> + Send + use<'a> {
        // Made here, so that the future holds nothing twice, as an `async fn` does its arguments.
        let mut pipe = Pipe::new(visitor, target, limits);
        async move {
            let moved = &mut self.moved;
            let count = |bytes_in, bytes_out| *moved = Moved { bytes_in: sent + bytes_in, bytes_out };
            let end = pipe.run(count).await.end;
            self.outcome = end.outcome();
            self.error = (!matches!(end, pipe::End::ClosedBy(_))).then(|| end.to_string());
            self.connection();
        }
    }

    /// Moves the datagrams of a flow, beginning with those of the visitor in `held`, and writes its line. Whether the target is
    /// there: `None`, where that was not to be learnt.
    pub(crate) async fn exchange(
        mut self,
        visitor: BoxDatagrams,
        target: BoxDatagrams,
        held: Vec<Bytes>,
        silence: Duration,
    ) -> Option<bool> {
        let moved = &mut self.moved;
        let count = |bytes_in, bytes_out| *moved = Moved { bytes_in, bytes_out };
        let end = exchange::exchange(visitor, target, held, silence, count).await;
        self.outcome = end.outcome();
        self.error = matches!(end, exchange::End::Error(..)).then(|| end.to_string());
        let answered = (self.moved.bytes_out > 0).then_some(true);
        self.connection();
        match end {
            exchange::End::Error(pipe::Which::B, ErrorKind::ConnectionRefused) => Some(false),
            _ => answered,
        }
    }

    /// Writes the line of a raw connection.
    pub(crate) fn connection(mut self) {
        self.write("connection", None);
    }

    /// Writes the line of a request.
    pub(crate) fn request(mut self) {
        self.write("request", None);
    }

    /// Writes the line of a request that was refused; `request_id` names it to its visitor.
    pub(crate) fn refused(mut self, status: u16, request_id: &dyn fmt::Display) {
        self.replied(status);
        self.write("request", Some(&request_id.to_string()));
    }

    /// There is more to say than this line has room for: whoever goes on writes other ones.
    pub(crate) fn discard(mut self) {
        self.written = true;
    }

    fn write(&mut self, what: &str, request_id: Option<&str>) {
        self.written = true;
        let Route { rule, node, tunnel, connector } = &self.route;
        info!(
            service = self.service,
            client = %self.client,
            host = self.host.as_ref().map(Host::as_str),
            protocol = known(self.protocol.as_str()),
            method = self.method.map(bounded),
            status = self.status,
            request_id,
            route = rule.as_deref().and_then(known),
            node = node.as_deref().and_then(known),
            tunnel = tunnel.map(display),
            connector = connector.map(display),
            bytes_in = self.moved.bytes_in,
            bytes_out = self.moved.bytes_out,
            elapsed = seconds(self.started.elapsed()),
            outcome = self.outcome,
            error = self.error.as_deref().map(bounded),
            "{what}"
        );
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if self.written {
            return;
        }
        self.outcome = "cut";
        self.error = Some("given up before its end".to_owned());
        self.write(if self.method.is_some() { "request" } else { "connection" }, None);
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

    /// All that a connection holds that is passed on as it is.
    #[test]
    fn a_pipe_and_its_record_are_small() {
        let side = || Side::from(Box::new(crate::net::memory::pair(1).0) as crate::net::BoxStream);
        let limits = pipe::Limits { half_close_timeout: Duration::ZERO, idle_timeout: None };
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let record = Record::new("test", client, Instant::now());
        let piping = record.pipe(side(), side(), limits, 0);
        assert!(size_of_val(&piping) <= 900, "{} bytes", size_of_val(&piping));
    }

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
