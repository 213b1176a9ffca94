//! Where traffic goes: the words that rules, plugins, logs and the core share.
//!
//! [`Ingress`] answers "which tunnel", [`Forwarder`] answers "which node"; the built-in rules are one implementation of
//! each. Nothing here does I/O or knows who asks.

#[cfg(test)]
mod fake;
pub mod hop;
pub mod hosts;
pub mod ingress;
pub mod rule;
pub mod selector;

use crate::addr::{Host, HostPort};
use crate::wire::http::RequestHead;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// What was recognised in the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// Nothing that we know.
    #[default]
    Unknown,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A TLS ClientHello.
    Tls,
    /// An SSH banner.
    Ssh,
}

impl Protocol {
    /// The word used by `filter.protocol` and in logs: `http` for both HTTP versions, `tls`, `ssh`, or empty.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Http1 | Self::Http2 => "http",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
        }
    }
}

/// Method, path and fields of the request being decided, whichever HTTP version it came in.
pub trait HttpParts: fmt::Debug + Sync {
    /// The method, as sent.
    fn method(&self) -> &str;
    /// The path, without query.
    fn path(&self) -> &str;
    /// The text behind `?`.
    fn query(&self) -> Option<&str>;
    /// The first field of that name, compared without case.
    fn field(&self, name: &str) -> Option<&[u8]>;
    /// Every field of that name, in order.
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a>;
}

impl HttpParts for RequestHead {
    fn method(&self) -> &str {
        Self::method(self)
    }
    fn path(&self) -> &str {
        Self::path(self)
    }
    fn query(&self) -> Option<&str> {
        Self::query(self)
    }
    fn field(&self, name: &str) -> Option<&[u8]> {
        Self::field(self, name)
    }
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        Box::new(self.fields().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    }
}

/// One question: everything a rule, a plugin, a log line and a metric label may look at.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The host asked for; empty when none was learnt.
    pub hostname: Host,
    /// What the first bytes were.
    pub protocol: Protocol,
    /// The visitor's address.
    pub client: SocketAddr,
    /// The service or entrypoint that accepted the connection.
    pub service: &'a str,
    /// The HTTP request, where there is one.
    pub http: Option<&'a dyn HttpParts>,
}

/// An answer. A plugin or source that *failed* is an `Err` beside it, never one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// No opinion: ask the next.
    Pass,
    /// Go there.
    Use(T),
    /// Send the visitor away.
    Refuse(Refusal),
}

/// Why and how a visitor is sent away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status for HTTP visitors; others are closed.
    pub status: u16,
    /// Short text for the visitor's body and the log.
    pub reason: String,
}

/// A source of decisions that could not decide.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RouteError(pub String);

/// The tunnel that an ingress names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The tunnel's ID.
    pub tunnel: Uuid,
    /// Private: public visitors are refused, visitors that know the ID may pass.
    pub private: bool,
    /// The rule that decided, for the log: `example.com` or `*.example.com`.
    pub rule: Arc<str>,
}

/// Hostname and metadata in, tunnel out.
pub trait Ingress: fmt::Debug + Send + Sync {
    /// Decides one request.
    fn resolve(&self, request: &Request<'_>) -> Result<Verdict<Endpoint>, RouteError>;
}

/// A node that a forwarder may choose.
#[derive(Debug)]
pub struct Node {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The condition under which it is a candidate, for the log: its rule, else host, path and protocol of its filter; `*`: none.
    pub condition: Arc<str>,
    /// Where it is. An empty host or port 0 is filled in from the request (`None`: forward to the request's own host).
    pub addr: Option<HostPort>,
    /// Weight for the random strategy, at least 1.
    pub weight: u32,
    /// Used only when no other node of the choice is alive.
    pub backup: bool,
    /// Failures in a row after which it is passed over, at least 1.
    pub max_fails: u32,
    /// For how long after its last failure it is passed over.
    pub fail_timeout: std::time::Duration,
    /// Failure marks.
    pub health: hop::Health,
}

/// Hostname, metadata and candidates in, index of one candidate out.
pub trait Forwarder: fmt::Debug + Send + Sync {
    /// Chooses among `candidates`, which is never empty and holds no node that was already tried for this request.
    fn select(&self, request: &Request<'_>, candidates: &[Arc<Node>]) -> Result<Verdict<usize>, RouteError>;
}
