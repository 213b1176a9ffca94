//! Request heads: request line, target, authority, and what may stand together in one request.

use super::fields::{self, Field, Meaning, Span, tokens};
use super::scan::start_line;
use super::{Framing, Kind, Rejected, is_token};
use crate::addr::HostPort;
use bytes::Bytes;

/// What [`edit_head`](super::edit_head) has to remove from a request that [offers h2c](RequestHead::offers_h2c).
pub const H2C_FIELDS: &[&str] = &["Upgrade", "HTTP2-Settings"];

/// A complete, checked request head.
#[derive(Debug, Clone)]
pub struct RequestHead {
    raw: Bytes,
    method: Span,
    target: Span,
    path: Span,
    query: Option<Span>,
    authority: Option<HostPort>,
    fields: Box<[Field]>,
    framing: Framing,
    http10: bool,
    keep_alive: bool,
    upgrade: Option<Span>,
    offers_h2c: bool,
}

impl RequestHead {
    /// The bytes as they came, with the empty line.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The method, as sent.
    pub fn method(&self) -> &str {
        self.method.text(&self.raw)
    }

    /// The request target, as sent.
    pub fn target(&self) -> &str {
        self.target.text(&self.raw)
    }

    /// The path of the target (origin-form or absolute-form), without the query; `*` or empty for the other forms.
    pub fn path(&self) -> &str {
        self.path.text(&self.raw)
    }

    /// The text behind `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|query| query.text(&self.raw))
    }

    /// Host of an absolute-form (or CONNECT's authority-form) target, else of the Host field; where none is named, port
    /// 80 (443 for `https:` and `wss:`). `None` without a Host field or with an empty one.
    pub fn authority(&self) -> Option<&HostPort> {
        self.authority.as_ref()
    }

    /// Fields in order, names as sent.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (field.name.text(&self.raw), field.value.bytes(&self.raw)))
    }

    /// The first field of that name, compared without case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let wanted = name.as_bytes();
        let field = self.fields.iter().find(|f| f.name.bytes(&self.raw).eq_ignore_ascii_case(wanted))?;
        Some(field.value.bytes(&self.raw))
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether another request may follow on this connection.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether all that Connection says is that this was the last request.
    pub fn only_closes(&self) -> bool {
        let options = self.fields().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        !self.keep_alive
            && !self.http10
            && options
                .flat_map(|(_, value)| tokens(value))
                .all(|option| option.eq_ignore_ascii_case(b"close"))
    }

    /// The Upgrade field, when Connection names it; never in HTTP/1.0, never one that [offers h2c](Self::offers_h2c).
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade.map(|value| value.text(&self.raw))
    }

    /// Whether the reply may make the connection a byte pipe: Upgrade, CONNECT.
    ///
    /// What a client sends behind such a head before it has the reply is a request to one reader and another protocol's
    /// data to the next.
    pub fn may_switch(&self) -> bool {
        self.upgrade.is_some() || self.is_connect()
    }

    /// Whether the request asks for HTTP/2 by `Upgrade: h2c`.
    ///
    /// Requests inside such a connection could be routed by nobody, so a 101 to it is rejected. As a server may ignore an
    /// upgrade (RFC 9110 7.8) and common clients offer h2c with every request, it is served as HTTP/1.1: the
    /// caller forwards the head without [`H2C_FIELDS`], and no upstream sees the offer.
    pub fn offers_h2c(&self) -> bool {
        self.offers_h2c
    }

    /// Whether the client holds its body back until it hears from the server.
    pub fn expects_continue(&self) -> bool {
        let named = |value: &[u8]| value.eq_ignore_ascii_case(b"100-continue");
        !self.http10 && self.field("expect").is_some_and(named)
    }

    /// HTTP/1.0?
    pub fn is_http10(&self) -> bool {
        self.http10
    }

    /// Whether the method is [idempotent](is_idempotent).
    pub fn idempotent(&self) -> bool {
        is_idempotent(self.method.bytes(&self.raw))
    }

    /// HEAD?
    pub fn is_head(&self) -> bool {
        self.method.bytes(&self.raw) == b"HEAD"
    }

    /// CONNECT?
    pub fn is_connect(&self) -> bool {
        self.method.bytes(&self.raw) == b"CONNECT"
    }

    /// Reads a head that the scanner found to end at the end of `raw`.
    pub(super) fn parse(raw: Bytes, field_count: usize) -> Result<Self, Rejected> {
        Self::read(raw, field_count).map_err(|reason| Kind::Request.reject(reason))
    }

    fn read(raw: Bytes, field_count: usize) -> Result<Self, &'static str> {
        let text = start_line(&raw);
        let line = split_line(text)?;
        let (fields, meaning) = fields::parse(&raw, text.len() + 2, field_count)?;
        let target = Target::parse(&raw, line.target, line.method)?;
        let host = meaning.host.map(|host| host.bytes(&raw));
        if host.is_none() && !line.http10 {
            return Err("HTTP/1.1 without Host");
        }
        let authority = agree(target.authority, target.default_port, host)?;
        let framing = meaning.framing(line.http10)?.unwrap_or(Framing::None);
        if line.method == b"CONNECT" && (meaning.content_length.is_some() || meaning.chunked) {
            return Err("CONNECT with a body");
        }
        let (upgrade, offers_h2c) = asked_upgrade(&raw, &meaning, framing, line.http10)?;
        Ok(Self {
            method: Span::of(&raw, line.method),
            target: Span::of(&raw, line.target),
            path: target.path,
            query: target.query,
            http10: line.http10,
            keep_alive: meaning.persistent(line.http10),
            raw,
            authority,
            fields,
            framing,
            upgrade,
            offers_h2c,
        })
    }
}

