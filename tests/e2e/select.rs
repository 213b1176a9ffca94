//! Which node a connection or a request goes to: strategies, failure marks, backups, filters and rules.

use crate::support::Program::Ours;
use crate::support::{Proc, backend, connect, eventually, exchange, free_port, read_all, wait_for_port};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

/// A reverse proxy with this selector and these nodes, each written as `name addr, more keys`.
fn proxy(selector: &str, nodes: &[String]) -> (Proc, u16) {
    let port = free_port();
    let nodes: String = nodes.iter().map(|node| format!("    - {{ {node} }}\n")).collect();
    let proxy = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, sniffing.timeout: 300ms, connectTimeout: 2s }} }}
  forwarder:
    selector: {{ {selector} }}
    nodes:
{nodes}"
    ));
    wait_for_port(port);
    (proxy, port)
}

fn node(name: &str, port: u16, more: &str) -> String {
    format!("name: {name}, addr: '127.0.0.1:{port}', {more}")
}

/// Which backend answers a request for this host and path, on a connection of its own.
fn answer(port: u16, host: &str, path: &str) -> String {
    name_in(&exchange(port, &request(host, path)).0)
}

fn request(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The backend's name, or the status line of a failure.
fn name_in(reply: &str) -> String {
    match reply.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => {
            body.split(' ').next().unwrap_or_default().to_owned()
        }
        _ => reply.lines().next().unwrap_or_default().to_owned(),
    }
}

fn shares(port: u16, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(answer(port, "h", "/")).or_default() += 1;
    }
    shares
}

