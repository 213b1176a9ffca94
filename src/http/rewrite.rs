//! What a node's `http` asks to be changed in the requests that go to it and in its replies: whole fields and the target, never
//! the framing.

use super::url_rule::UrlRule;
use crate::addr::HostPort;
use crate::route::HttpParts;
use std::borrow::Cow;

/// `nodes[].http`, without `auth`.
#[derive(Debug, Clone, Default)]
pub struct Rewrite {
    /// `host`: the Host that the node is told.
    pub host: Option<HostText>,
    /// `requestHeader`: fields set in place of any of that name; `None`: taken out.
    pub request: Vec<(String, Option<String>)>,
    /// `responseHeader`: the same in replies.
    pub reply: Vec<(String, Option<String>)>,
    /// `rewriteURL`: the first whose pattern is found in the path counts.
    pub urls: Vec<UrlRule>,
}

/// A Host as it is sent, known to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostText(String);

impl HostText {
    /// `HOST` or `HOST:PORT`, kept as written.
    pub fn parse(text: &str) -> Option<Self> {
        let host = HostPort::parse(text, 80).ok().filter(|parsed| !parsed.host.is_empty());
        host.filter(|_| text.is_ascii()).map(|_| Self(text.to_owned()))
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Rewrite {
    /// Whether nothing is to be changed.
    fn is_empty(&self) -> bool {
        let Self { host, request, reply, urls } = self;
        host.is_none() && request.is_empty() && reply.is_empty() && urls.is_empty()
    }

    /// The target that is sent in place of the request's own; `None`: no rule finds anything.
    pub(crate) fn target(&self, parts: &dyn HttpParts) -> Option<String> {
        let path = parts.path();
        if !path.starts_with('/') {
            return None;
        }
        let mut target = self.urls.iter().find_map(|rule| rule.rewrite(path))?;
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        if let Some(query) = parts.query()
            && !target.contains('?')
        {
            target.push('?');
            target.push_str(query);
        }
        Some(target)
    }
}

/// All changes to one request and to the reply to it.
#[derive(Debug, Default)]
pub(crate) struct Changes<'r> {
    /// Fields of ours.
    pub(crate) fields: Vec<OwnField>,
    /// What the node's `http` asks for.
    pub(crate) rewrite: Option<&'r Rewrite>,
}

/// A field that stands in place of any of that name that came in; `None`: there is to be none.
pub(crate) type OwnField = (Cow<'static, str>, Option<String>);

/// A field that is set, or taken out.
pub(crate) type Edit<'a> = (&'a str, Option<Cow<'a, str>>);

impl Changes<'_> {
    /// Whether nothing is changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.rewrite.is_none_or(Rewrite::is_empty)
    }

    /// The request's target, where it is another one.
    pub(crate) fn target(&self, parts: &dyn HttpParts) -> Option<String> {
        self.rewrite?.target(parts)
    }

    /// The Host to send, where it is another one. What CONNECT asks for is no Host but an address.
    pub(crate) fn host(&self, parts: &dyn HttpParts) -> Option<&str> {
        self.rewrite?.host.as_ref().map(HostText::as_str).filter(|_| parts.method() != "CONNECT")
    }

    /// The request's fields, what the node's `http` says behind our own: it has the last word.
    pub(crate) fn request(&self) -> impl Iterator<Item = Edit<'_>> {
        let ours = self.fields.iter().map(|(name, value)| (&**name, value.as_deref().map(Cow::Borrowed)));
        let asked = self.rewrite.into_iter().flat_map(|rewrite| edits(&rewrite.request));
        let named = |name: &str| {
            self.rewrite.is_some_and(|r| r.request.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)))
        };
        ours.filter(move |(name, _)| !named(name)).chain(asked)
    }

    /// The reply's fields.
    pub(crate) fn reply(&self) -> impl Iterator<Item = Edit<'_>> {
        self.rewrite.into_iter().flat_map(|rewrite| edits(&rewrite.reply))
    }
}

fn edits(fields: &[(String, Option<String>)]) -> impl Iterator<Item = Edit<'_>> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_deref().map(Cow::Borrowed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::request;
    use regex::Regex;

    fn target(rules: &[(&str, &str)], asked: &str) -> Option<String> {
        let rule = |(pattern, replacement): &(&str, &str)| {
            UrlRule::new(Regex::new(pattern).unwrap(), replacement).unwrap()
        };
        let rewrite = Rewrite { urls: rules.iter().map(rule).collect(), ..Rewrite::default() };
        rewrite.target(&request(&format!("GET {asked} HTTP/1.1\r\nHost: a\r\n\r\n")))
    }

    #[test]
    fn the_first_pattern_that_is_found_counts() {
        let rules = [("^/api/v1/(.*)$", "/v1/$1"), ("^/api/", "/other/")];
        assert_eq!(target(&rules, "/api/v1/x?q=1").as_deref(), Some("/v1/x?q=1"));
        assert_eq!(target(&rules, "/api/v2/x").as_deref(), Some("/other/v2/x"));
        assert_eq!(target(&rules, "/else?q=/api/v1/x"), None);
    }

    #[test]
    fn a_query_in_the_replacement_takes_the_place_of_the_requests() {
        assert_eq!(target(&[("^/u/(\\d+)$", "/user?id=$1")], "/u/7?q=1").as_deref(), Some("/user?id=7"));
    }

    #[test]
    fn no_replacement_breaks_the_request_line() {
        assert_eq!(target(&[("^/a", "b c\r\n#é|")], "/a").as_deref(), Some("/b%20c%0D%0A%23%C3%A9%7C"));
        assert_eq!(target(&[("^.*$", "")], "/a?b").as_deref(), Some("/?b"));
    }

    #[test]
    fn an_absolute_target_is_seen_by_its_path() {
        assert_eq!(target(&[("^/a/", "/b/")], "http://a/a/c?d").as_deref(), Some("/b/c?d"));
        assert_eq!(target(&[("^", "/b")], "http://a").as_deref(), Some("/b/"));
    }

    #[test]
    fn hosts() {
        for good in ["example.com", "example.com:8080", "10.0.0.1", "[::1]:80"] {
            assert_eq!(HostText::parse(good).as_ref().map(HostText::as_str), Some(good));
        }
        for bad in ["", ":80", "a b", "a\r\nb", "é.example"] {
            assert_eq!(HostText::parse(bad), None, "{bad:?}");
        }
    }
}
