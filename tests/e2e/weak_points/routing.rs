//! Weak points 11, 12 and 13: which node, whose address, and requests that go in circles.

use super::{get, server};
use crate::support::matrix::TUNNEL;
use crate::support::relay::{self, CONNECT};
use crate::support::{Proc, Program::Ours, backend, exchange, free_port, read_all, wait_for_port};
use std::io::Write;

/// Weak point 11: case, label boundary, fallback, and each request of a connection by its own path.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_paths_are_matched_as_meant() {
    let mut ports = Vec::new();
    for name in ["exact", "suffix", "path", "fallback"] {
        ports.push(backend::http(name).await);
    }
    let port = free_port();
    let _proxy = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder:
    nodes:
    - {{ name: exact, addr: '127.0.0.1:{}', filter: {{ host: Example.COM }} }}
    - {{ name: suffix, addr: '127.0.0.1:{}', filter: {{ host: .example.org }} }}
    - {{ name: path, addr: '127.0.0.1:{}', filter: {{ host: example.com, path: /api }} }}
    - {{ name: fallback, addr: '127.0.0.1:{}' }}
",
        ports[0], ports[1], ports[2], ports[3]
    ));
    wait_for_port(port);
    let cases = [
        ("eXample.com", "/1", "exact"),
        ("example.com", "/api/2", "path"),
        ("a.EXAMPLE.org", "/3", "suffix"),
        ("badexample.org", "/4", "fallback"),
        ("example.com", "/5", "exact"),
        ("other.host", "/api/6", "fallback"),
    ];
    for _ in 0..3 {
        // One connection: each request is matched anew, and the fallback never shares the others' traffic.
        let mut requests: String = cases
            .iter()
            .map(|(host, path, _)| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .collect();
        requests += "GET /last HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
        let (replies, _) = exchange(port, requests.as_bytes());
        for (host, path, node) in cases {
            assert!(replies.contains(&format!("{node} {host} {path} GET")), "{host} {path}: {replies}");
        }
    }
}

/// Weak point 11: a raw stream of a tunnel goes to the node that has the host which the visitor asked for.
#[test]
fn raw_streams_go_by_the_host_of_the_stream() {
    let (_server, port, _) = server(", tunnel.direct: true");
    let (a, b) = (speaker(b"from a"), speaker(b"from b"));
    let _client = super::client(
        port,
        &format!(
            "  handler: {{ type: rtcp }}
  forwarder:
    nodes:
    - {{ name: a, addr: '127.0.0.1:{a}', filter: {{ host: a.local }} }}
    - {{ name: b, addr: '127.0.0.1:{b}', filter: {{ host: .b.local }} }}"
        ),
    );
    for (host, expected) in [("a.local", "from a"), ("ssh.B.local", "from b"), ("c.local", "")] {
        let (mut visitor, status) = relay::ask(port, CONNECT, host, false);
        assert_eq!(status, 0);
        let (got, closed) = read_all(&mut visitor);
        assert!(closed && got == expected, "{host}: {got:?}");
    }
}

/// A server that says one thing and ends.
fn speaker(text: &'static [u8]) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.write_all(text));
        }
    });
    port
}

/// Weak point 12: a field that a visitor sends is no address, neither for rules nor through a tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_cannot_choose_its_address() {
    let (inside, outside) = (backend::http("inside").await, backend::http("outside").await);
    let (_server, port, visit) = server("");
    let _client = super::client(
        port,
        &format!(
            "  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  forwarder:
    nodes:
    - {{ name: inside, addr: '127.0.0.1:{inside}', matcher: {{ rule: 'ClientIP(`9.8.7.6`)' }} }}
    - {{ name: outside, addr: '127.0.0.1:{outside}', matcher: {{ rule: 'ClientIP(`127.0.0.1`)' }} }}"
        ),
    );
    for field in [
        "X-Forwarded-For: 9.8.7.6",
        "X-Real-Ip: 9.8.7.6",
        "CF-Connecting-IP: 9.8.7.6",
        "Forwarded: for=9.8.7.6",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: known.host\r\n{field}\r\nConnection: close\r\n\r\n");
        let (reply, _) = exchange(visit, request.as_bytes());
        assert!(reply.contains("outside known.host / GET"), "{field}: {reply}");
    }
}

/// A tunnel whose only target is another entrypoint, or whoami.
fn node(visit: u16, target: &str, option: &str) -> Proc {
    let port = free_port();
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'known.host:{TUNNEL}'{option} }} }}
- addr: :0
  listener: {{ type: rtcp, chain: c }}
  {target}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ));
    process.wait_for(&["connected"]);
    process
}

/// Weak point 13: A -> B -> A is noticed where the option asks for it; without it no field is added.
#[test]
fn a_loop_over_two_nodes_is_answered_508() {
    const OPTION: &str = ", entrypoint.forwardedNode: true";
    let to = |port| {
        format!(
            "handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{port}' }}] }}"
        )
    };
    let (a, b) = (free_port(), free_port());
    let first = node(a, &to(b), OPTION);
    let _second = node(b, &to(a), OPTION);
    let (reply, _) = exchange(a, &get("/", "known.host"));
    assert!(reply.starts_with("HTTP/1.1 508 "), "{reply}");
    first.wait_for(&["outcome=\"loop\""]);

    const WHOAMI: &str = "handler: { type: whoami }";
    let visit = free_port();
    let _with = node(visit, WHOAMI, OPTION);
    let request =
        "GET / HTTP/1.1\r\nHost: known.host\r\nGost-Forwarded-Node: earlier\r\nConnection: close\r\n\r\n";
    let seen = exchange(visit, request.as_bytes()).0.to_lowercase();
    let passed = seen.lines().find_map(|line| line.strip_prefix("gost-forwarded-node: ")).unwrap();
    assert!(passed.starts_with("earlier, ") && passed.len() == "earlier, ".len() + 36, "{passed}");
    let visit = free_port();
    let _without = node(visit, WHOAMI, "");
    let seen = exchange(visit, &get("/", "known.host")).0.to_lowercase();
    assert!(seen.contains("200 ok") && !seen.contains("gost-") && !seen.contains("forwarded"), "{seen}");
}
