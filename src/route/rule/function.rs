//! The functions that a rule can ask of a request, with their arguments prepared.

use super::{HostPattern, Known, Subject};
use crate::addr::Network;
use crate::route::HttpParts;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::cmp::Ordering;

/// One function call of a rule.
#[derive(Debug)]
pub(super) enum Function {
    Host(HostPattern),
    HostRegexp(Regex),
    /// In upper case; methods themselves are compared with case (RFC 9110, section 9.1).
    Method(Box<str>),
    Path(Box<[u8]>),
    PathPrefix(Box<[u8]>),
    PathRegexp(Regex),
    Query(Box<str>, Want),
    Header(Box<str>, Want),
    /// Address and number of leading bits that count.
    ClientIp(Network),
    /// In lower case.
    Proto(Box<str>),
    /// The beginning of the network's name.
    Network(Box<str>),
}

/// What is wanted of a query parameter or header field; one value of several is enough.
#[derive(Debug)]
pub(super) enum Want {
    Present,
    Equal(Box<[u8]>),
    Like(Regex),
    /// The comparison and its right side. A value that is no number satisfies none, not even `ne`.
    Number(fn(Ordering) -> bool, f64),
}

impl Function {
    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        let request = subject.request;
        match self {
            Self::Host(pattern) => pattern.matches(&request.hostname),
            Self::HostRegexp(regex) => regex.is_match(request.hostname.as_str().as_bytes()),
            Self::Method(method) => request.http.is_some_and(|http| http.method() == &**method),
            Self::Path(path) => subject.path().is_some_and(|p| p == &**path),
            Self::PathPrefix(prefix) => subject.path().is_some_and(|p| p.starts_with(prefix)),
            Self::PathRegexp(regex) => subject.path().is_some_and(|p| regex.is_match(p)),
            Self::Query(key, want) => {
                let query = request.http.and_then(|http| http.query()).unwrap_or_default();
                parameters(query).any(|(k, value)| *k == *key.as_bytes() && want.accepts(&value))
            }
            Self::Header(name, want) => request.http.is_some_and(|http| header(http, name, want)),
            Self::ClientIp(network) => network.contains(request.client.ip()),
            Self::Proto(protocol) => request.protocol.as_str() == &**protocol,
            Self::Network(prefix) => request.protocol.network().starts_with(&**prefix),
        }
    }
}

impl Function {
    /// Whether it can be true for anybody.
    pub(super) fn can_match(&self, known: Known) -> bool {
        match self {
            Self::Host(_) => known.host,
            Self::Proto(_) => known.protocol,
            Self::Method(_)
            | Self::Path(_)
            | Self::PathPrefix(_)
            | Self::PathRegexp(_)
            | Self::Query(..)
            | Self::Header(..) => known.http,
            // The host that nobody knows is an empty one, and an expression may match that.
            Self::HostRegexp(_) | Self::ClientIp(_) | Self::Network(_) => true,
        }
    }
}

/// The first field is looked at before the rest, which takes an allocation to list.
fn header(http: &dyn HttpParts, name: &str, want: &Want) -> bool {
    http.field(name)
        .is_some_and(|first| want.accepts(first) || http.all_fields(name).any(|v| want.accepts(v)))
}

impl Want {
    pub(super) fn operator(name: &str) -> Option<fn(Ordering) -> bool> {
        Some(match name {
            "gt" => Ordering::is_gt,
            "ge" => Ordering::is_ge,
            "lt" => Ordering::is_lt,
            "le" => Ordering::is_le,
            "eq" => Ordering::is_eq,
            "ne" => Ordering::is_ne,
            _ => return None,
        })
    }

    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Equal(wanted) => value == &**wanted,
            Self::Like(regex) => regex.is_match(value),
            Self::Number(accepts, limit) => {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<f64>().ok());
                number.and_then(|n| n.partial_cmp(limit)).is_some_and(accepts)
            }
        }
    }
}

/// The parameters of a query, without escapes. Like Go's reader: a pair with a semicolon or a broken escape is left out.
fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((form_decoded(key.as_bytes())?, form_decoded(value.as_bytes())?))
    })
}

/// `%XX` to bytes; text with a broken escape stays as it is.
pub(super) fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    decoded(text, false).unwrap_or(Cow::Borrowed(text))
}

fn form_decoded(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    decoded(text, true)
}

fn decoded(text: &[u8], plus_is_space: bool) -> Option<Cow<'_, [u8]>> {
    let special = |b: &u8| *b == b'%' || (plus_is_space && *b == b'+');
    if !text.iter().any(special) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&b) = bytes.next() {
        out.push(match b {
            b'%' => hex_digit(*bytes.next()?)? << 4 | hex_digit(*bytes.next()?)?,
            b'+' if plus_is_space => b' ',
            b => b,
        });
    }
    Some(Cow::Owned(out))
}

fn hex_digit(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}
