//! Why a request got no answer from its target, and what the visitor is told instead.

use crate::record::Record;
use crate::route::Refusal;
use crate::wire::http::Rejected;
use bytes::Bytes;
use std::fmt;

/// A request that failed before its reply began; each kind has its own status.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// The visitor's bytes are no request that we take.
    #[error("{0}")]
    Request(Rejected),
    /// The head did not come in time.
    #[error("request head not complete in time (http.headTimeout)")]
    HeadTimeout,
    /// The visitor stopped in the middle of its request.
    #[error("request body made no progress (http.stallTimeout)")]
    BodyTimeout,
    /// No rule, no node, or a private tunnel.
    #[error("no route for host {0:?}")]
    NoRoute(String),
    /// A rule or plugin sends the visitor away.
    #[error("refused: {0}")]
    Refused(String, u16),
    /// The node wants a user name and a password.
    #[error("no user that the node lets in (http.auth)")]
    Unauthorized,
    /// The source of decisions failed.
    #[error("routing failed: {0}")]
    Routing(String),
    /// The tunnel has no live connector, or none that takes a stream.
    #[error("no connector: {0}")]
    NoConnector(String),
    /// Dialling failed, or the connection ended before a reply.
    #[error("upstream down: {0}")]
    Down(String),
    /// This process has no descriptor left for a connection to the target.
    #[error("cannot connect, for want of descriptors: {0}")]
    Exhausted(String),
    /// No reply head in time.
    #[error("upstream silent: no reply in time (readTimeout, at an entrypoint entrypoint.readTimeout)")]
    Silent,
    /// A reply that is malformed or ambiguous.
    #[error("bad reply from upstream: {0}")]
    BadReply(&'static str),
    /// It is answered by this proxy itself.
    #[error("answered here")]
    Own(Own),
    /// The request has been through this node before.
    #[error("loop: the request has passed this node already")]
    Loop,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.reason, refusal.status)
    }
}

impl Failure {
    /// The status that the visitor gets.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Request(rejected) => rejected.status,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::NoRoute(_) | Self::BadReply(_) => 502,
            Self::Refused(_, status) => *status,
            Self::Unauthorized => 401,
            Self::Routing(_) => 500,
            Self::NoConnector(_) | Self::Down(_) | Self::Exhausted(_) => 503,
            Self::Silent => 504,
            Self::Own(own) => own.status,
            Self::Loop => 508,
        }
    }

    /// Whether it was the visitor's doing, and says nothing about the target.
    pub(crate) fn is_visitors(&self) -> bool {
        use Failure::{BodyTimeout, HeadTimeout, Own, Request, Unauthorized};
        matches!(self, Request(_) | HeadTimeout | BodyTimeout | Unauthorized | Own(_))
    }

    /// Whether the visitor is to let go of its connection, for others.
    pub(crate) fn ends_connection(&self) -> bool {
        matches!(self, Self::Exhausted(_))
    }

    /// The word for logs and metrics: whose doing it was.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Request(_) => "bad_request",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::NoRoute(_) => "no_route",
            Self::Refused(..) => "refused",
            Self::Unauthorized => "unauthorized",
            Self::Routing(_) => "routing_failed",
            Self::NoConnector(_) => "no_connector",
            Self::Down(_) => "upstream_down",
            Self::Exhausted(_) => "out_of_descriptors",
            Self::Silent => "upstream_silent",
            Self::BadReply(_) => "bad_reply",
            Self::Own(own) => own.outcome,
            Self::Loop => "loop",
        }
    }

    /// What a visitor may read: addresses and causes inside stay in the log.
    fn public_text(&self) -> String {
        match self {
            Self::Down(_) => "upstream down".to_owned(),
            Self::Exhausted(_) => "too many connections".to_owned(),
            Self::NoConnector(_) => "no connector: the tunnel is not connected".to_owned(),
            Self::Routing(_) => "routing failed".to_owned(),
            Self::Silent => "upstream silent".to_owned(),
            Self::Unauthorized => "user name and password wanted".to_owned(),
            other => other.to_string(),
        }
    }

    /// A field that says what the visitor can do about it.
    pub(crate) fn field(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Unauthorized => Some(("WWW-Authenticate", "Basic realm=\"pointsman\", charset=\"UTF-8\"")),
            Self::Own(Own { field: Some((name, value)), .. }) => Some((name, value)),
            _ => None,
        }
    }

    /// The body for the visitor.
    pub(crate) fn text(&self, request_id: &RequestId) -> String {
        match self {
            Self::Own(own) => own.text.clone(),
            _ => format!("{} {}\nrequest ID {request_id}\n", self.status(), self.public_text()),
        }
    }

    /// The reply, with a short plain body unless the request was HEAD.
    pub(crate) fn reply(&self, request_id: &RequestId, close: bool, head_only: bool) -> Bytes {
        let status = self.status();
        let reason =
            http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
        let body = self.text(request_id);
        let connection = if close { "Connection: close\r\n" } else { "" };
        let field = self.field().map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{field}{connection}\r\n",
            body.len()
        );
        Bytes::from(if head_only { head } else { head + &body })
    }
}

/// A whole reply of ours.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) status: u16,
    /// The word for logs and metrics.
    pub(crate) outcome: &'static str,
    pub(crate) field: Option<(&'static str, String)>,
    pub(crate) text: String,
}

impl Own {
    /// For good, and with the same method (RFC 9110, section 15.4.9).
    pub(crate) fn redirect(location: String) -> Self {
        let text = format!("308 {location}\n");
        Self { status: 308, outcome: "redirect", field: Some(("Location", location)), text }
    }
}

/// Why a reply that had begun, or was about to, did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    /// The visitor does not want it any more.
    #[error("visitor gone")]
    Visitor,
    /// Neither body moved.
    #[error("no body made progress for too long (http.stallTimeout)")]
    Stalled,
    /// The target broke off, or sent what no body has.
    #[error("{0}")]
    Target(&'static str),
}

impl Cut {
    /// The word for logs and metrics.
    pub(crate) fn outcome(self) -> &'static str {
        match self {
            Self::Visitor => "visitor_gone",
            Self::Stalled => "stalled",
            Self::Target(_) => "cut",
        }
    }
}

impl Record<'_> {
    /// Its reply was cut, if it was.
    pub(crate) fn cut(self, cut: Option<Cut>) -> Self {
        cut.into_iter().fold(self, |record, why| record.failed(why.outcome(), why))
    }
}

/// Names one failed request in the visitor's body and in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestId(u64);

impl RequestId {
    pub(crate) fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
