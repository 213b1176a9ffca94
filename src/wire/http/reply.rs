//! Reply heads: status line, and how the body is framed in answer to which request (RFC 9112 6.3).

use super::fields::{self, Field, Meaning, tokens};
use super::scan::start_line;
use super::{Framing, Kind, Rejected, RequestHead, is_value};
use bytes::Bytes;

/// A complete, checked reply head.
#[derive(Debug, Clone)]
pub struct ReplyHead {
    raw: Bytes,
    status: u16,
    framing: Framing,
    keep_alive: bool,
    switches: bool,
    fields: Box<[Field]>,
}

impl ReplyHead {
    /// The bytes as they came, with the empty line.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Fields in order, names as sent.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| (field.name.text(&self.raw), field.value.bytes(&self.raw)))
    }

    /// What the Connection field names: fields that are not meant for anybody behind this connection.
    pub fn connection_options(&self) -> impl Iterator<Item = &str> {
        let named = self.fields().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
        named.flat_map(|(_, value)| tokens(value)).filter_map(|token| std::str::from_utf8(token).ok())
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A 1xx reply other than 101: another head follows.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// 101 that answers the request's Upgrade, or 2xx to CONNECT: what follows is a byte pipe.
    pub fn switches(&self) -> bool {
        self.switches
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the connection may carry another exchange, as far as the reply says; the request has its say too.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Reads a head that the scanner found to end at the end of `raw`.
    pub(super) fn parse(raw: Bytes, field_count: usize, request: &RequestHead) -> Result<Self, Rejected> {
        Self::read(raw, field_count, request).map_err(|reason| Kind::Reply.reject(reason))
    }

    fn read(raw: Bytes, field_count: usize, request: &RequestHead) -> Result<Self, &'static str> {
        let line = start_line(&raw);
        let (fields, meaning) = fields::parse(&raw, line.len() + 2, field_count)?;
        let Line { status, http10 } = split_line(line)?;
        let named = meaning.framing(http10)?;
        let switches = match status {
            101 => {
                check_switch(&raw, &meaning, http10, request)?;
                true
            }
            200..300 => request.is_connect(),
            _ => false,
        };
        let bodiless = switches || status < 200 || status == 204;
        if bodiless && !matches!(named, None | Some(Framing::None)) {
            return Err("reply that can have no body names the length of one");
        }
        let framing = if bodiless || status == 304 || request.is_head() {
            Framing::None
        } else {
            named.unwrap_or(Framing::Close)
        };
        let keep_alive = meaning.persistent(http10) && framing != Framing::Close && !switches;
        Ok(Self { raw, status, framing, keep_alive, switches, fields })
    }
}

/// A status line without its reason.
pub(super) struct Line {
    status: u16,
    http10: bool,
}

/// Reads `HTTP/1.x SP 3DIGIT`, with nothing behind it or a space and any reason, which may be empty.
pub(super) fn split_line(line: &[u8]) -> Result<Line, &'static str> {
    let (version, rest) = line.split_at_checked(8).ok_or("malformed status line")?;
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("HTTP version other than 1.0 and 1.1"),
    };
    let (code, reason) = match rest {
        [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err("malformed status line"),
    };
    if !(reason.is_empty() || reason[0] == b' ') || !reason.iter().copied().all(is_value) {
        return Err("malformed status line");
    }
    let status = code.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
    Ok(Line { status, http10 })
}

/// 101 must pick, from what the request offered, and only from that.
fn check_switch(
    raw: &[u8],
    meaning: &Meaning,
    http10: bool,
    request: &RequestHead,
) -> Result<(), &'static str> {
    let offered = request.upgrade().ok_or("101 that nobody asked for")?;
    let chosen = meaning.upgrade.filter(|_| !meaning.second_upgrade && !http10).ok_or("malformed 101")?;
    let mut chosen = tokens(chosen.bytes(raw)).peekable();
    let known = |token: &[u8]| tokens(offered.as_bytes()).any(|offer| offer.eq_ignore_ascii_case(token));
    if chosen.peek().is_none() || !chosen.all(known) {
        return Err("101 to a protocol that was not offered");
    }
    Ok(())
}
