//! Where traffic goes: the words that rules, plugins, logs and the core share.
//!
//! [`Ingress`] answers "which tunnel", [`Forwarder`] answers "which node"; the built-in rules are one implementation of
//! each. [`Admission`] answers who may open a tunnel. Nothing here does I/O or knows who asks.

#[cfg(test)]
mod fake;
pub mod hop;
pub mod hosts;
pub mod ingress;
mod opening;
mod paths;
pub mod rule;
pub mod selector;

pub use ingress::Endpoint;
pub use opening::{Admission, Admitting, Hostnames, Opening};

use crate::addr::{Host, HostPort};
use crate::wire::http::RequestHead;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
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
    /// A TCP connection that was not looked into.
    Tcp,
    /// A QUIC Initial packet with a ClientHello.
    Quic,
    /// A UDP flow that was not looked into, or in which nothing was recognised.
    Udp,
}

impl Protocol {
    /// The word used by `filter.protocol` and in logs: `http` for both HTTP versions, `tls`, `ssh`, `quic`, or empty.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown | Self::Tcp | Self::Udp => "",
            Self::Http1 | Self::Http2 => "http",
            Self::Tls => "tls",
            Self::Ssh => "ssh",
            Self::Quic => "quic",
        }
    }

    /// The network that it was met on: `tcp` or `udp`.
    pub fn network(self) -> &'static str {
        match self {
            Self::Quic | Self::Udp => "udp",
            _ => "tcp",
        }
    }
}

/// Method, path and fields of the request being decided, whichever HTTP version it came in.
pub trait HttpParts: fmt::Debug + Send + Sync {
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
    /// The names of all fields.
    fn names<'a>(&'a self) -> Box<dyn Iterator<Item = &'a str> + 'a>;
    /// The same parts, for whoever needs them for longer than the request is at hand.
    fn shared(&self) -> Arc<dyn HttpParts>;
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
    fn names<'a>(&'a self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(self.fields().map(|(name, _)| name))
    }
    fn shared(&self) -> Arc<dyn HttpParts> {
        Arc::new(self.clone())
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
    /// What else is known.
    pub extra: Extra,
}

/// What is known beside the request itself; cheap to clone, and nothing where nobody asks.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// The application protocols that a TLS visitor offers.
    pub alpn: Option<Arc<[Box<str>]>>,
    /// The service's own metadata, and what a tunnel server told about a stream; names without case.
    pub metadata: Option<Arc<Pairs>>,
    /// The port asked for; 0 where none was learnt.
    pub port: u16,
}

/// Names and values.
pub type Pairs = [(Box<str>, Box<str>)];

impl Extra {
    /// What the service says of itself, behind `more`: a key that stands in both means the latter.
    pub fn of_service(service: &Arc<Pairs>, more: impl IntoIterator<Item = (Box<str>, Box<str>)>) -> Self {
        let mut more = more.into_iter().peekable();
        let metadata = match more.peek() {
            None => Arc::clone(service),
            Some(_) => more.chain(service.iter().cloned()).collect(),
        };
        Self { metadata: Some(metadata), ..Self::default() }
    }

    /// What is known under that name, compared without case.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let metadata = self.metadata.as_deref()?;
        metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| &**value)
    }
}

/// A [`Request`] for an answer that takes longer than the request is at hand.
#[derive(Debug, Clone)]
pub struct OwnedRequest {
    hostname: Host,
    protocol: Protocol,
    client: SocketAddr,
    service: Box<str>,
    http: Option<Arc<dyn HttpParts>>,
    extra: Extra,
}

impl Request<'_> {
    /// A copy that stands for itself.
    pub fn to_owned(&self) -> OwnedRequest {
        OwnedRequest {
            hostname: self.hostname.clone(),
            protocol: self.protocol,
            client: self.client,
            service: self.service.into(),
            http: self.http.map(HttpParts::shared),
            extra: self.extra.clone(),
        }
    }
}

impl OwnedRequest {
    /// The request again.
    pub fn request(&self) -> Request<'_> {
        Request {
            hostname: self.hostname.clone(),
            protocol: self.protocol,
            client: self.client,
            service: &self.service,
            http: self.http.as_deref(),
            extra: self.extra.clone(),
        }
    }
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

/// A decision, or a source that could not decide.
pub type Decision<T> = Result<Verdict<T>, RouteError>;

/// A decision that is there, as nearly all are, or one that is worked out on another thread.
pub enum Answer<T> {
    /// It is there.
    Now(Decision<T>),
    /// It will be.
    Later(Pin<Box<dyn Future<Output = Decision<T>> + Send>>),
}

impl<T: fmt::Debug> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(decision) => f.debug_tuple("Now").field(decision).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl<T> Answer<T> {
    /// The decision, waited for if need be.
    pub async fn wait(self) -> Decision<T> {
        match self {
            Self::Now(decision) => decision,
            Self::Later(decision) => decision.await,
        }
    }
}

/// Hostname and metadata in, tunnel out.
pub trait Ingress: fmt::Debug + Send + Sync {
    /// Decides one request.
    fn resolve(&self, request: &Request<'_>) -> Answer<Endpoint>;

    /// Tells, once it is awaited, that a tunnel of that service answers to a name from now on. Only a source that keeps such names
    /// has a use for it.
    fn announce(&self, _name: &Host, _tunnel: Uuid, _service: &str) -> Option<Announcement> {
        None
    }
}

/// Ends when it has been told, or cannot be.
pub type Announcement = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A node that a forwarder may choose.
#[derive(Debug)]
pub struct Node {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The condition under which it is a candidate, for the log: its rule, else host, path and protocol of its filter; `*`: none.
    pub condition: Arc<str>,
    /// Where it is. An empty host or port 0 is filled in from the request (`None`: forward to the request's own host).
    pub addr: Option<HostPort>,
    /// Its place among the nodes of its hop; `None`: of no hop.
    pub place: Option<usize>,
    /// Weight for the random strategy, at least 1.
    pub weight: u32,
    /// Used only when no other node of the choice is alive.
    pub backup: bool,
    /// Failures in a row after which it is passed over, at least 1.
    pub max_fails: u32,
    /// For how long after its last failure it is passed over.
    pub fail_timeout: std::time::Duration,
    /// `metadata.labels`.
    pub labels: Box<Pairs>,
    /// Failure marks.
    pub health: hop::Health,
}

/// Where a forwarder sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// To this candidate, by its place among them.
    Candidate(usize),
    /// To an address that is no candidate.
    Address(HostPort),
}

/// Hostname, metadata and candidates in, one candidate out.
pub trait Forwarder: fmt::Debug + Send + Sync {
    /// Chooses among `candidates`, which is never empty and holds no node that was already tried for this request.
    fn select(&self, request: &Request<'_>, candidates: &[Arc<Node>]) -> Answer<Choice>;
}
