//! The fields of a head: checked, kept as places in the raw bytes, and read for what decides framing and connection. Which
//! combinations a request or a reply may have is decided in `request` and `reply`.

use super::{Framing, is_token, is_value};

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

/// Reads the `count` field lines of a complete head, which begin at `start`.
pub(super) fn parse(raw: &[u8], start: usize, count: usize) -> Result<(Box<[Field]>, Meaning), &'static str> {
    let mut meaning = Meaning::default();
    let mut fields = Vec::with_capacity(count);
    let mut at = start;
    for _ in 0..count {
        let rest = raw.get(at..).unwrap_or_default();
        // The scanner has seen to it that each line ends in CRLF, and that CR stands nowhere else.
        let line = &rest[..memchr::memchr(b'\r', rest).unwrap_or(rest.len())];
        let (name, value) = split_field(line)?;
        let field = Field { name: Span::new(at, name.len()), value: Span::of(raw, value) };
        meaning.note(name, value, field.value)?;
        fields.push(field);
        at += line.len() + 2;
    }
    Ok((fields.into_boxed_slice(), meaning))
}

/// Name and value of a field line (RFC 9112 5), without the white space around the value.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let end = line.iter().position(|b| !is_token(*b)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let value = rest.strip_prefix(b":").filter(|_| !name.is_empty());
    let value = value.ok_or("malformed field name (space before the colon, folded line, no name ...)")?;
    if !is_plain(value) && !value.iter().copied().all(is_value) {
        return Err("control byte in a field");
    }
    // Space and tab only: every other white space is a control byte.
    Ok((name, value.trim_ascii()))
}

/// Whether no byte is a control byte, found eight at a time. Says no of a tab as well.
fn is_plain(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk() else { return value.iter().all(|b| *b >= b' ' && *b != 0x7f) };
    value.as_chunks().0.iter().chain([last]).all(|eight| are_plain(u64::from_ne_bytes(*eight)))
}

/// Of eight bytes: none is below a space, none is DEL.
fn are_plain(eight: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let del = eight ^ (EACH * 0x7f);
    let below = |bytes: u64, limit: u64| bytes.wrapping_sub(EACH * limit) & !bytes & (EACH * 0x80);
    below(eight, 0x20) | below(del, 1) == 0
}

/// Sets what may be set only once.
fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice),
    }
}

impl Meaning {
    fn note(&mut self, name: &[u8], value: &[u8], span: Span) -> Result<(), &'static str> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What another parser reads from the same line.
    fn by_httparse(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let head = [b"GET / HTTP/1.1\r\n", line, b"\r\n\r\n"].concat();
        let mut fields = [httparse::EMPTY_HEADER; 2];
        let mut request = httparse::Request::new(&mut fields);
        let whole = request.parse(&head).ok()? == httparse::Status::Complete(head.len());
        let field = request.headers.first().filter(|_| whole)?;
        Some((field.name.as_bytes().to_vec(), field.value.to_vec()))
    }

    proptest! {
        #[test]
        fn a_field_is_what_httparse_takes_it_for(
            name in "[!-~]{0,3}[a-zA-Z-]{0,9}[ \t\u{80}]?",
            colon in ":{0,2}",
            value in "[ \t]{0,2}([\u{0}-\u{ff}&&[^\r\n]]|[a-z]){0,20}[ \t]{0,2}",
        ) {
            let line = format!("{name}{colon}{value}").into_bytes();
            let ours = split_field(&line).ok().map(|(name, value)| (name.to_vec(), value.to_vec()));
            // A line without a byte would end the head.
            prop_assert_eq!(ours, by_httparse(&line).filter(|_| !line.is_empty()), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn every_byte_in_every_place() {
        let line = b"name: 0123456789abcdefghi";
        for byte in (0..=u8::MAX).filter(|b| !b"\r\n".contains(b)) {
            for (place, end) in (1..=line.len()).flat_map(|end| (0..end).map(move |place| (place, end))) {
                let mut line = line[..end].to_vec();
                line[place] = byte;
                let ours = split_field(&line).ok().map(|(name, value)| (name.to_vec(), value.to_vec()));
                assert_eq!(ours, by_httparse(&line), "{}", line.escape_ascii());
            }
        }
    }
}
