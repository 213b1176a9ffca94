//! One table for all: every built plugin is asked the same odd questions, by way of traffic and under the default limits.

use super::examples::{examples, install};
use super::{alone, compiled};
use bytes::BytesMut;
use pointsman::addr::Host;
use pointsman::plugin::{
    Allow, Binding, BoundAdmission, BoundForwarder, Chain, Limits, OnError, Plugin, Runtime,
};
use pointsman::route::hop::Health;
use pointsman::route::ingress::Table;
use pointsman::route::{
    Admission, Choice, Decision, Endpoint, Extra, Forwarder, HttpParts, Ingress, Node, Opening, Protocol,
    Request, Verdict,
};
use pointsman::wire::http::{HeadReader, Limits as HeadLimits, RequestHead};
use std::sync::Arc;
use std::time::Duration;

/// A question without its candidates.
struct Row {
    what: &'static str,
    hostname: String,
    protocol: Protocol,
    client: &'static str,
    http: Option<RequestHead>,
    extra: Extra,
}

/// What no example has a rule for, so that of an ingress the answer is to pass.
fn rows() -> Vec<Row> {
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    assert_eq!(long.len(), 253);
    let fields: String = (0..250).map(|n| format!("X-Field-{n}: {n}\r\n")).collect();
    let cookies = format!("Cookie: variant={}\r\nCookie: user=x\r\n", "v".repeat(60_000));
    let pairs: Arc<[_]> = (0..200).map(|n| (format!("key-{n}").into(), "value".into())).collect();
    let told =
        Extra { alpn: Some([Box::from("h2"), "\u{fffd}".into()].into()), metadata: Some(pairs), port: 0 };
    vec![
        row("no hostname", "", Protocol::Unknown, "203.0.113.5:1"),
        row("ssh", "", Protocol::Ssh, "203.0.113.5:65535"),
        row("unknown host", "nobody.invalid", Protocol::Tls, "203.0.113.5:4000"),
        row("longest hostname", &long, Protocol::Tls, "203.0.113.5:4000"),
        row("most labels", &["a"; 127].join("."), Protocol::Tls, "203.0.113.5:4000"),
        row("address as host", "2001:db8::1", Protocol::Tls, "203.0.113.5:4000"),
        row("IPv6 client", "nobody.invalid", Protocol::Tls, "[2001:db9::1]:4000"),
        row("mapped client", "nobody.invalid", Protocol::Tls, "[::ffff:203.0.113.9]:4000"),
        row("client of a link", "nobody.invalid", Protocol::Tls, "[fe80::1%7]:4000"),
        Row { extra: told, ..row("ALPN and metadata", "nobody.invalid", Protocol::Tls, "203.0.113.5:4000") },
        http("no fields", b"/", b""),
        http("many fields", b"/", fields.as_bytes()),
        http("large cookie", b"/", cookies.as_bytes()),
        http("no UTF-8", b"/", b"Cookie: variant=\xff\xfe; \x80\r\nX-\x23: \xc3\x28\r\nUser-Agent: \xff\r\n"),
        http("long target", format!("/{}?{}", "p".repeat(30_000), "q=1&".repeat(7_000)).as_bytes(), b""),
    ]
}

fn row(what: &'static str, hostname: &str, protocol: Protocol, client: &'static str) -> Row {
    Row { what, hostname: hostname.to_owned(), protocol, client, http: None, extra: Extra::default() }
}

fn http(what: &'static str, target: &[u8], fields: &[u8]) -> Row {
    let head = [b"GET ", target, b" HTTP/1.1\r\nHost: nobody.invalid\r\n", fields, b"\r\n"].concat();
    let head = HeadReader::default().request(&mut BytesMut::from(&*head), &HeadLimits::default()).unwrap();
    assert!(head.is_some(), "{what}");
    Row { http: head, ..row(what, "nobody.invalid", Protocol::Http1, "203.0.113.5:4000") }
}

impl Row {
    /// In a round of its own, so that no answer of another round comes from the decision cache.
    fn request<'a>(&'a self, service: &'a str) -> Request<'a> {
        Request {
            hostname: Host::parse(&self.hostname).unwrap(),
            protocol: self.protocol,
            client: self.client.parse().unwrap(),
            service,
            http: self.http.as_ref().map(|http| http as &dyn HttpParts),
            extra: self.extra.clone(),
        }
    }
}

/// Candidates of all kinds, and for how many of them there is nothing against.
fn candidates() -> Vec<(Vec<Arc<Node>>, usize)> {
    let node = |n: usize, weight, active, failures| {
        node(&format!("{n}-{}", "n".repeat(n)), weight, Health::with(active, failures))
    };
    vec![
        (vec![], 0),
        (vec![node(0, 1, 0, 0)], 1),
        (vec![node(0, 1, 0, 3), node(1, 1, 0, u32::MAX)], 0),
        (vec![node(0, u32::MAX, u32::MAX, 0), node(1, u32::MAX, u32::MAX, 0), node(2, 1, 0, 1)], 2),
        ((0..64).map(|n| node(n, 1, u32::MAX, 0)).collect(), 64),
    ]
}

