//! HTTP/1 heads and the framing of bodies (RFC 9112), strict about whatever two parsers could read in two ways.

use crate::addr::HostPort;
use bytes::{Bytes, BytesMut};

/// What a head may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of start line and fields together, with the empty line.
    pub max_bytes: usize,
    /// Number of fields.
    pub max_fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024, max_fields: 256 }
    }
}

/// A message that is refused: the status a visitor gets for it (400, 431, 505 ...) and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// HTTP status for a request; a rejected reply is always 502 for the visitor.
    pub status: u16,
    /// The rule that was broken.
    pub reason: &'static str,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection ends (replies only).
    Close,
}

/// A complete, checked request head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    raw: Bytes,
}

impl RequestHead {
    /// Takes a whole head off the front of `buf`, or `None` while it is incomplete.
    pub fn take(buf: &mut BytesMut, limits: &Limits) -> Result<Option<Self>, Rejected> {
        let _ = (buf, limits);
        todo!()
    }
    /// The bytes as they came, with the empty line.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }
    /// The method, as sent.
    pub fn method(&self) -> &str {
        todo!()
    }
    /// The request target, as sent.
    pub fn target(&self) -> &str {
        todo!()
    }
    /// The path of the target (origin-form or absolute-form), without the query; `*` or empty for the other forms.
    pub fn path(&self) -> &str {
        todo!()
    }
    /// The text behind `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        todo!()
    }
    /// Host of an absolute-form (or CONNECT's authority-form) target, else of the Host field; port 80 when none is named.
    pub fn authority(&self) -> Option<&HostPort> {
        todo!()
    }
    /// Fields in order, names as sent.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        std::iter::empty()
    }
    /// The first field of that name, compared without case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let _ = name;
        todo!()
    }
    /// How the body ends.
    pub fn framing(&self) -> Framing {
        todo!()
    }
    /// Whether another request may follow on this connection.
    pub fn keep_alive(&self) -> bool {
        todo!()
    }
    /// The Upgrade field, when Connection names it.
    pub fn upgrade(&self) -> Option<&str> {
        todo!()
    }
    /// HTTP/1.0?
    pub fn is_http10(&self) -> bool {
        todo!()
    }
    /// Whether the method is idempotent by RFC 9110 (GET, HEAD, OPTIONS, TRACE, PUT, DELETE).
    pub fn idempotent(&self) -> bool {
        todo!()
    }
}

/// A complete, checked reply head.
#[derive(Debug, Clone)]
pub struct ReplyHead {
    raw: Bytes,
}

impl ReplyHead {
    /// Takes a whole reply head off the front of `buf`; `request` decides how the body is framed (HEAD, CONNECT, Upgrade).
    pub fn take(buf: &mut BytesMut, limits: &Limits, request: &RequestHead) -> Result<Option<Self>, Rejected> {
        let _ = (buf, limits, request);
        todo!()
    }
    /// The bytes as they came, with the empty line.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }
    /// The status code.
    pub fn status(&self) -> u16 {
        todo!()
    }
    /// A 1xx reply other than 101: another head follows.
    pub fn is_interim(&self) -> bool {
        todo!()
    }
    /// 101 that answers the request's Upgrade, or 2xx to CONNECT: what follows is a byte pipe.
    pub fn switches(&self) -> bool {
        todo!()
    }
    /// How the body ends.
    pub fn framing(&self) -> Framing {
        todo!()
    }
    /// Whether the connection may carry another exchange.
    pub fn keep_alive(&self) -> bool {
        todo!()
    }
}

/// Follows one body as its bytes pass by, unchanged.
#[derive(Debug, Clone)]
pub struct Body {}

impl Body {
    /// The state before the first byte.
    pub fn new(framing: Framing) -> Self {
        let _ = framing;
        todo!()
    }
    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        todo!()
    }
    /// Says how many bytes at the front of `bytes` belong to the body and may be passed on (all of them unless the body ends inside).
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Rejected> {
        let _ = bytes;
        todo!()
    }
    /// How many raw bytes certainly belong to the body whatever they are: the rest of a Length, of a chunk, or `u64::MAX` for Close.
    pub fn opaque(&self) -> u64 {
        todo!()
    }
    /// Notes that `n` of the [`opaque`](Self::opaque) bytes were passed on without being seen (spliced).
    pub fn skip(&mut self, n: u64) {
        let _ = n;
        todo!()
    }
    /// The connection ended: fine for Close, or when done.
    pub fn end(&mut self) -> Result<(), Rejected> {
        todo!()
    }
}

/// Rewrites a head as the configuration asks: drops every field named in `remove`, then adds `add` at the end.
pub fn edit_fields(raw: &Bytes, remove: &[&str], add: &[(&str, &str)]) -> Bytes {
    let _ = (remove, add);
    raw.clone()
}