fn failures(proxy: &Proc) -> usize {
    proxy.log().lines().filter(|line| line.contains("node failed")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn round_gives_every_node_its_turn() {
    let nodes = [backend::http("a").await, backend::http("b").await, backend::http("c").await];
    let nodes: Vec<_> = nodes.iter().enumerate().map(|(i, port)| node(&format!("n{i}"), *port, "")).collect();
    let (_proxy, port) = proxy("strategy: round", &nodes);
    let turns: Vec<_> = (0..6).map(|_| answer(port, "h", "/")).collect();
    assert_eq!(turns[..3], turns[3..]);
    assert_eq!(shares(port, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_goes_by_weight() {
    let (a, b) = (backend::http("a").await, backend::http("b").await);
    let nodes = [node("a", a, ""), node("b", b, "metadata: { weight: 9 }")];
    let (_proxy, port) = proxy("strategy: random", &nodes);
    let shares = shares(port, 300);
    // 30 of 300 are expected; eight standard deviations of 5.2 to either side.
    assert!((1..=72).contains(&shares["a"]) && shares["b"] == 300 - shares["a"], "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifo_takes_the_first_that_lives_and_goes_back_to_it() {
    let b = backend::http("b").await;
    let a = free_port();
    let nodes = [node("a", a, ""), node("b", b, "")];
    let (proxy, port) = proxy("strategy: fifo, failTimeout: 200ms", &nodes);
    // Refused, and the next one tried within the same request.
    assert_eq!(answer(port, "h", "/"), "b");
    proxy.wait_for(&["node failed", "node=\"a\""]);
    assert_eq!(failures(&proxy), 1);
    let _a = speaker_at(
        TcpListener::bind(("127.0.0.1", a)).unwrap(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    );
    eventually("the first node is used again", || (answer(port, "h", "/") == "a").then_some(()));
    assert_eq!(shares(port, 5), BTreeMap::from([("a".to_owned(), 5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_left_alone_after_max_fails_until_fail_timeout() {
    let b = backend::http("b").await;
    let marks = "metadata: { maxFails: 2, failTimeout: 1h }";
    let (proxy, port) = proxy("strategy: fifo", &[node("a", free_port(), marks), node("b", b, "")]);
    assert_eq!(shares(port, 6), BTreeMap::from([("b".to_owned(), 6)]));
    eventually("it has failed twice", || (failures(&proxy) == 2).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn hash_keeps_a_client_at_its_node() {
    let nodes = [backend::http("a").await, backend::http("b").await];
    let nodes: Vec<_> = nodes.iter().enumerate().map(|(i, port)| node(&format!("n{i}"), *port, "")).collect();
    let (_proxy, port) = proxy("strategy: hash", &nodes);
    let ask = |client: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, client), 0)).into()).unwrap();
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(&request("h", "/")).unwrap();
        name_in(&read_all(&mut stream).0)
    };
    let first: Vec<_> = (1..=16).map(ask).collect();
    let again: Vec<_> = (1..=16).map(ask).collect();
    assert_eq!(first, again);
    assert!(first.contains(&"a".to_owned()) && first.contains(&"b".to_owned()), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_serve_only_while_no_other_lives() {
    let (a, spare) = (backend::http("a").await, backend::http("spare").await);
    let nodes = |primary| [node("spare", spare, "metadata: { backup: true }"), node("a", primary, "")];
    let (_proxy, port) = proxy("strategy: round", &nodes(a));
    assert_eq!(shares(port, 6), BTreeMap::from([("a".to_owned(), 6)]));
    let (_proxy, port) = proxy("strategy: round", &nodes(free_port()));
    assert_eq!(shares(port, 6), BTreeMap::from([("spare".to_owned(), 6)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_node_takes_the_connection_the_visitor_is_told() {
    let (_proxy, port) = proxy("strategy: round", &[node("a", free_port(), ""), node("b", free_port(), "")]);
    for _ in 0..3 {
        assert!(answer(port, "h", "/").starts_with("HTTP/1.1 503 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_go_by_host_then_path() {
    let (root, api, v2, other) = (
        backend::http("root").await,
        backend::http("api").await,
        backend::http("v2").await,
        backend::http("other").await,
    );
    let nodes = [
        node("other", other, ""),
        node("root", root, "host: h"),
        node("api", api, "filter: { host: h, path: /api }"),
        node("v2", v2, "filter: { host: '*.h', path: /api/v2 }"),
    ];
    let (_proxy, port) = proxy("", &nodes);
    for (host, path, expected) in [
        ("h", "/", "root"),
        ("H.", "/api/v2/x", "api"),
        ("h:99", "/api", "api"),
        ("a.h", "/api/v2/x", "v2"),
        ("a.h", "/api", "other"),
        ("badh", "/api/v2", "other"),
    ] {
        assert_eq!(answer(port, host, path), expected, "{host} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_go_by_priority() {
    let names = ["low", "rule", "long", "high"];
    let mut ports = Vec::new();
    for name in names {
        ports.push(backend::http(name).await);
    }
    let nodes = [
        node("low", ports[0], ""),
        node("rule", ports[1], "matcher: { rule: 'Host(`h`)' }"),
        node("long", ports[2], "matcher: { rule: 'Host(`h`) && PathPrefix(`/api`)' }"),
        node("high", ports[3], "matcher: { rule: 'Query(`debug`)', priority: 100 }"),
    ];
    let (_proxy, port) = proxy("", &nodes);
    for (host, path, expected) in [
        ("x", "/", "low"),
        ("h", "/", "rule"),
        ("h", "/api/x", "long"),
        ("h", "/api?debug=1", "high"),
        ("x", "/?debug", "high"),
    ] {
        assert_eq!(answer(port, host, path), expected, "{host} {path}");
    }
    // Each request of a connection is asked anew.
    let asked = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /api HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let (replies, _) = exchange(port, asked);
    assert!(replies.contains("rule h / GET") && replies.contains("long h /api GET"), "{replies}");
}

/// A server that says its word as soon as a visitor has said something; its port.
fn speaker(word: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    speaker_at(listener, word)
}

fn speaker_at(listener: TcpListener, word: &'static str) -> u16 {
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                    drop(stream.write_all(word.as_bytes()));
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn protocols_are_told_apart() {
    let web = backend::http("web").await;
    let nodes = [
        node("ssh", speaker("ssh"), "filter: { protocol: ssh }"),
        node("tls", speaker("tls"), "filter: { protocol: tls }"),
        node("web", web, "protocol: http"),
        node("raw", speaker("raw"), ""),
    ];
    let (_proxy, port) = proxy("", &nodes);
    let hello = std::fs::read_dir("tests/fuzz/corpus/client_hello").unwrap().next().unwrap().unwrap();
    let hello = std::fs::read(hello.path()).unwrap();
    for (bytes, expected) in [
        (&b"SSH-2.0-test\r\n"[..], "ssh"),
        (&hello, "tls"),
        (b"\x00\x01binary", "raw"),
        (b"+PING\r\n", "raw"),
    ] {
        assert_eq!(exchange(port, bytes).0, expected);
    }
    assert_eq!(answer(port, "h", "/"), "web");
}

/// Who waits for the server to speak is passed on after the sniff time-out, and only to a node without filters.
#[test]
fn a_server_may_speak_first() {
    let greeter = TcpListener::bind("127.0.0.1:0").unwrap();
    let greeting = greeter.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in greeter.incoming().map_while(Result::ok) {
            stream.write_all(b"220 ready\r\n").unwrap();
            let mut line = [0; 6];
            stream.read_exact(&mut line).unwrap();
            stream.write_all(&line).unwrap();
        }
    });
    let refused = free_port();
    let nodes = [
        node("host", refused, "host: h"),
        node("path", refused, "path: /"),
        node("ssh", refused, "protocol: ssh"),
        node("rule", refused, "matcher: { rule: 'Host(`h`)' }"),
        node("greeter", greeting, ""),
    ];
    let (proxy, port) = proxy("", &nodes);
    let mut visitor = connect(port);
    let mut banner = [0; 11];
    visitor.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
    visitor.write_all(b"QUIT\r\n").unwrap();
    assert_eq!(read_all(&mut visitor).0, "QUIT\r\n");
    assert_eq!(failures(&proxy), 0);
}

/// `selector` of the hop towards the servers: the next server is tried, and the first one used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_chooses_among_servers() {
    let web = backend::http("web").await;
    let (first, second, visit) = (free_port(), free_port(), free_port());
    let server = |port: u16| {
        format!(
            "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i }} }}
ingresses: [{{ name: i, rules: [{{ hostname: h, endpoint: 4d21094e-b74c-4916-86c1-d9fa36ea677b }}] }}]
"
        )
    };
    let connector =
        "connector: { type: tunnel, metadata: { tunnel.id: 4d21094e-b74c-4916-86c1-d9fa36ea677b } }";
    let running = Ours.start(&server(second));
    wait_for_port(second);
    let client = Ours.start(&format!(
        "services:
- name: client
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: web, addr: '127.0.0.1:{web}' }}] }}
chains: [{{ name: c, hops: [{{ name: servers }}] }}]
hops:
- name: servers
  selector: {{ strategy: fifo, maxFails: 1, failTimeout: 300ms }}
  nodes:
  - {{ name: first, addr: '127.0.0.1:{first}', {connector} }}
  - {{ name: second, addr: '127.0.0.1:{second}', {connector} }}
"
    ));
    client.wait_for(&["cannot connect", "node=\"first\""]);
    client.wait_for(&["connected", "node=\"second\""]);
    assert_eq!(answer(visit, "h", "/"), "web");
    drop(running);
    let _running = Ours.start(&server(first));
    client.wait_for(&["connected", "node=\"first\""]);
    eventually("the first server is reached", || (answer(visit, "h", "/") == "web").then_some(()));
}
