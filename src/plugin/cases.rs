//! Decision tables: questions with the answers that a plugin must give, as its own test and before it is taken into use.

use super::ask::{Answered, Generation, Target};
use super::pool::{CallError, Trial};
use super::{InstallError, bind};
use crate::addr::{Host, HostPort};
use crate::route::hop::Health;
use crate::route::{Extra, HttpParts, Node, Protocol, Request, Verdict};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A table; `NAME.cases.yaml` beside `NAME.wasm`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// In place of `NAME.yaml`.
    pub config: Option<String>,
    /// The questions, asked in this order; what one leaves in the store is there for the next.
    pub cases: Vec<Case>,
}

/// One question and its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The request.
    pub request: Asked,
    /// Candidates: with any, `forwarder.select` is asked, without `ingress.resolve`.
    #[serde(default)]
    pub nodes: Vec<Candidate>,
    /// Put into the store before.
    #[serde(default)]
    pub store: BTreeMap<String, String>,
    /// The answer; absent: any that is none of a failure.
    pub expect: Option<Expected>,
}

/// The request of a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Asked {
    hostname: String,
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

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// No opinion.
    Pass,
    /// A failure of whatever kind.
    Error,
    /// This tunnel, with `$` in front when private.
    Tunnel(String),
    /// This tunnel, public whatever rules say.
    Expose(String),
    /// The candidate of this name.
    Node(String),
    /// This address.
    Address(String),
    /// Sent away with this status.
    Refuse(u16),
}

/// What came of one case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The answer, written as in a table.
    pub answer: String,
    /// What was expected, where that is something else.
    pub expected: Option<String>,
    /// How long the call took.
    pub elapsed: Duration,
    /// Level and text of each line that the plugin logged.
    pub log: Vec<(String, String)>,
    /// Bytes of the instance's memory.
    pub memory: usize,
}

impl Cases {
    /// Reads a table; the error says what is wrong in it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|e| format!("the decision table is none: {e}"))
    }

    /// Whether all cases hold.
    pub(super) fn check(&self, generation: &Generation) -> Result<(), InstallError> {
        let mut failed = Vec::new();
        for (place, case) in self.cases.iter().enumerate() {
            let outcome = case.run(generation).map_err(InstallError::Table)?;
            if let Some(expected) = outcome.expected {
                let host = &case.request.hostname;
                failed.push(format!("case {place} ({host}): expected {expected}, got {}", outcome.answer));
            }
        }
        match failed.first().cloned() {
            None => Ok(()),
            Some(first) => {
                let (cases, failed) = (self.cases.len(), failed.len());
                Err(InstallError::Cases { cases, failed, first })
            }
        }
    }
}

impl Case {
    /// Asks; the error is one of the table.
    pub(super) fn run(&self, generation: &Generation) -> Result<Outcome, String> {
        let now = self.request.now.as_deref().map(time).transpose()?;
        let hostname = Host::parse(&self.request.hostname).map_err(|e| format!("hostname: {e}"))?;
        for (key, value) in &self.store {
            let now = now.unwrap_or_else(bind::clock);
            let set = generation.pool.shared.store.set(key, value.as_bytes(), None, now);
            set.map_err(|e| format!("store: {key:?}: {e:?}"))?;
        }
        let nodes = self.nodes.iter().map(Candidate::node).collect::<Result<Vec<_>, _>>()?;
        let http = self.request.http();
        let client = self.request.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let request = Request {
            hostname,
            protocol: self.request.protocol()?,
            client: SocketAddr::new(client, self.request.client_port),
            service: &self.request.service,
            http: http.as_ref().map(|http| http as &dyn HttpParts),
            extra: self.request.extra(),
        };
        let (answer, trial) = generation.try_out(&request, &nodes, now);
        Ok(self.outcome(answer, trial))
    }

