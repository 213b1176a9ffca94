use super::*;
use crate::addr::Host;
use crate::wire::http::{Limits, RequestHead};

fn node(name: &str) -> NodeSettings {
    NodeSettings {
        name: name.into(),
        addr: Some(HostPort::parse("127.0.0.1:1", 0).unwrap()),
        host: String::new(),
        protocol: String::new(),
        path: String::new(),
        rule: None,
        priority: 0,
        weight: 1,
        backup: false,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
    }
}

fn host(name: &str, host: &str) -> NodeSettings {
    NodeSettings { host: host.into(), ..node(name) }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn hop(nodes: Vec<NodeSettings>, strategy: Strategy) -> Hop {
    Hop::new(&HopSettings { nodes, strategy }, now()).unwrap()
}

fn ask(
    hop: &Hop,
    host: &str,
    path: &str,
    client: [u8; 4],
    at: Instant,
    tried: &mut Vec<usize>,
) -> Option<String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = RequestHead::take(&mut head.as_str().into(), &Limits::default()).unwrap().unwrap();
    let request = Request {
        hostname: Host::parse(host).unwrap(),
        protocol: Protocol::Http1,
        client: (client, 9).into(),
        service: "s",
        http: Some(&head),
    };
    match hop.choose(&request, tried, at).unwrap() {
        Verdict::Use(node) => Some(node.name.to_string()),
        _ => None,
    }
}

fn first(hop: &Hop, host: &str, path: &str) -> String {
    ask(hop, host, path, [1, 1, 1, 1], now(), &mut Vec::new()).unwrap_or_default()
}

#[test]
fn the_most_specific_host_and_path_win() {
    let path = |name: &str, h: &str, path: &str| NodeSettings { path: path.into(), ..host(name, h) };
    let hop = hop(
        vec![
            node("any"),
            host("exact", "A.example.com"),
            host("wild", "*.example.com"),
            path("deep", "a.example.com", "/api/"),
            host("glued", "*glued.com"),
        ],
        Strategy::Round,
    );
    for (host, path, expected) in [
        ("a.example.com", "/", "exact"),
        ("a.example.com", "/api/x", "deep"),
        ("b.a.example.com", "/", "wild"),
        ("example.com", "/", "wild"),
        ("badexample.com", "/", "any"),
        ("glued.com", "/", "glued"),
        ("x.glued.com", "/", "glued"),
        ("xglued.com", "/", "any"),
        ("", "/", "any"),
    ] {
        for _ in 0..3 {
            assert_eq!(first(&hop, host, path), expected, "{host}{path}");
        }
    }
}

#[test]
fn a_rule_decides_alone_and_by_priority() {
    let rule = |name: &str, text: &str, priority| NodeSettings {
        rule: Some(Rule::parse(text).unwrap()),
        priority,
        host: "ignored.example".into(),
        ..node(name)
    };
    let hop = hop(
        vec![
            host("plain", "a.example"),
            rule("short", "Host(`a.example`)", 0),
            rule("long", "Host(`a.example`) && PathPrefix(`/x`)", 0),
            rule("first", "PathPrefix(`/first`)", 1000),
            rule("last", "PathPrefix(`/`)", -1),
        ],
        Strategy::Round,
    );
    assert_eq!(first(&hop, "a.example", "/"), "short");
    assert_eq!(first(&hop, "a.example", "/x"), "long");
    assert_eq!(first(&hop, "a.example", "/first"), "first");
    assert_eq!(first(&hop, "b.example", "/"), "last");
    let mut tried = Vec::new();
    let order: Vec<_> =
        std::iter::from_fn(|| ask(&hop, "a.example", "/x", [1, 1, 1, 1], now(), &mut tried)).collect();
    assert_eq!(order, ["long", "short", "plain", "last"]);
}

#[test]
fn round_robin_is_fair_for_interleaved_hosts() {
    let hop = hop(vec![host("a0", "a"), host("b0", "b"), host("a1", "a"), host("b1", "b")], Strategy::Round);
    let order: Vec<_> = ["a", "b", "a", "b", "a", "b"].iter().map(|h| first(&hop, h, "/")).collect();
    assert_eq!(order, ["a0", "b0", "a1", "b1", "a0", "b0"]);
}

#[test]
fn strategies() {
    let three = || vec![node("a"), NodeSettings { weight: 8, ..node("b") }, node("c")];
    assert_eq!(first(&hop(three(), Strategy::Fifo), "", "/"), "a");
    let random = hop(three(), Strategy::Random);
    let heavy = (0..1000).filter(|_| first(&random, "", "/") == "b").count();
    assert!((700..900).contains(&heavy), "{heavy}");
    let hash = hop(three(), Strategy::Hash);
    for last in 0..20 {
        let client = [10, 0, 0, last];
        let expected = crc32fast::hash(format!("10.0.0.{last}").as_bytes()) as usize % 3;
        let got = ask(&hash, "", "/", client, now(), &mut Vec::new()).unwrap();
        assert_eq!(got, ["a", "b", "c"][expected]);
    }
}

#[test]
fn dead_and_backup_nodes_wait() {
    let hop = hop(vec![node("a"), node("b"), NodeSettings { backup: true, ..node("spare") }], Strategy::Fifo);
    let at = now();
    let order = |at| {
        let mut tried = Vec::new();
        std::iter::from_fn(|| ask(&hop, "", "/", [1, 1, 1, 1], at, &mut tried)).collect::<Vec<_>>()
    };
    assert_eq!(order(at), ["a", "b", "spare"]);
    hop.nodes[0].health.failed(at);
    assert_eq!(order(at), ["b", "spare", "a"]);
    hop.nodes[1].health.failed(at);
    assert_eq!(order(at), ["spare", "a", "b"]);
    assert_eq!(order(at + Duration::from_secs(11)), ["a", "b", "spare"]);
    hop.nodes[1].health.succeeded();
    assert_eq!(order(at), ["b", "spare", "a"]);
}

#[test]
fn a_node_fills_in_from_the_request() {
    let request = |protocol| Request {
        hostname: Host::parse("a.example").unwrap(),
        protocol,
        client: ([1, 1, 1, 1], 9).into(),
        service: "s",
        http: None,
    };
    let target = |addr: Option<&str>, protocol| {
        let addr = addr.map(|a| HostPort::parse(a, 0).unwrap());
        let hop = hop(vec![NodeSettings { addr, ..node("n") }], Strategy::Round);
        hop.nodes[0].target(&request(protocol), 0).map(|t| t.to_string())
    };
    assert_eq!(target(None, Protocol::Http1).as_deref(), Some("a.example:80"));
    assert_eq!(target(Some("b"), Protocol::Tls).as_deref(), Some("b:443"));
    assert_eq!(target(Some(":8080"), Protocol::Http1).as_deref(), Some("a.example:8080"));
    assert_eq!(target(Some("b"), Protocol::Unknown), None);
}

#[test]
fn a_hundred_thousand_nodes() {
    let nodes = (0..100_000).map(|i| host(&format!("n{i}"), &format!("h{i}.example"))).collect();
    let hop = hop(nodes, Strategy::Round);
    assert_eq!(first(&hop, "h99999.example", "/"), "n99999");
    assert_eq!(first(&hop, "none.example", "/"), "");
}
