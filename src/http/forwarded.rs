//! `X-Forwarded-For`, `-Proto` and `-Host`: read from listed proxies only, added by option.

use crate::addr::Networks;
use crate::http::text_of;
use crate::route::HttpParts;
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

    /// The fields of one request; none unless the option is set.
    pub(crate) fn fields(
        &self,
        peer: SocketAddr,
        secure: bool,
        host: Option<&str>,
        parts: &dyn HttpParts,
    ) -> Vec<(&'static str, String)> {
        if !self.add {
            return Vec::new();
        }
        let trusted = self.trusted.contains(peer.ip());
        let came = |name| text_of(parts, name).filter(|text| trusted && !text.trim().is_empty());
        let before = came(FOR).map(|list| list + ", ").unwrap_or_default();
        let proto = || if secure { "https" } else { "http" }.to_owned();
        let mut fields = vec![
            (FOR, format!("{before}{}", peer.ip().to_canonical())),
            (PROTO, came(PROTO).unwrap_or_else(proto)),
        ];
        fields.extend(came(HOST).or_else(|| host.map(str::to_owned)).map(|host| (HOST, host)));
        fields
    }
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
            fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
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
            assert_eq!(fields[0].1, "10.0.0.1");
        }
        let proxys =
            ["X-Forwarded-For: 1.1.1.1, 10.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: b"];
        assert_eq!(texts(&["10.0.0.1"], false), proxys);
        assert!(Forwarded::default().fields(peer, false, Some("a"), &head).is_empty());
    }
}