    fn outcome(&self, answer: Result<Answered, CallError>, trial: Trial) -> Outcome {
        let given = answer.as_ref().map_or(Expected::Error, given);
        let fits = match &self.expect {
            Some(expected) => same(expected, &given),
            None => given != Expected::Error,
        };
        let text = match answer {
            Err(error) => format!("error: {error}"),
            Ok(_) => written(&given),
        };
        let expected = || self.expect.as_ref().map_or_else(|| "an answer".to_owned(), written);
        let Trial { elapsed, log, memory } = trial;
        Outcome { answer: text, expected: (!fits).then(expected), elapsed, log, memory }
    }
}

/// The answer, in the words of a table.
fn given(answer: &Answered) -> Expected {
    match answer {
        Answered::Tunnel(tunnel) => match &tunnel.verdict {
            Verdict::Pass => Expected::Pass,
            Verdict::Use(endpoint) => {
                let private = if endpoint.private { "$" } else { "" };
                let id = format!("{private}{}", endpoint.tunnel);
                if tunnel.exposed { Expected::Expose(id) } else { Expected::Tunnel(id) }
            }
            Verdict::Refuse(refusal) => Expected::Refuse(refusal.status),
        },
        Answered::Target(Verdict::Pass) => Expected::Pass,
        Answered::Target(Verdict::Use(Target::Node(node))) => Expected::Node(node.name.to_string()),
        Answered::Target(Verdict::Use(Target::Address(address))) => Expected::Address(address.to_string()),
        Answered::Target(Verdict::Refuse(refusal)) => Expected::Refuse(refusal.status),
    }
}

fn same(expected: &Expected, given: &Expected) -> bool {
    match (expected, given) {
        (Expected::Tunnel(a), Expected::Tunnel(b)) | (Expected::Expose(a), Expected::Expose(b)) => {
            a.eq_ignore_ascii_case(b)
        }
        _ => expected == given,
    }
}

fn written(answer: &Expected) -> String {
    match answer {
        Expected::Pass => "pass".to_owned(),
        Expected::Error => "error".to_owned(),
        Expected::Tunnel(id) => format!("{{ tunnel: {id} }}"),
        Expected::Expose(id) => format!("{{ expose: {id} }}"),
        Expected::Node(name) => format!("{{ node: {name} }}"),
        Expected::Address(address) => format!("{{ address: '{address}' }}"),
        Expected::Refuse(status) => format!("{{ refuse: {status} }}"),
    }
}

impl Asked {
    fn protocol(&self) -> Result<Protocol, String> {
        match self.protocol.as_deref() {
            None if self.method.is_none() && self.path.is_empty() && self.headers.is_empty() => {
                Ok(Protocol::Tls)
            }
            None | Some("http1") => Ok(Protocol::Http1),
            Some("http2") => Ok(Protocol::Http2),
            Some("tls") => Ok(Protocol::Tls),
            Some("ssh") => Ok(Protocol::Ssh),
            Some("unknown") => Ok(Protocol::Unknown),
            Some(other) => Err(format!("protocol {other:?} is none of http1, http2, tls, ssh, unknown")),
        }
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
        Extra { alpn: Some(alpn), metadata: Some(metadata) }
    }
}

impl Candidate {
    fn node(&self) -> Result<Arc<Node>, String> {
        let address = self.address.as_deref().map(|text| HostPort::parse(text, 0)).transpose();
        Ok(Arc::new(Node {
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

    #[test]
    fn tables_are_read_and_typing_errors_told() {
        let table = Cases::parse(
            "cases:
- request: { hostname: a.example, client: 192.0.2.1, headers: { cookie: 'a=1' } }
  expect: { tunnel: 4d21094e-b74c-4916-86c1-d9fa36ea677b }
- request: { hostname: b.example }
  nodes: [{ name: n, address: '10.0.0.1:80' }]
  expect: pass
- request: { hostname: c }
  expect: { refuse: 503 }
",
        )
        .unwrap();
        assert_eq!(table.cases.len(), 3);
        assert_eq!(table.cases[1].expect, Some(Expected::Pass));
        assert_eq!(table.cases[2].expect, Some(Expected::Refuse(503)));
        let error = Cases::parse("cases:\n- reqest: {}\n").unwrap_err();
        assert!(error.contains("reqest"), "{error}");
    }
}
