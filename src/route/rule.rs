//! The matcher language of `matcher.rule` (the wire specification, section 6.2): functions joined by `&&`, `||`, `!`.
//!
//! Parsed and checked once, when the configuration is read; matching never fails.

use super::Request;
use super::hosts::HostPattern;
use regex::Regex;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest text of one rule, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// Deepest nesting: the parser calls itself once per level.
const MAX_DEPTH: usize = 32;
/// Memory that one regular expression may compile to, in bytes.
const MAX_REGEX: usize = 1 << 20;

/// A compiled matcher expression; two are equal when their texts are.
#[derive(Clone)]
pub struct Rule {
    text: Arc<str>,
    expr: Arc<Expr>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.text)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Text that is no rule, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {offset} of the rule")]
pub struct ParseError {
    message: String,
    offset: usize,
}

#[derive(Debug)]
enum Expr {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Is(Test),
}

#[derive(Debug)]
enum Test {
    /// The host itself, or with `true` only what is below it.
    Host(crate::addr::Host, bool),
    HostRegexp(Regex),
    Method(String),
    Path(String),
    PathPrefix(String),
    PathRegexp(Regex),
    Query(String, Value),
    Header(String, Value),
    ClientIp(IpAddr, u8),
    Proto(String),
    Network(String),
}

/// What a header or query parameter must be.
#[derive(Debug)]
enum Value {
    Present,
    Equals(String),
    Regexp(Regex),
    Number(Compare, f64),
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

impl Value {
    fn matches(&self, value: &[u8]) -> bool {
        let text = || std::str::from_utf8(value).ok();
        match self {
            Self::Present => true,
            Self::Equals(wanted) => wanted.as_bytes() == value,
            Self::Regexp(regex) => text().is_some_and(|t| regex.is_match(t)),
            Self::Number(compare, number) => {
                let order =
                    text().and_then(|t| t.trim().parse::<f64>().ok()).and_then(|n| n.partial_cmp(number));
                order.is_some_and(|order| match compare {
                    Compare::Greater => order == Ordering::Greater,
                    Compare::GreaterOrEqual => order != Ordering::Less,
                    Compare::Less => order == Ordering::Less,
                    Compare::LessOrEqual => order != Ordering::Greater,
                    Compare::Equal => order == Ordering::Equal,
                    Compare::NotEqual => order != Ordering::Equal,
                })
            }
        }
    }
}

impl Rule {
    /// Parses and compiles.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > MAX_TEXT {
            return Err(parser.error(format!("rule longer than {MAX_TEXT} bytes")));
        }
        let expr = parser.or(0)?;
        if parser.peek().is_some() {
            return Err(parser.error("expected && or ||"));
        }
        Ok(Self { text: text.into(), expr: Arc::new(expr) })
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a request fits.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        self.expr.matches(request)
    }

    /// The only hosts that can match; `None` when any might.
    pub fn hosts(&self) -> Option<Vec<HostPattern>> {
        self.expr.hosts()
    }
}

impl Expr {
    fn matches(&self, request: &Request<'_>) -> bool {
        match self {
            Self::And(a, b) => a.matches(request) && b.matches(request),
            Self::Or(a, b) => a.matches(request) || b.matches(request),
            Self::Not(a) => !a.matches(request),
            Self::Is(test) => test.matches(request),
        }
    }

    fn hosts(&self) -> Option<Vec<HostPattern>> {
        match self {
            Self::Is(Test::Host(host, false)) => Some(vec![HostPattern::Exact(host.clone())]),
            Self::Is(Test::Host(host, true)) => Some(vec![HostPattern::Suffix(host.clone())]),
            Self::And(a, b) => a.hosts().or_else(|| b.hosts()),
            Self::Or(a, b) => Some([a.hosts()?, b.hosts()?].concat()),
            Self::Not(_) | Self::Is(_) => None,
        }
    }
}

