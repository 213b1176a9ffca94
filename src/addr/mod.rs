//! Host names and addresses: parsed once, written and compared in one way.
//!
//! A [`Host`] is lower case, without port, brackets or trailing dot, so equality is plain text equality everywhere.
//! Resolving names is `net::dial`'s work; which text forms a configuration key takes is `config`'s.

mod network;

pub use network::{InvalidNetwork, Network, Networks};

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// The longest host text that is taken: a DNS name has at most 253 characters, and a relay `Addr` carries at most 255 bytes.
pub const MAX_HOST_LEN: usize = 253;

/// A DNS name or an IP address in its one normal form; may be empty (no host known).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

impl std::borrow::Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why a text is no host or no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddr {
    /// Over [`MAX_HOST_LEN`] bytes.
    #[error("host name longer than {MAX_HOST_LEN} bytes")]
    TooLong,
    /// A byte that can stand in no host name (only letters, digits, `-`, `_`, `.` and IPv6 literals are taken).
    #[error("character {0:?} in a host name")]
    Character(char),
    /// Two dots in a row or a leading dot.
    #[error("empty label in a host name")]
    EmptyLabel,
    /// Unbalanced brackets or text in brackets that is no IPv6 address.
    #[error("not an IPv6 address in brackets")]
    Brackets,
    /// The part behind the last colon is not a number from 0 to 65535.
    #[error("port {0:?} is not a number from 0 to 65535")]
    Port(String),
}

impl Host {
    /// Parses a name or an IP literal (IPv6 with or without brackets), without a port. The empty text is the empty host.
    pub fn parse(text: &str) -> Result<Self, InvalidAddr> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let (mut upper, mut empty, mut before) = (false, false, b'.');
        for byte in name.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
                b'A'..=b'Z' => upper = true,
                b'.' => empty |= before == b'.',
                _ => return Self::unusual(text, name),
            }
            before = byte;
        }
        if name.len() > MAX_HOST_LEN {
            return Err(InvalidAddr::TooLong);
        }
        if empty || (before == b'.' && !text.is_empty()) {
            return Err(InvalidAddr::EmptyLabel);
        }
        if upper { Ok(Self(name.to_ascii_lowercase().into())) } else { Ok(Self(name.into())) }
    }

    /// The same for a text with a character that stands in no name: an IPv6 address, or none at all.
    fn unusual(text: &str, name: &str) -> Result<Self, InvalidAddr> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(InvalidAddr::Brackets)?;
            let ip: Ipv6Addr = inner.parse().map_err(|_| InvalidAddr::Brackets)?;
            return Ok(Self::from(IpAddr::V6(ip)));
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self::from(IpAddr::V6(ip)));
        }
        if name.len() > MAX_HOST_LEN {
            return Err(InvalidAddr::TooLong);
        }
        let is_odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        Err(InvalidAddr::Character(name.chars().find(is_odd).unwrap_or_default()))
    }

    /// The host that is not known.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Whether no host is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The normal form: lower case, no brackets, no port.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, when the host is an IP literal.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self(written(ip).into())
    }
}

/// An address as text, an IPv4 one within IPv6 as what it is. Plugins are told one with every request, and the standard library's
/// way takes ten times as long for IPv4.
pub fn written(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip.to_canonical() else { return ip.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for octet in ip.octets() {
        if !text.is_empty() {
            text.push('.');
        }
        for (unit, digit) in [(100, octet / 100), (10, octet / 10 % 10), (1, octet % 10)] {
            if octet >= unit || unit == 1 {
                text.push(char::from(b'0' + digit));
            }
        }
    }
    text
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A host with a port; the host may be empty (`:80`), the port may be 0 (unknown, or any).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or IP address, possibly empty.
    pub host: Host,
    /// TCP or UDP port, 0 when unknown.
    pub port: u16,
}

impl HostPort {
    /// Puts the two together.
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// Parses `host`, `host:port`, `:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; without a port `default_port` stands.
    /// A colon with nothing behind it (`host:`) counts as no port, as RFC 3986 has it.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, InvalidAddr> {
        let (host, port) = match text.rfind(':') {
            // Only an IPv6 address has two of them outside of brackets.
            Some(colon)
                if text[..colon].contains(':')
                    && !text.starts_with('[')
                    && text.parse::<Ipv6Addr>().is_ok() =>
            {
                (text, "")
            }
            Some(colon) if text.rfind(']').is_none_or(|bracket| bracket < colon) => {
                (&text[..colon], &text[colon + 1..])
            }
            _ => (text, ""),
        };
        let port = if port.is_empty() {
            default_port
        } else if port.bytes().all(|b| b.is_ascii_digit()) {
            port.parse().map_err(|_| InvalidAddr::Port(port.to_owned()))?
        } else {
            return Err(InvalidAddr::Port(port.to_owned()));
        };
        Ok(Self { host: Host::parse(host)?, port })
    }

    /// The socket address, when the host is an IP literal.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.ip().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().into(), port: addr.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.as_str().contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, form) in [
            ("Example.COM.", "example.com"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("2001:db8:0::1", "2001:db8::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
            ("a_b-c", "a_b-c"),
            ("", ""),
        ] {
            assert_eq!(Host::parse(text).unwrap().as_str(), form, "{text}");
        }
        for text in [
            "a..b",
            "a..",
            ".a",
            ".",
            "..",
            "a b",
            "a/b",
            "a:b",
            "known.host:abc",
            "[::1",
            "[x]",
            "é",
            "a@b",
            "a\0",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
        assert!(Host::parse(&"a".repeat(MAX_HOST_LEN + 1)).is_err());
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does_it() {
        for octet in 0..=255 {
            let ip = std::net::Ipv4Addr::new(octet, 0, 255 - octet, 10);
            assert_eq!(written(ip.into()), ip.to_string());
            assert_eq!(written(ip.to_ipv6_mapped().into()), ip.to_string());
        }
        assert_eq!(written("2001:DB8::1".parse().unwrap()), "2001:db8::1");
    }

    #[test]
    fn addresses_with_and_without_port() {
        for (text, form) in [
            ("a.b:80", "a.b:80"),
            ("a.b", "a.b:7"),
            ("a.b:", "a.b:7"),
            (":80", ":80"),
            ("[::1]:443", "[::1]:443"),
            ("[::1]", "[::1]:7"),
            ("::1", "[::1]:7"),
        ] {
            assert_eq!(HostPort::parse(text, 7).unwrap().to_string(), form, "{text}");
        }
        for text in ["a:b", "a:70000", "a:+1", "a:80:90", "[::1]x:1", "a:-1"] {
            assert!(HostPort::parse(text, 7).is_err(), "{text}");
        }
    }
}