/// Whether a method is idempotent by RFC 9110 (GET, HEAD, OPTIONS, TRACE, PUT, DELETE).
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

/// The three parts of a request line.
pub(super) struct Line<'a> {
    method: &'a [u8],
    target: &'a [u8],
    http10: bool,
}

/// Splits a request line at exactly two spaces.
pub(super) fn split_line(line: &[u8]) -> Result<Line<'_>, &'static str> {
    let spaces = memchr::memchr(b' ', line).zip(memchr::memrchr(b' ', line));
    let Some((first, last)) = spaces.filter(|(first, last)| first + 1 < *last) else {
        return Err("request line is not method, target and version with single spaces");
    };
    let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err("method is not a token");
    }
    if !target.iter().fold(true, |visible, b| visible & b.is_ascii_graphic()) {
        return Err("malformed request target");
    }
    if memchr::memchr(b'#', target).is_some() {
        return Err("fragment in the request target");
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("HTTP version other than 1.0 and 1.1"),
    };
    Ok(Line { method, target, http10 })
}

/// A request target, taken apart (RFC 9112 3.2).
struct Target {
    authority: Option<HostPort>,
    /// What a Host field without a port stands for beside this target.
    default_port: u16,
    path: Span,
    query: Option<Span>,
}

impl Target {
    fn parse(raw: &[u8], target: &[u8], method: &[u8]) -> Result<Self, &'static str> {
        if method == b"CONNECT" {
            let authority = parse_authority(target, 0)?;
            if authority.port == 0 {
                return Err("CONNECT without a port");
            }
            let default_port = authority.port;
            return Ok(Self { authority: Some(authority), default_port, path: Span::default(), query: None });
        }
        if target == b"*" {
            if method != b"OPTIONS" {
                return Err("target * with a method other than OPTIONS");
            }
            return Ok(Self { authority: None, default_port: 80, path: Span::of(raw, target), query: None });
        }
        if target[0] == b'/' {
            let (path, query) = split_query(raw, target);
            return Ok(Self { authority: None, default_port: 80, path, query });
        }
        Self::absolute(raw, target)
    }

    fn absolute(raw: &[u8], target: &[u8]) -> Result<Self, &'static str> {
        let colon = memchr::memchr(b':', target).ok_or("request target of no known form")?;
        let rest = target[colon..].strip_prefix(b"://").ok_or("request target of no known form")?;
        let scheme = &target[..colon];
        let is = |known: &[u8]| scheme.eq_ignore_ascii_case(known);
        let default_port = match () {
            () if is(b"http") || is(b"ws") => 80,
            () if is(b"https") || is(b"wss") => 443,
            () => return Err("scheme of the request target is not http or https"),
        };
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let authority = parse_authority(&rest[..end], default_port)?;
        let (mut path, query) = split_query(raw, &rest[end..]);
        if path == Span::of(raw, &rest[end..end]) {
            // An empty path means "/"; one of those stands before the authority.
            path = Span::of(raw, &target[colon + 1..colon + 2]);
        }
        Ok(Self { authority: Some(authority), default_port, path, query })
    }
}

fn split_query(raw: &[u8], target: &[u8]) -> (Span, Option<Span>) {
    match memchr::memchr(b'?', target) {
        Some(mark) => (Span::of(raw, &target[..mark]), Some(Span::of(raw, &target[mark + 1..]))),
        None => (Span::of(raw, target), None),
    }
}

/// A host that is not empty, IPv6 in brackets only, with or without port, without user name.
fn parse_authority(text: &[u8], default_port: u16) -> Result<HostPort, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "malformed host")?;
    // Without brackets the last group of an IPv6 address and a port look the same.
    if !text.starts_with('[') && text.bytes().filter(|b| *b == b':').count() > 1 {
        return Err("malformed host");
    }
    match HostPort::parse(text, default_port) {
        Ok(authority) if !authority.host.is_empty() => Ok(authority),
        _ => Err("malformed host"),
    }
}

/// The one authority that target and Host name together. RFC 9112 lets the target win; as both are passed on, a server
/// that looks at the other one would be reached past our routing, so they have to agree.
fn agree(
    target: Option<HostPort>,
    default_port: u16,
    host: Option<&[u8]>,
) -> Result<Option<HostPort>, &'static str> {
    let Some(host) = host else { return Ok(target) };
    let host = if host.is_empty() { None } else { Some(parse_authority(host, default_port)?) };
    if target.is_some() && target != host {
        return Err("Host differs from the request target");
    }
    Ok(host)
}

/// The Upgrade field where it counts, and whether it offers h2c instead.
fn asked_upgrade(
    raw: &[u8],
    meaning: &Meaning,
    framing: Framing,
    http10: bool,
) -> Result<(Option<Span>, bool), &'static str> {
    let Some(value) = meaning.upgrade.filter(|_| meaning.connection_upgrade && !http10) else {
        return Ok((None, false));
    };
    if meaning.second_upgrade {
        return Err("two Upgrade fields");
    }
    let value_bytes = value.bytes(raw);
    if !value_bytes.is_ascii() || tokens(value_bytes).next().is_none() {
        return Err("malformed Upgrade");
    }
    if tokens(value_bytes).any(|token| token.eq_ignore_ascii_case(b"h2c")) {
        return Ok((None, true));
    }
    // Servers differ in whether the body or the new protocol comes first.
    if framing != Framing::None {
        return Err("Upgrade with a body");
    }
    Ok((Some(value), false))
}