impl Test {
    fn matches(&self, request: &Request<'_>) -> bool {
        let host = request.hostname.as_str();
        let http = request.http;
        match self {
            Self::Host(own, false) => own == &request.hostname && !host.is_empty(),
            Self::Host(parent, true) => {
                host.strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            Self::HostRegexp(regex) => regex.is_match(host),
            Self::Method(method) => http.is_some_and(|h| h.method().eq_ignore_ascii_case(method)),
            Self::Path(path) => http.is_some_and(|h| h.path() == path),
            Self::PathPrefix(prefix) => http.is_some_and(|h| h.path().starts_with(prefix)),
            Self::PathRegexp(regex) => http.is_some_and(|h| regex.is_match(h.path())),
            Self::Header(name, value) => http.is_some_and(|h| h.all_fields(name).any(|v| value.matches(v))),
            Self::Query(name, value) => http.and_then(|h| h.query()).is_some_and(|query| {
                let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                pairs
                    .map(|(k, v)| (percent_decode(k), percent_decode(v)))
                    .any(|(k, v)| k == name.as_bytes() && value.matches(&v))
            }),
            Self::ClientIp(net, bits) => in_network(request.client.ip().to_canonical(), *net, *bits),
            Self::Proto(proto) => request.protocol.as_str().eq_ignore_ascii_case(proto),
            Self::Network(prefix) => "tcp".starts_with(prefix.as_str()),
        }
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |b: u8| char::from(b).to_digit(16);
        let code = match tail {
            [a, b, ..] if *first == b'%' => {
                hex(*a).zip(hex(*b)).and_then(|(a, b)| u8::try_from(a * 16 + b).ok())
            }
            _ => None,
        };
        out.push(code.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    out
}

fn in_network(ip: IpAddr, net: IpAddr, bits: u8) -> bool {
    let same = |a: u128, b: u128, width: u8| bits == 0 || (a ^ b) >> (width - bits) == 0;
    match (ip, net) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { message: message.into(), offset: self.at }
    }

    fn peek(&mut self) -> Option<char> {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest.chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        self.peek();
        let found = self.text[self.at..].starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn or(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let mut terms = vec![self.and(depth)?];
        while self.eat("||") {
            terms.push(self.and(depth)?);
        }
        Ok(balanced(terms, Expr::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, ParseError> {
        let mut terms = vec![self.unary(depth)?];
        while self.eat("&&") {
            terms.push(self.unary(depth)?);
        }
        Ok(balanced(terms, Expr::And))
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, ParseError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH}")));
        }
        if self.eat("!") {
            return Ok(Expr::Not(Box::new(self.unary(depth + 1)?)));
        }
        if self.eat("(") {
            let inner = self.or(depth + 1)?;
            return if self.eat(")") { Ok(inner) } else { Err(self.error("expected )")) };
        }
        self.call()
    }

    fn call(&mut self) -> Result<Expr, ParseError> {
        self.peek();
        let start = self.at;
        let rest = &self.text[start..];
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = &rest[..len];
        if name.is_empty() {
            return Err(self.error("expected a function such as Host(`example.com`)"));
        }
        self.at += len;
        if !self.eat("(") {
            return Err(self.error("expected ("));
        }
        let mut args = Vec::new();
        while args.is_empty() || self.eat(",") {
            args.push(self.argument()?);
        }
        if !self.eat(")") {
            return Err(self.error("expected , or )"));
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        test(name, &args).map(Expr::Is).map_err(|message| ParseError { message, offset: start })
    }

    fn argument(&mut self) -> Result<String, ParseError> {
        let quote = self.peek();
        let rest = &self.text[self.at..];
        match quote {
            Some(q @ ('`' | '"')) => {
                let len = rest[1..].find(q).ok_or_else(|| self.error("string without end"))?;
                self.at += len + 2;
                Ok(rest[1..=len].to_owned())
            }
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let len =
                    rest.find(|c: char| !(c.is_ascii_digit() || "-+.eE".contains(c))).unwrap_or(rest.len());
                self.at += len;
                Ok(rest[..len].to_owned())
            }
            _ => Err(self.error("expected a string in ` or \"")),
        }
    }
}

/// Joins terms so that a long list is not a deep tree: matching and dropping call themselves once per level.
fn balanced(mut terms: Vec<Expr>, join: fn(Box<Expr>, Box<Expr>) -> Expr) -> Expr {
    while terms.len() > 1 {
        let mut rest = terms.into_iter();
        let mut joined = Vec::new();
        while let Some(first) = rest.next() {
            joined.push(match rest.next() {
                Some(second) => join(Box::new(first), Box::new(second)),
                None => first,
            });
        }
        terms = joined;
    }
    terms.pop().unwrap_or(Expr::Is(Test::Proto(String::new())))
}

const FUNCTIONS: [&str; 13] = [
    "Host",
    "HostRegexp",
    "Method",
    "Path",
    "PathPrefix",
    "PathRegexp",
    "Query",
    "QueryRegexp",
    "Header",
    "HeaderRegexp",
    "ClientIP",
    "Proto",
    "Network",
];

fn test(name: &str, args: &[&str]) -> Result<Test, String> {
    let capitalised = |f: &str| f[..1].to_owned() + &f[1..].to_lowercase();
    let is = |f: &&&str| {
        [(**f).to_owned(), f.to_lowercase(), f.to_uppercase(), capitalised(f)].iter().any(|s| s == name)
    };
    let Some(function) = FUNCTIONS.iter().find(is) else {
        return Err(match name.to_lowercase().as_str() {
            "bodyregexp" | "bodyjson" | "bypass" | "admission" => {
                format!("function {name} is not supported yet")
            }
            _ => format!("unknown function {name}; known are {}", FUNCTIONS.join(", ")),
        });
    };
    Ok(match (*function, args) {
        ("Host", [host]) => host_test(host)?,
        ("HostRegexp", [re]) => Test::HostRegexp(regex(re)?),
        ("Method", [method]) => Test::Method((*method).to_owned()),
        ("Path", [path]) => Test::Path((*path).to_owned()),
        ("PathPrefix", [path]) => Test::PathPrefix((*path).to_owned()),
        ("PathRegexp", [re]) => Test::PathRegexp(regex(re)?),
        ("Query", [key, rest @ ..]) => Test::Query((*key).to_owned(), value(rest)?),
        ("QueryRegexp", [key, re]) => Test::Query((*key).to_owned(), Value::Regexp(regex(re)?)),
        ("Header", [key, rest @ ..]) => Test::Header((*key).to_owned(), value(rest)?),
        ("HeaderRegexp", [key, re]) => Test::Header((*key).to_owned(), Value::Regexp(regex(re)?)),
        ("ClientIP", [net]) => network(net)?,
        ("Proto", [proto]) => Test::Proto((*proto).to_owned()),
        ("Network", [prefix]) => Test::Network((*prefix).to_owned()),
        _ => return Err(format!("{function} does not take {} arguments", args.len())),
    })
}

fn host_test(text: &str) -> Result<Test, String> {
    let below = text.strip_prefix('*').unwrap_or(text).strip_prefix('.');
    let host = crate::addr::Host::parse(below.unwrap_or(text)).map_err(|e| format!("host {text:?}: {e}"))?;
    Ok(Test::Host(host, below.is_some()))
}

fn regex(text: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(text)
        .size_limit(MAX_REGEX)
        .build()
        .map_err(|e| format!("regular expression {text:?}: {e}"))
}

fn value(args: &[&str]) -> Result<Value, String> {
    let compare = |word: &str| {
        Some(match word {
            "gt" => Compare::Greater,
            "ge" => Compare::GreaterOrEqual,
            "lt" => Compare::Less,
            "le" => Compare::LessOrEqual,
            "eq" => Compare::Equal,
            "ne" => Compare::NotEqual,
            _ => return None,
        })
    };
    match args {
        [] => Ok(Value::Present),
        [text] => Ok(Value::Equals((*text).to_owned())),
        [word, number] => {
            let compare =
                compare(word).ok_or_else(|| format!("expected gt, ge, lt, le, eq or ne, not {word:?}"))?;
            let number = number.parse().map_err(|_| format!("expected a number, not {number:?}"))?;
            Ok(Value::Number(compare, number))
        }
        _ => Err(format!("{} arguments are too many", args.len() + 1)),
    }
}

fn network(text: &str) -> Result<Test, String> {
    let wrong = || format!("expected an IP address or CIDR, not {text:?}");
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(width), |b| b.parse().map_err(|_| wrong()))?;
    if bits > width { Err(wrong()) } else { Ok(Test::ClientIp(ip, bits)) }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;
    use crate::addr::Host;
    use crate::wire::http::{Limits, RequestHead};
    use proptest::prelude::*;

    fn matches(rule: &str, head: &str) -> bool {
        let head = RequestHead::take(&mut head.into(), &Limits::default()).unwrap().unwrap();
        let request = Request {
            hostname: head.authority().map_or_else(Host::empty, |a| a.host.clone()),
            protocol: Protocol::Http1,
            client: ([10, 1, 2, 3], 9).into(),
            service: "s",
            http: Some(&head),
        };
        Rule::parse(rule).unwrap().matches(&request)
    }

    #[test]
    fn functions() {
        let head =
            "GET /a/b?x=1&y=a%20b HTTP/1.1\r\nHost: Foo.Example.com:80\r\nX-Level: 7\r\nCookie: v=2\r\n\r\n";
        for (rule, expected) in [
            ("Host(`foo.example.com`)", true),
            ("host(\"FOO.example.com\")", true),
            ("HOST(`*.example.com`)", true),
            ("Host(`.foo.example.com`)", false),
            ("Host(`.oo.example.com`)", false),
            ("HostRegexp(`^f.+\\.com$`)", true),
            ("Method(`get`) && !Method(`POST`)", true),
            ("Path(`/a`)", false),
            ("Pathprefix(`/a`)", true),
            ("PathRegexp(`/b$`)", true),
            ("Query(`x`) && Query(`x`, `1`) && Query(`y`, `a b`)", true),
            ("Query(`x`, `gt`, 0.5)", true),
            ("QueryRegexp(`y`, `^b`)", false),
            ("Header(`x-level`, `lt`, `7`) || Header(`x-level`, `ge`, 7)", true),
            ("HeaderRegexp(`cookie`, `v=[12]`)", true),
            ("Header(`absent`)", false),
            ("ClientIP(`10.1.0.0/16`)", true),
            ("ClientIP(`10.1.2.4`)", false),
            ("ClientIP(`::/0`)", false),
            ("Proto(`http`) && Network(`tcp`)", true),
            ("Host(`x`) && Host(`y`) || (Method(`GET`) && Path(`/a/b`))", true),
        ] {
            assert_eq!(matches(rule, head), expected, "{rule}");
        }
    }

    #[test]
    fn errors_say_where() {
        for (rule, offset) in [
            ("", 0),
            ("Host(`a`) Host(`b`)", 10),
            ("Host(`a`", 8),
            ("Hots(`a`)", 0),
            ("Path(`/`) && Bypass(`x`)", 13),
            ("HostRegexp(`(`)", 0),
            ("Header(`a`, `xx`, 1)", 0),
            ("Host(`a b`)", 0),
            ("ClientIP(`1.2.3.4/33`)", 0),
            ("Host(`a)", 5),
        ] {
            assert_eq!(Rule::parse(rule).unwrap_err().offset, offset, "{rule}");
        }
        assert!(Rule::parse(&"(".repeat(10_000)).is_err());
        assert!(Rule::parse(&"!".repeat(10_000)).is_err());
    }

    #[test]
    fn hosts_that_can_match() {
        let hosts = |rule: &str| Rule::parse(rule).unwrap().hosts().map(|h| h.len());
        assert_eq!(hosts("Host(`a`) && Path(`/`)"), Some(1));
        assert_eq!(hosts("Path(`/`) && (Host(`a`) || Host(`*.b`))"), Some(2));
        assert_eq!(hosts("Host(`a`) || Path(`/`)"), None);
        assert_eq!(hosts("!Host(`a`)"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[Hhost(`\"a.*)!&|,0-9 Pé]{0,60}") {
            drop(Rule::parse(&text));
        }
    }
}
