//! An argument to its parts: `SCHEME://[USER[:PASSWORD]@]HOST[/PATH][?KEY=VALUE&...]`, each with its place.
//!
//! Read as the reference reads it (`net/url` of Go): the host ends at the first `/` or `?`, user and password at the last `@`
//! before that, so that a password may have an `@`; `%` escapes are undone, and `+` is a blank in the query only. What the
//! reference drops in silence (a fragment, a malformed escape, a second value of one key) is an error here.

use crate::config::nodes::Place;
use crate::config::problem::{Collector, Severity};

/// What an argument without a scheme has, as in the reference.
pub(super) const AUTO: &str = "auto";

/// A text, and where it stands in the argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: Place,
    pub(super) text: String,
}

/// The parts of an argument.
#[derive(Debug, Clone)]
pub(super) struct Url {
    /// In lower case; `auto` where none is written.
    pub(super) scheme: Piece,
    /// User and password.
    pub(super) user: Option<(Piece, Option<Piece>)>,
    /// As written: ports may be ranges, hosts several.
    pub(super) host: Piece,
    /// From the first `/` to the query, as written; may be empty.
    pub(super) path: Piece,
    /// Keys and values, in order, escapes undone.
    pub(super) query: Vec<(Piece, Piece)>,
}

impl Piece {
    pub(super) fn new(at: Place, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }

    /// The parts between commas or the like, each with its place; those that are empty are left out.
    pub(super) fn split(&self, separator: char) -> impl Iterator<Item = Self> {
        let mut column = 0;
        let parts = self.text.split(separator).map(move |part| {
            let at = self.at.behind(column);
            column += part.chars().count() + 1;
            Self::new(at, part)
        });
        parts.filter(|part| !part.text.is_empty())
    }
}

/// An argument that is being read.
#[derive(Debug, Clone, Copy)]
struct Reader<'r, 'a> {
    text: &'r str,
    source: usize,
    problems: &'r Collector<'a>,
}

/// Reads an argument; what is wrong with it is reported.
pub(super) fn parse(text: &str, source: usize, problems: &Collector<'_>) -> Option<Url> {
    let reader = Reader { text, source, problems };
    if text.trim().is_empty() {
        return reader.error(0, "an empty argument", "expected a URL, such as tcp://:8080/192.0.2.1:80");
    }
    if let Some(at) = text.find(char::is_control) {
        return reader.error(at, "a control character", "write it as %0A, or whatever its code is");
    }
    let (start, end) = (text.len() - text.trim_start().len(), text.trim_end().len());
    let (scheme, start) = reader.scheme(start, end)?;
    if let Some(at) = text[start..end].find('#') {
        return reader.error(start + at, "a # begins what is no part of the address", "write %23 for a #");
    }
    let host_end = text[start..end].find(['/', '?']).map_or(end, |at| start + at);
    let path_end = text[host_end..end].find('?').map_or(end, |at| host_end + at);
    let (user, host) = match text[start..host_end].rfind('@') {
        Some(at) => (Some(reader.user(start, start + at)?), start + at + 1),
        None => (None, start),
    };
    Some(Url {
        scheme,
        user,
        host: reader.piece(host, host_end),
        path: reader.piece(host_end, path_end),
        query: reader.query((path_end + 1).min(end), end)?,
    })
}

impl Reader<'_, '_> {
    fn place(&self, offset: usize) -> Place {
        Place::new(self.source, 1, self.text[..offset].chars().count() + 1)
    }

    fn piece(&self, start: usize, end: usize) -> Piece {
        Piece::new(self.place(start), &self.text[start..end])
    }

    fn error<T>(&self, offset: usize, message: &str, help: &str) -> Option<T> {
        self.problems.report(Severity::Error, self.place(offset), "", message.to_owned(), help);
        None
    }

    /// The scheme, and where what is behind it begins.
    fn scheme(&self, start: usize, end: usize) -> Option<(Piece, usize)> {
        let text = &self.text[start..end];
        let Some(length) = text.find("://").filter(|_| !text.starts_with(':')) else {
            return Some((Piece::new(self.place(start), AUTO), start));
        };
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if let Some(at) = text[..length].find(|c| !known(c)) {
            let help = "expected HANDLER+LISTENER://ADDRESS or CONNECTOR+DIALER://ADDRESS";
            return self.error(start + at, "what stands before :// is no scheme", help);
        }
        let scheme = Piece::new(self.place(start), text[..length].to_ascii_lowercase());
        Some((scheme, start + length + 3))
    }

    fn user(&self, start: usize, end: usize) -> Option<(Piece, Option<Piece>)> {
        let colon = self.text[start..end].find(':').map(|at| start + at);
        let user = self.unescaped(start, colon.unwrap_or(end), false)?;
        let password = match colon {
            Some(colon) => Some(self.unescaped(colon + 1, end, false)?),
            None => None,
        };
        Some((user, password))
    }

    fn query(&self, start: usize, end: usize) -> Option<Vec<(Piece, Piece)>> {
        if let Some(at) = self.text[start..end].find(';') {
            return self.error(start + at, "a ; in the query", "keys are divided by &; write %3B for a ;");
        }
        let (mut pairs, mut next) = (Vec::<(Piece, Piece)>::new(), start);
        for pair in self.text[start..end].split('&') {
            let (begin, stop) = (next, next + pair.len());
            next = stop + 1;
            if pair.is_empty() {
                continue;
            }
            let equals = pair.find('=').map_or(stop, |at| begin + at);
            let key = self.unescaped(begin, equals, true)?;
            let value = self.unescaped((equals + 1).min(stop), stop, true)?;
            if pairs.iter().any(|(known, _)| known.text.eq_ignore_ascii_case(&key.text)) {
                let message = format!("key {:?} stands here twice", key.text);
                let help = "keep one of the two; keys that differ in case only are the same";
                return self.error(begin, &message, help);
            }
            pairs.push((key, value));
        }
        Some(pairs)
    }

    /// A part with its `%` escapes undone; in a query a `+` is a blank.
    fn unescaped(&self, start: usize, end: usize, plus: bool) -> Option<Piece> {
        match unescape(&self.text[start..end], plus) {
            Ok(text) => Some(Piece::new(self.place(start), text)),
            Err(at) => {
                let help =
                    "expected % and two hexadecimal digits, which together are UTF-8; a % itself is %25";
                self.error(start + at, "a malformed escape", help)
            }
        }
    }
}

/// Undoes `%` escapes; `Err`: where one is malformed, or where they begin not to be UTF-8.
pub(super) fn unescape(text: &str, plus: bool) -> Result<String, usize> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        match first {
            b'%' => {
                let digit = |i: usize| behind.get(i).and_then(|b| char::from(*b).to_digit(16));
                let code = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
                bytes.push(code.ok_or(text.len() - behind.len() - 1)?);
                rest = &behind[2..];
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| text.find('%').unwrap_or(0))
}
