//! The question of a case, as it is written in a table, and as it is asked.

use crate::addr::{Host, HostPort};
use crate::plugin::ask::{Generation, Tried};
use crate::route::hop::Health;
use crate::route::ingress::parse_endpoint;
use crate::route::{Extra, HttpParts, Node, Opening, Protocol, Request};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The request of a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Asked {
    pub(super) hostname: String,
    protocol: Option<String>,
    client: Option<IpAddr>,
    client_port: u16,
    service: String,
    method: Option<String>,
    path: String,
    query: Option<String>,
    headers: BTreeMap<String, String>,
    alpn: Vec<String>,
    metadata: BTreeMap<String, String>,
    now: Option<String>,
    tunnel: Option<String>,
    user: String,
    udp: bool,
}

/// A candidate of a case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    name: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    active: u32,
    #[serde(default)]
    failures: u32,
    address: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

/// A question that stands for itself, to be asked as often as one likes.
#[derive(Debug)]
pub(crate) struct Question {
    hostname: Host,
    protocol: Protocol,
    client: SocketAddr,
    service: String,
    http: Option<Http>,
    extra: Extra,
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Whether a client may open a tunnel, in place of all else.
    pub(crate) opening: Option<Arc<Opening>>,
    /// The time it is, in milliseconds since 1970; `None`: the clock's.
    pub(crate) now: Option<u64>,
}

impl Question {
    /// Asks apart from traffic.
    pub(in crate::plugin) fn try_out(&self, generation: &Generation) -> Tried {
        match &self.opening {
            Some(opening) => generation.try_opening(opening, self.now),
            None => generation.try_out(&self.request(), &self.nodes, self.now),
        }
    }

    /// Asks as traffic does: the decision cache first.
    pub(in crate::plugin) fn ask(&self, generation: &Arc<Generation>) {
        match &self.opening {
            Some(opening) => drop(generation.admit(opening)),
            None if self.nodes.is_empty() => drop(generation.resolve(&self.request())),
            None => drop(generation.select(&self.request(), &self.nodes)),
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            hostname: self.hostname.clone(),
            protocol: self.protocol,
            client: self.client,
            service: &self.service,
            http: self.http.as_ref().map(|http| http as &dyn HttpParts),
            extra: self.extra.clone(),
        }
    }
}

impl Asked {
    pub(super) fn question(&self, nodes: &[Candidate]) -> Result<Question, String> {
        let opening = self.opening()?.map(Arc::new);
        if opening.is_some() && !(nodes.is_empty() && self.protocol.is_none() && !self.has_http_parts()) {
            return Err(
                "tunnel: for a client that opens one there are no nodes, and nothing of HTTP".to_owned()
            );
        }
        Ok(Question {
            hostname: self.host()?,
            protocol: self.protocol()?,
            client: self.client(),
            service: self.service.clone(),
            http: self.http(),
            extra: self.extra(),
            nodes: nodes.iter().map(Candidate::node).collect::<Result<_, _>>()?,
            opening,
            now: self.now.as_deref().map(time).transpose()?,
        })
    }

    /// Whether it is about a client that opens a tunnel.
    pub(super) fn is_opening(&self) -> bool {
        self.tunnel.is_some()
    }

    /// What the question is about, for a report.
    pub(super) fn about(&self) -> String {
        let Some(tunnel) = &self.tunnel else { return self.hostname.clone() };
        let words = [&self.user, tunnel, &self.hostname].map(String::as_str);
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn host(&self) -> Result<Host, String> {
        Host::parse(&self.hostname).map_err(|e| format!("hostname: {e}"))
    }

    fn client(&self) -> SocketAddr {
        SocketAddr::new(self.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), self.client_port)
    }

    /// The client that opens a tunnel, if that is the question.
    fn opening(&self) -> Result<Option<Opening>, String> {
        let Some(tunnel) = &self.tunnel else {
            let stray = !self.user.is_empty() || self.udp;
            let error = "user, udp: expected tunnel: UUID, the one that the client opens";
            return if stray { Err(error.to_owned()) } else { Ok(None) };
        };
        let id = parse_endpoint(tunnel).filter(|(_, private)| !private);
        let (tunnel, _) = id.ok_or_else(|| format!("tunnel: {tunnel:?} is no UUID"))?;
        Ok(Some(Opening {
            service: self.service.as_str().into(),
            tunnel,
            user: self.user.as_str().into(),
            hostname: self.host()?,
            client: self.client(),
            udp: self.udp,
            extra: self.extra(),
        }))
    }

