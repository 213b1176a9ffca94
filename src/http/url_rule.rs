//! `rewriteURL` of a node: a pattern that is looked for in a path, and what is put in place of what it finds.
//!
//! The pattern sees the path without escapes, as GOST's does. What it does not cover, and what its groups find, is sent on byte
//! for byte: an escape that was undone and made again could be another path.

use regex::Regex;
use std::borrow::Cow;
use std::ops::Range;

/// `rewriteURL[]`.
#[derive(Debug, Clone)]
pub struct UrlRule {
    pattern: Regex,
    replacement: Vec<Part>,
}

/// Why a text is no `replacement`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReplacement {
    /// It names a group that the pattern has not.
    #[error("{reference:?} is what a group {name:?} found, and match has no such group")]
    Group {
        /// As written.
        reference: String,
        /// The group's name.
        name: String,
    },
    /// Requests go to the node, whatever is written here.
    #[error("{0:?} is a URL, not a path")]
    Url(String),
    /// A `%` without two hexadecimal digits.
    #[error("{0:?} has a % that begins no escape")]
    Escape(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// As it is sent.
    Text(String),
    Group(usize),
}

impl UrlRule {
    /// `replacement` takes the place of all that `pattern` finds: `$1` and `${1}` are what its first group found, `$$` is a dollar.
    pub fn new(pattern: Regex, replacement: &str) -> Result<Self, BadReplacement> {
        if is_url(replacement) {
            return Err(BadReplacement::Url(replacement.to_owned()));
        }
        let mut parts = Vec::new();
        for piece in pieces(replacement) {
            parts.push(match piece {
                Piece::Text(text) => Part::Text(escaped(text)?),
                Piece::Group { reference, name } => {
                    let group = group(&pattern, name).ok_or_else(|| BadReplacement::Group {
                        reference: reference.to_owned(),
                        name: name.to_owned(),
                    })?;
                    Part::Group(group)
                }
            });
        }
        Ok(Self { pattern, replacement: parts })
    }

    /// The path with everything replaced that the pattern finds, and perhaps a query behind it; `None`: it finds nothing.
    pub(crate) fn rewrite(&self, path: &str) -> Option<String> {
        let subject = Subject::new(path);
        let mut found = self.pattern.captures_iter(&subject.text).peekable();
        found.peek()?;
        let (mut target, mut end) = (Target::default(), 0);
        for captures in found {
            let raw = |group| captures.get(group).map(|found| subject.raw(found.range()));
            let Some(whole) = raw(0) else { continue };
            target.push_raw(&path[end..whole.start]);
            for part in &self.replacement {
                match part {
                    Part::Text(text) => target.push_text(text),
                    Part::Group(group) => {
                        if let Some(found) = raw(*group) {
                            target.push_raw(&path[found]);
                        }
                    }
                }
            }
            end = whole.end;
        }
        target.push_raw(&path[end..]);
        Some(target.text)
    }
}

/// Whether it begins as `http://` does.
fn is_url(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn group(pattern: &Regex, name: &str) -> Option<usize> {
    let number = name.parse().ok().filter(|number| *number < pattern.captures_len());
    number.or_else(|| pattern.capture_names().position(|known| known == Some(name)))
}

/// A path as the pattern sees it.
struct Subject<'p> {
    text: Cow<'p, str>,
    /// Where each byte of it begins in the path, and the end; nothing where they are the same.
    places: Vec<usize>,
}

impl<'p> Subject<'p> {
    /// A path with a `%` that begins no escape, or with escapes that are no UTF-8, is taken as it is.
    fn new(path: &'p str) -> Self {
        Self::unescaped(path.as_bytes())
            .unwrap_or_else(|| Self { text: Cow::Borrowed(path), places: Vec::new() })
    }

    fn unescaped(path: &[u8]) -> Option<Self> {
        if !path.contains(&b'%') {
            return None;
        }
        let (mut text, mut places, mut at) = (Vec::with_capacity(path.len()), Vec::new(), 0);
        while let Some(&byte) = path.get(at) {
            places.push(at);
            if byte == b'%' {
                text.push(escape(path.get(at..)?)?);
                at += 3;
            } else {
                text.push(byte);
                at += 1;
            }
        }
        places.push(at);
        Some(Self { text: Cow::Owned(String::from_utf8(text).ok()?), places })
    }

    /// Where that part of the text stands in the path.
    fn raw(&self, part: Range<usize>) -> Range<usize> {
        let place = |at: usize| self.places.get(at).copied().unwrap_or(at);
        place(part.start)..place(part.end)
    }
}

/// The byte that an escape at the beginning of a text stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let digit =
        |at: usize| char::from(*text.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(1)? << 4 | digit(2)?)
}

/// What is sent, while it is made.
#[derive(Default)]
struct Target {
    text: String,
    /// Whether the replacement has begun a query.
    in_query: bool,
}

impl Target {
    fn push_text(&mut self, text: &str) {
        self.in_query |= text.contains('?');
        self.text.push_str(text);
    }

    /// A part of the path. In a query it must not become more than a value.
    fn push_raw(&mut self, raw: &str) {
        if !self.in_query {
            return self.text.push_str(raw);
        }
        for c in raw.chars() {
            match c {
                '&' => self.text.push_str("%26"),
                '+' => self.text.push_str("%2B"),
                ';' => self.text.push_str("%3B"),
                c => self.text.push(c),
            }
        }
    }
}

