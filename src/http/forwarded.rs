//! `X-Forwarded-For`, `-Proto` and `-Host`: read from listed proxies only, added by option.

use super::rewrite::OwnField;
use crate::addr::Networks;
use crate::http::text_of;
use crate::route::HttpParts;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";

/// What is told and believed of where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// `http.forwarded`: add the fields to requests.
    pub add: bool,
    /// `http.trustedProxies`: whose own fields are believed. From anybody else they say nothing.
    pub trusted: Networks,
}

impl Forwarded {
    /// Whoever made the request: behind trusted proxies the last address of `X-Forwarded-For` that is none of theirs, with port 0.
    pub(crate) fn client(&self, peer: SocketAddr, parts: &dyn HttpParts) -> SocketAddr {
        if !self.trusted.contains(peer.ip()) {
            return peer;
        }
        let list = text_of(parts, FOR).unwrap_or_default();
        let mut client = peer;
        for entry in list.rsplit(',') {
            // What stands before an entry that is no address came through somebody who is not known.
            let Some(ip) = address(entry.trim()) else { break };
            client = SocketAddr::new(ip, 0);
            if !self.trusted.contains(ip) {
                break;
            }
        }
        client
    }

    /// Whether a trusted proxy says that its visitor came over TLS.
    pub(crate) fn is_secure(&self, peer: SocketAddr, parts: &dyn HttpParts) -> bool {
        // Proxies behind one another may make a list of it, the visitor's own first.
        let first = |proto: &[u8]| {
            proto.split(|b| *b == b',').next().is_some_and(|p| p.trim_ascii().eq_ignore_ascii_case(b"https"))
        };
        self.trusted.contains(peer.ip()) && parts.field(PROTO).is_some_and(first)
    }

    /// The fields of one request, and those that are not to pass; none unless the option is set.
    pub(crate) fn fields(
        &self,
        peer: SocketAddr,
        secure: bool,
        host: Option<&str>,
        parts: &dyn HttpParts,
    ) -> Vec<OwnField> {
        if !self.add {
            return Vec::new();
        }
        let trusted = self.trusted.contains(peer.ip());
        let came = |name| text_of(parts, name).filter(|text| trusted && !text.trim().is_empty());
        let before = came(FOR).map(|list| list + ", ").unwrap_or_default();
        let proto = || if secure { "https" } else { "http" }.to_owned();
        let own = [
            (FOR, Some(format!("{before}{}", peer.ip().to_canonical()))),
            (PROTO, Some(came(PROTO).unwrap_or_else(proto))),
            (HOST, came(HOST).or_else(|| host.map(str::to_owned))),
        ];
        let own = own.map(|(name, value)| (Cow::Borrowed(name), value));
        // A name with `_` is to many servers the same as one with `-`, and no proxy writes it so.
        let strangers = |name: &str| is_of_proxies(name) && (!trusted || name.contains('_'));
        let gone = parts.names().filter(|name| strangers(name)).map(|name| (name.to_owned().into(), None));
        gone.filter(|(name, _): &OwnField| !own.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)))
            .chain(own.clone())
            .collect()
    }
}

/// Whether a field is one that proxies tell servers by where a request comes from.
fn is_of_proxies(name: &str) -> bool {
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    let begins =
        |known: &str| name.len() >= known.len() && name.bytes().zip(known.bytes()).all(|(a, b)| same(a, b));
    let is = |known: &str| name.len() == known.len() && begins(known);
    is("forwarded") || is("x-real-ip") || begins("x-forwarded-")
}

/// `IP`, `IP:PORT` or `[IP]:PORT`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::request;

    fn forwarded(trusted: &[&str]) -> Forwarded {
        Forwarded { add: true, trusted: trusted.iter().map(|n| n.parse().unwrap()).collect() }
    }

    fn client(trusted: &[&str], peer: &str, list: &str) -> String {
        let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{list}\r\n"));
        forwarded(trusted).client(format!("{peer}:5").parse().unwrap(), &head).to_string()
    }

    #[test]
    fn only_listed_proxies_are_believed() {
        let field = "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n";
        assert_eq!(client(&[], "10.0.0.1", field), "10.0.0.1:5");
        assert_eq!(client(&["10.0.0.2"], "10.0.0.1", field), "10.0.0.1:5");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", field), "192.0.2.2:0");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", ""), "10.0.0.1:5");
    }

    #[test]
    fn a_visitor_cannot_hide_behind_what_it_writes_itself() {
        let field = "X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 192.0.2.9:1234, 10.0.0.7\r\n";
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", field), "192.0.2.9:0");
        let odd = "X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.7\r\n";
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", odd), "10.0.0.7:0");
        let all = "X-Forwarded-For: [2001:db8::1]:80, ::ffff:10.0.0.7\r\n";
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", all), "[2001:db8::1]:0");
    }

    #[test]
    fn fields_take_the_place_of_a_strangers_and_add_to_a_proxys() {
        let head = request(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n",
        );
        let peer = "10.0.0.1:5".parse().unwrap();
        let texts = |trusted: &[&str], secure| -> Vec<String> {
            let fields = forwarded(trusted).fields(peer, secure, Some("a"), &head);
            fields.into_iter().map(|(name, value)| format!("{name}: {}", value.unwrap_or_default())).collect()
        };
        let strangers = ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a"];
        assert_eq!(texts(&[], false), strangers);
        assert_eq!(texts(&[], true)[1], "X-Forwarded-Proto: https");
        for (proto, secure) in [("https", true), ("HTTPS , http", true), ("http, https", false), ("", false)]
        {
            let head = request(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: {proto}\r\nX-Forwarded-For:\r\n\r\n"
            ));
            assert_eq!(forwarded(&["10.0.0.1"]).is_secure(peer, &head), secure, "{proto}");
            assert!(!forwarded(&[]).is_secure(peer, &head));
            let fields = forwarded(&["10.0.0.1"]).fields(peer, false, None, &head);
            assert_eq!(fields[0].1.as_deref(), Some("10.0.0.1"));
        }
        let proxys =
            ["X-Forwarded-For: 1.1.1.1, 10.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: b"];
        assert_eq!(texts(&["10.0.0.1"], false), proxys);
        assert!(Forwarded::default().fields(peer, false, Some("a"), &head).is_empty());
    }
    #[test]
    fn other_fields_of_the_kind_pass_from_proxies_only() {
        let head = request(
            "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nx_forwarded-for: 1.1.1.1\r\n\
             X-Forwarded-Port: 1\r\nX-Forwarded: 1\r\nX-Other: 1\r\n\r\n",
        );
        let gone = |trusted: &[&str]| -> Vec<String> {
            let fields = forwarded(trusted).fields("10.0.0.1:5".parse().unwrap(), false, None, &head);
            fields.into_iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.into()).collect()
        };
        let host = "X-Forwarded-Host";
        assert_eq!(gone(&[]), ["Forwarded", "X-Real-IP", "x_forwarded-for", "X-Forwarded-Port", host]);
        assert_eq!(gone(&["10.0.0.1"]), ["x_forwarded-for", host]);
    }
}