    /// That of HTTP if any of its parts is there; a visitor with a name alone is one that speaks TLS.
    fn protocol(&self) -> Result<Protocol, String> {
        match self.protocol.as_deref() {
            None if !self.has_http_parts() => Ok(Protocol::Tls),
            None | Some("http1") => Ok(Protocol::Http1),
            Some("http2") => Ok(Protocol::Http2),
            Some("tls") => Ok(Protocol::Tls),
            Some("ssh") => Ok(Protocol::Ssh),
            Some("tcp") => Ok(Protocol::Tcp),
            Some("quic") => Ok(Protocol::Quic),
            Some("udp") => Ok(Protocol::Udp),
            Some("unknown") => Ok(Protocol::Unknown),
            Some(other) => {
                Err(format!("protocol {other:?} is none of http1, http2, tls, ssh, tcp, quic, udp, unknown"))
            }
        }
    }

    fn has_http_parts(&self) -> bool {
        self.method.is_some() || !self.path.is_empty() || self.query.is_some() || !self.headers.is_empty()
    }

    fn http(&self) -> Option<Http> {
        let http = matches!(self.protocol(), Ok(Protocol::Http1 | Protocol::Http2));
        http.then(|| Http {
            method: self.method.clone().unwrap_or_else(|| "GET".to_owned()),
            path: if self.path.is_empty() { "/".to_owned() } else { self.path.clone() },
            query: self.query.clone(),
            fields: self.headers.clone().into_iter().collect(),
        })
    }

    fn extra(&self) -> Extra {
        let alpn: Arc<[_]> = self.alpn.iter().map(|protocol| protocol.as_str().into()).collect();
        let metadata: Arc<[_]> =
            self.metadata.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
        Extra { alpn: Some(alpn), metadata: Some(metadata), port: 0 }
    }
}

impl Candidate {
    fn node(&self) -> Result<Arc<Node>, String> {
        let address = self.address.as_deref().map(|text| HostPort::parse(text, 0)).transpose();
        Ok(Arc::new(Node {
            place: None,
            name: self.name.as_str().into(),
            addr: address.map_err(|e| format!("node {:?}: {e}", self.name))?,
            weight: self.weight,
            backup: false,
            condition: "*".into(),
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            labels: self.labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
            health: Health::with(self.active, self.failures),
        }))
    }
}

/// The HTTP request of a case.
#[derive(Debug, Clone)]
struct Http {
    method: String,
    path: String,
    query: Option<String>,
    fields: Vec<(String, String)>,
}

impl HttpParts for Http {
    fn method(&self) -> &str {
        &self.method
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(found.1.as_bytes())
    }
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        let named = self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        Box::new(named.map(|(_, value)| value.as_bytes()))
    }
    fn names<'a>(&'a self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(self.fields.iter().map(|(name, _)| &**name))
    }
    fn shared(&self) -> Arc<dyn HttpParts> {
        Arc::new(self.clone())
    }
}

/// Milliseconds since 1970 of a time such as `2026-01-31T12:00:00Z`.
fn time(text: &str) -> Result<u64, String> {
    let wrong = || format!("now: {text:?} is no time such as 2026-01-31T12:00:00Z");
    let parts = text.strip_suffix('Z').and_then(|t| t.split_once('T')).ok_or_else(wrong)?;
    let numbers = |text: &str, separator| -> Option<[u64; 3]> {
        let numbers: Option<Vec<u64>> = text.split(separator).map(|part| part.parse().ok()).collect();
        numbers?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) =
        numbers(parts.0, '-').zip(numbers(parts.1, ':')).ok_or_else(wrong)?;
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(wrong());
    }
    // Days up to the first of March are counted with the year before, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-01-01T00:00:01Z", 1_767_225_601),
            ("2024-12-31T23:59:59Z", 1_735_689_599),
        ] {
            assert_eq!(time(text), Ok(seconds * 1000), "{text}");
        }
        for text in ["", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00Z", "x-01-01T00:00:00Z"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
