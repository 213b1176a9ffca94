//! Addresses of HTTP servers.

use crate::addr::{Host, HostPort};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use std::fmt;

/// Longest address: what comes on top of it must fit into a head.
const MAX_URL: usize = 4096;

/// An `http` or `https` URL. `Display` and `Debug` leave out what may be secret: its user and its query.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    /// `https`.
    pub(super) tls: bool,
    pub(super) target: HostPort,
    /// What stands in `Host`.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
    /// `Authorization` of `user:password@`.
    pub(super) basic: Option<String>,
}

impl Url {
    /// Whether TLS is spoken there.
    pub fn is_https(&self) -> bool {
        self.tls
    }

    /// Reads `http://host:port/path?query`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_URL {
            return Err(format!("longer than {MAX_URL} bytes"));
        }
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("neither http:// nor https:// stands in front".to_owned()),
        };
        let authority = uri.authority().ok_or("no host")?;
        let default = if tls { 443 } else { 80 };
        let host = Host::parse(authority.host()).map_err(|error| error.to_string())?;
        if host.is_empty() {
            return Err("no host".to_owned());
        }
        let (user, authority_text) = match authority.as_str().rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, authority.as_str()),
        };
        let basic = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let pair = [unescaped(name), b":".to_vec(), unescaped(password)].concat();
            format!("Basic {}", STANDARD.encode(pair))
        });
        let target = HostPort::new(host, authority.port_u16().unwrap_or(default));
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("{}{query}", uri.path());
        Ok(Self { tls, target, authority: authority_text.to_owned(), path, basic })
    }
}

/// Without escapes such as `%40`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = digits.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

/// As it stands in a query: all but letters, digits and `-_.~` as escapes.
pub(super) fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let (path, hidden) = match self.path.split_once('?') {
            Some((path, _)) => (path, "?..."),
            None => (&*self.path, ""),
        };
        write!(f, "{scheme}://{}{path}{hidden}", self.authority)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url = Url::parse("http://Example.com/rules").unwrap();
        assert_eq!(
            (url.tls, url.target.to_string().as_str(), url.path.as_str()),
            (false, "example.com:80", "/rules")
        );
        let url = Url::parse("https://[::1]:8443?a=b").unwrap();
        assert_eq!(
            (url.tls, url.target.to_string().as_str(), url.path.as_str()),
            (true, "[::1]:8443", "/?a=b")
        );
        assert_eq!(url.authority, "[::1]:8443");
        for text in [
            "",
            "127.0.0.1:80",
            "ftp://a/b",
            "/rules",
            "http://",
            "http://:80/",
            "http://a b/",
            "http://a\r\n/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
        assert!(Url::parse(&format!("http://a/{}", "x".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn secrets_are_sent_and_not_shown() {
        let url = Url::parse("https://ann:p%40ss%@a.example/x?token=secret").unwrap();
        assert_eq!(url.basic, Some(format!("Basic {}", STANDARD.encode("ann:p@ss%"))));
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("a.example", "/x?token=secret"));
        assert_eq!(format!("{url} {url:?}"), "https://a.example/x?... Url(https://a.example/x?...)");
    }

    #[test]
    fn queries_are_escaped_as_go_does() {
        assert_eq!(escaped("[::1]:80 a-b_c.d~é&="), "%5B%3A%3A1%5D%3A80%20a-b_c.d~%C3%A9%26%3D");
    }
}
