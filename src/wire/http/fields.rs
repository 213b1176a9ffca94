//! The fields of a head: parsed by `httparse`, kept as places in the raw bytes, and read for what decides framing and
//! connection. Which combinations a request or a reply may have is decided in `request` and `reply`.

use super::{Framing, Kind};
use httparse::Header;
use std::mem::MaybeUninit;

/// Heads with up to so many fields are parsed without a buffer on the heap.
const INLINE_FIELDS: usize = 64;

/// A part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    pub(super) fn new(start: usize, len: usize) -> Self {
        // The scanner takes no head whose places do not fit.
        Self { start: start as u32, len: len as u32 }
    }

    /// Where `part`, a slice of `whole`, stands in it.
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Self {
        Self::new((part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize), part.len())
    }

    pub(super) fn bytes(self, whole: &[u8]) -> &[u8] {
        let start = self.start as usize;
        whole.get(start..start + self.len as usize).unwrap_or_default()
    }

    /// The part as text; only parts that were checked to be ASCII are asked for.
    pub(super) fn text(self, whole: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(whole)).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
}

/// What the fields say about framing and connection.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) host: Option<Span>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// `Connection` names `upgrade`.
    pub(super) connection_upgrade: bool,
    pub(super) upgrade: Option<Span>,
    pub(super) second_upgrade: bool,
}

/// Parses a complete head of `count` field lines.
pub(super) fn parse(raw: &[u8], count: usize, kind: Kind) -> Result<(Box<[Field]>, Meaning), &'static str> {
    if count <= INLINE_FIELDS {
        parse_into(raw, &mut [MaybeUninit::uninit(); INLINE_FIELDS], kind)
    } else {
        parse_into(raw, &mut vec![MaybeUninit::uninit(); count], kind)
    }
}

fn parse_into<'a>(
    raw: &'a [u8],
    slots: &mut [MaybeUninit<Header<'a>>],
    kind: Kind,
) -> Result<(Box<[Field]>, Meaning), &'static str> {
    let config = httparse::ParserConfig::default();
    let (parsed, headers) = match kind {
        Kind::Request => {
            let mut head = httparse::Request::new(&mut []);
            (config.parse_request_with_uninit_headers(&mut head, raw, slots), head.headers)
        }
        Kind::Reply => {
            let mut head = httparse::Response::new(&mut []);
            (config.parse_response_with_uninit_headers(&mut head, raw, slots), head.headers)
        }
    };
    // The scanner and the parser must agree on where the head ends.
    if parsed.map_err(reason)? != httparse::Status::Complete(raw.len()) {
        return Err("malformed head");
    }
    let mut meaning = Meaning::default();
    let mut fields = Vec::with_capacity(headers.len());
    for header in headers.iter() {
        let value = Span::of(raw, header.value);
        meaning.note(header.name, header.value, value)?;
        fields.push(Field { name: Span::of(raw, header.name.as_bytes()), value });
    }
    Ok((fields.into_boxed_slice(), meaning))
}

fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => {
            "malformed field name (space before the colon, folded line, no name ...)"
        }
        httparse::Error::HeaderValue => "control byte in a field",
        httparse::Error::NewLine => "line end other than CRLF",
        httparse::Error::Status => "malformed status line",
        httparse::Error::Token => "malformed request line",
        httparse::Error::Version => "HTTP version other than 1.0 and 1.1",
        httparse::Error::TooManyHeaders => "too many fields in the head",
    }
}

/// Sets what may be set only once.
fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice),
    }
}

impl Meaning {
    fn note(&mut self, name: &str, value: &[u8], span: Span) -> Result<(), &'static str> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => once(&mut self.host, span, "two Host fields")?,
            7 if is("upgrade") => {
                self.second_upgrade |= self.upgrade.is_some();
                self.upgrade.get_or_insert(span);
            }
            10 if is("connection") => self.note_connection(value)?,
            14 if is("content-length") => {
                once(&mut self.content_length, decimal(value)?, "two Content-Length fields")?;
            }
            17 if is("transfer-encoding") => {
                if self.chunked {
                    return Err("two Transfer-Encoding fields");
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err("Transfer-Encoding other than chunked");
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), &'static str> {
        for option in tokens(value) {
            let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
            // A next hop that obeys would drop the field and read another message than we did.
            if is(b"content-length") || is(b"transfer-encoding") || is(b"host") {
                return Err("Connection names a field that frames or routes the message");
            }
            self.close |= is(b"close");
            self.keep_alive |= is(b"keep-alive");
            self.connection_upgrade |= is(b"upgrade");
        }
        Ok(())
    }

    /// The framing the fields name, `None` where they name none.
    pub(super) fn framing(&self, http10: bool) -> Result<Option<Framing>, &'static str> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err("Content-Length with Transfer-Encoding"),
            (None, true) if http10 => Err("HTTP/1.0 with Transfer-Encoding"),
            (None, true) => Ok(Some(Framing::Chunked)),
            (Some(0), false) => Ok(Some(Framing::None)),
            (Some(n), false) => Ok(Some(Framing::Length(n))),
            (None, false) => Ok(None),
        }
    }

    /// Whether version and `Connection` let another message follow; `close` wins.
    pub(super) fn persistent(&self, http10: bool) -> bool {
        !self.close && (!http10 || self.keep_alive)
    }
}

/// The members of a comma-separated list; empty ones are skipped.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Digits only, no sign, no list, and no leading zero, which some parsers take for octal.
fn decimal(value: &[u8]) -> Result<u64, &'static str> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if !digits || (value.len() > 1 && value[0] == b'0') {
        return Err("Content-Length is not a plain number");
    }
    value
        .iter()
        .try_fold(0u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))
        .ok_or("Content-Length too large")
}