/// A text as it can stand in a path or query: other characters (RFC 3986, section 3.3) are percent-encoded.
fn escaped(text: &str) -> Result<String, BadReplacement> {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if c == '%' && escape(&text.as_bytes()[at..]).is_none() {
            return Err(BadReplacement::Escape(text.to_owned()));
        }
        if c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c) {
            out.push(c);
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        }
    }
    Ok(out)
}

/// A part of a replacement, as written.
enum Piece<'t> {
    Text(&'t str),
    Group { reference: &'t str, name: &'t str },
}

/// Takes a replacement apart as GOST does: a name is as long as it can be, and a `$` that begins none is a dollar.
fn pieces(mut text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let (piece, len) = match text.find('$') {
            Some(0) => reference(text),
            dollar => (Piece::Text(&text[..dollar.unwrap_or(text.len())]), dollar.unwrap_or(text.len())),
        };
        pieces.push(piece);
        text = &text[len..];
    }
    pieces
}

/// What stands behind a dollar, and how long all of it is.
fn reference(text: &str) -> (Piece<'_>, usize) {
    let behind = &text[1..];
    if behind.starts_with('$') {
        return (Piece::Text(behind.get(..1).unwrap_or_default()), 2);
    }
    let (name, len) = match behind.strip_prefix('{') {
        Some(braced) => {
            let name = name(braced);
            if !braced[name.len()..].starts_with('}') {
                return (Piece::Text(&text[..1]), 1);
            }
            (name, name.len() + 3)
        }
        None => (name(behind), name(behind).len() + 1),
    };
    match name {
        "" => (Piece::Text(&text[..1]), 1),
        name => (Piece::Group { reference: &text[..len], name }, len),
    }
}

fn name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, replacement: &str) -> Result<UrlRule, BadReplacement> {
        UrlRule::new(Regex::new(pattern).unwrap(), replacement)
    }

    fn rewrite(pattern: &str, replacement: &str, path: &str) -> Option<String> {
        rule(pattern, replacement).unwrap().rewrite(path)
    }

    #[test]
    fn groups() {
        for (replacement, expected) in [
            ("/$1", "/b/c"),
            ("/${1}_x", "/b/c_x"),
            ("/$rest.x", "/b/c.x"),
            ("/${rest}x", "/b/cx"),
            ("/$0", "//a/b/c"),
            ("/$$1$", "/$1$"),
            ("/${1", "/$%7B1"),
            ("/$-", "/$-"),
            ("/$2", "/"),
        ] {
            assert_eq!(
                rewrite("^/a/(?P<rest>.*)$|^/(x)$", replacement, "/a/b/c").as_deref(),
                Some(expected),
                "{replacement}"
            );
        }
        for (replacement, name) in [("/$1_x", "1_x"), ("/$3", "3"), ("/${Rest}", "Rest"), ("/$11", "11")] {
            let error = rule("^/(?P<rest>.*)$|^/(x)$", replacement).unwrap_err();
            assert_eq!(
                error,
                BadReplacement::Group { reference: replacement[1..].to_owned(), name: name.to_owned() }
            );
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for url in ["http://a/b", "HTTPS://a/$1", "ws://a"] {
            assert_eq!(rule("^/(.*)", url).unwrap_err(), BadReplacement::Url(url.to_owned()));
        }
        for bad in ["/a%", "/%zz", "/%2"] {
            assert_eq!(rule("^/", bad).unwrap_err(), BadReplacement::Escape(bad.to_owned()));
        }
        assert!(rule("^/(.*)", "/%$1").is_err() && rule("^/", "/see/http://a").is_ok());
    }

    /// The pattern finds what is meant, however it is written; what it leaves alone stays as it is.
    #[test]
    fn escapes_are_seen_through_and_kept() {
        for (pattern, replacement, path, expected) in [
            ("^/api/", "/v1/", "/%61pi/x", Some("/v1/x")),
            ("^/api/", "/v1/", "/api/a%2Fb%2f%41|[x]", Some("/v1/a%2Fb%2f%41|[x]")),
            ("^/api/(.*)$", "/v1/$1/", "/api/%2e%2E/b\"c", Some("/v1/%2e%2E/b\"c/")),
            ("^/api/([^/]*)$", "/v1/$1", "/api/a%2Fb", None),
            ("^/ü(.*) ", "/u$1-", "/%C3%BCb%20c", Some("/ub-c")),
            ("ü", "u", "/%c3%bc/ü", Some("/u/u")),
            ("", "-", "/ü", Some("-/-ü-")),
            ("b", "c", "/b%FF%62", Some("/c%FF%62")),
            ("b", "c", "/a%zzb%62", Some("/a%zzc%62")),
            ("b", "c", "/%", None),
            ("", "-", "/%41", Some("-/-%41-")),
        ] {
            assert_eq!(rewrite(pattern, replacement, path).as_deref(), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn no_path_adds_to_a_query() {
        assert_eq!(
            rewrite("^/u/(.*)$", "/u?id=$1", "/u/7&a=b+c;%26").as_deref(),
            Some("/u?id=7%26a=b%2Bc%3B%26")
        );
        assert_eq!(rewrite("^/u", "/u?a=b&c=d+", "/u").as_deref(), Some("/u?a=b&c=d+"));
    }
}