pub(super) fn node(name: &str, weight: u32, health: Health) -> Arc<Node> {
    Arc::new(Node {
        place: None,
        name: name.into(),
        condition: "*".into(),
        addr: None,
        weight,
        backup: false,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        labels: [("version".into(), "canary".into())].into(),
        health,
    })
}

/// Clients that open tunnels that no example knows, in a round of its own.
fn openings(round: &str) -> Vec<Opening> {
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    let plain = Opening {
        service: round.into(),
        tunnel: uuid::Uuid::max(),
        user: "".into(),
        hostname: Host::empty(),
        client: "203.0.113.5:4000".parse().unwrap(),
        udp: false,
        extra: Extra::default(),
    };
    let user = |user: &str| Opening { user: user.into(), ..plain.clone() };
    vec![
        plain.clone(),
        Opening { tunnel: uuid::Uuid::nil(), udp: true, ..plain.clone() },
        Opening { hostname: Host::parse(&long).unwrap(), ..user("ann") },
        Opening { client: "[fe80::1%7]:0".parse().unwrap(), ..user(&"u".repeat(255)) },
        user("\u{fffd}\0\n\"'"),
        Opening { hostname: Host::parse("2001:db8::1").unwrap(), ..user("ann") },
        Opening { client: "[::ffff:203.0.113.9]:4000".parse().unwrap(), udp: true, ..user("bob") },
    ]
}

/// Asks everything there is to ask in one round, and says what was answered wrongly.
async fn ask(plugin: &Arc<Plugin>, round: &str) -> Vec<String> {
    let (roles, mut wrong) = (plugin.roles(), Vec::new());
    let binding = || Binding::new(Arc::clone(plugin), OnError::Refuse);
    let chain = Chain::bound(binding(), Table::new(&[]).0);
    let forwarder = BoundForwarder::new(binding(), Allow::default());
    let door = BoundAdmission::bound(binding());
    for opening in openings(round).into_iter().filter(|_| roles.admission) {
        let shown = format!("{opening:?}");
        let decision = door.admit(Arc::new(opening)).await;
        if !matches!(decision, Ok(Verdict::Refuse(_))) {
            wrong.push(format!("{}: {shown}: {decision:?}", plugin.name()));
        }
    }
    for row in &rows() {
        let request = row.request(round);
        if roles.ingress {
            let decision: Decision<Endpoint> = chain.resolve(&request).wait().await;
            if !matches!(decision, Ok(Verdict::Pass)) {
                wrong.push(format!("{}: {}: {decision:?}", plugin.name(), row.what));
            }
        }
        for (nodes, healthy) in candidates().iter().filter(|_| roles.forwarder) {
            let decision = forwarder.select(&request, nodes).wait().await;
            if !is_right(&decision, nodes, *healthy) {
                wrong.push(format!("{}: {}, {} nodes: {decision:?}", plugin.name(), row.what, nodes.len()));
            }
        }
    }
    wrong
}

/// One that is well where there is one, and no opinion where there is none.
fn is_right(decision: &Decision<Choice>, nodes: &[Arc<Node>], healthy: usize) -> bool {
    match decision {
        Ok(Verdict::Use(Choice::Candidate(place))) => nodes[*place].health.failures() == 0,
        Ok(Verdict::Pass) => healthy == 0,
        _ => false,
    }
}

/// Installs all of them with their own configurations, and asks each for so many rounds.
async fn every_example_answers(limits: Limits, rounds: usize) -> Vec<Arc<Plugin>> {
    let runtime = Runtime::new(limits, compiled()).unwrap();
    let plugins: Vec<_> = examples().iter().map(|folder| install(&runtime, folder).unwrap()).collect();
    let mut wrong = Vec::new();
    for plugin in &plugins {
        for round in 0..rounds {
            wrong.extend(ask(plugin, &format!("round-{round}")).await);
        }
        let counts = plugin.status().counts;
        assert_eq!((counts.errors, counts.traps, counts.overruns), (0, 0, 0), "{}", plugin.name());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    plugins
}

#[test]
fn every_example_answers_every_request_under_the_default_limits() {
    let _alone = alone();
    // How long an answer takes on a busy machine is not the example's doing; benches/plugins.rs measures it.
    let limits = Limits { deadline: Duration::from_millis(200), ..Limits::default() };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(every_example_answers(limits.clone(), 2));
    // And with an instance that is replaced again and again, which is met after a million calls otherwise.
    let limits = Limits { recycle_calls: 7, ..limits };
    for plugin in tokio.block_on(every_example_answers(limits, 4)) {
        assert!(plugin.status().counts.recycled > 2, "{}: {:?}", plugin.name(), plugin.status().counts);
    }
}
