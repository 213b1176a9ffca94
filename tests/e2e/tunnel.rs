//! Tunnel server and client: the matrix with both ends ours, and what strangers and broken peers can do.

use crate::support::Program::Ours;
use crate::support::matrix::{Channel, Kind, Row, TUNNEL, every_case};
use crate::support::{Proc, backend, connect, curl, eventually, exchange, free_port, read_all, relay};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn our_client_at_our_tunnel_server() {
    every_case(Row::new(Kind::Tunnel, Channel::TCP, (Ours, Ours))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_at_our_relay_server() {
    every_case(Row::new(Kind::Relay, Channel::TCP, (Ours, Ours))).await;
}

const OTHER: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

/// A server with a public, a private, a wildcard and an unused rule; its tunnel port and its entrypoint.
fn server() -> (Proc, u16, u16) {
    server_with("")
}

fn server_with(metadata: &str) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: i, sniffing.timeout: 300ms, handshakeTimeout: 1s, http.headTimeout: 1s,
      sniffing.clientHelloTimeout: 1s{metadata} }}
ingresses:
- name: i
  rules:
  - {{ hostname: known.host, endpoint: {TUNNEL} }}
  - {{ hostname: '*.wild.host', endpoint: {TUNNEL} }}
  - {{ hostname: private.host, endpoint: ${TUNNEL} }}
  - {{ hostname: empty.host, endpoint: {OTHER} }}
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

fn client(port: u16, tunnel: &str, weight: u8, target: u16) -> Proc {
    client_with(port, &format!("tunnel.id: {tunnel}, tunnel.weight: {weight}"), target)
}

fn client_with(port: u16, metadata: &str, target: u16) -> Proc {
    client_handling("", port, metadata, target)
}

/// `handling`: more metadata of its handler.
fn client_handling(handling: &str, port: u16, metadata: &str, target: u16) -> Proc {
    let client = Ours.start(&format!(
        "services:
- name: service-0
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true, sniffing.timeout: 300ms{handling} }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops:
  - nodes:
    - name: server
      addr: 127.0.0.1:{port}
      connector: {{ type: tunnel, metadata: {{ {metadata} }} }}
"
    ));
    client.wait_for(&["connected", "connector="]);
    client
}

fn status(visit: u16, host: &str) -> u16 {
    curl(host, visit, "/", &[]).0
}

#[tokio::test(flavor = "multi_thread")]
async fn only_registered_public_hosts_are_reached() {
    let web = backend::http("web").await;
    let (server, port, visit) = server();
    assert_eq!(status(visit, "known.host"), 503);
    let _client = client(port, TUNNEL, 0, web);
    let _stranger = client(port, "11111111-2222-4333-8444-555555555555", 255, web);
    for (host, expected) in [
        ("known.host", 200),
        ("KNOWN.host", 200),
        ("a.b.wild.host", 200),
        ("wild.host", 200),
        ("badwild.host", 502),
        ("private.host", 502),
        ("unknown.host", 502),
        ("empty.host", 503),
    ] {
        assert_eq!(status(visit, host), expected, "{host}");
    }
    // A client-supplied address does not become the source (weak point 12).
    curl("known.host", visit, "/", &["-H", "X-Forwarded-For: 9.8.7.6", "-H", "CF-Connecting-IP: 9.8.7.6"]);
    assert!(!server.log().contains("9.8.7.6"));
}

/// Weak points 2, 3 and 6: what an anonymous visitor can send neither reaches a private tunnel nor harms a connector.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_harm_a_connector() {
    let web = backend::http("web").await;
    let (server, port, visit) = server();
    let client = client(port, TUNNEL, 0, web);
    let id = TUNNEL.replace('-', "");
    let relay = |addrs: &str| {
        let features = format!("{addrs}030014{id}00000000");
        let text = format!("0101{:04x}{features}", features.len() / 2);
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect::<Vec<_>>()
    };
    let one = relay("020007017f0000010001");
    // The address private.host:80.
    let two = relay("020007017f0000010001020010030c707269766174652e686f73740050");
    for bytes in [&one, &two] {
        let (reply, closed) = exchange(visit, bytes);
        assert!(reply.is_empty() && closed, "{reply:?}");
    }
    // At the tunnel port a single address is refused, and knowing the ID is what a private tunnel asks for.
    assert_eq!(exchange(port, &one).0, "\u{1}\u{6}\0\0");
    let mut visitor = connect(port);
    visitor.write_all(&two).unwrap();
    visitor.write_all(b"GET /p HTTP/1.1\r\nHost: private.host\r\nConnection: close\r\n\r\n").unwrap();
    let reply = read_all(&mut visitor).0;
    assert!(reply.starts_with("\u{1}\0\0\0HTTP/1.1 200 ") && reply.contains("/p GET"), "{reply:?}");
    for bytes in [
        &b"\x16\x03\x01\x00\xff"[..],
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"SSH-2.0-x\r\n",
        b"\xff\xfe",
        b"\x02\x01\x00\x00",
        b"GET / HT",
    ] {
        let (reply, closed) = exchange(visit, bytes);
        assert!(closed && (reply.is_empty() || reply.starts_with("HTTP/1.1 408 ")), "{bytes:?}: {reply}");
    }
    let (reply, closed) = exchange(port, &[1, 2, 0]);
    assert!(reply.is_empty() && closed, "{reply:?}");
    assert_eq!(status(visit, "known.host"), 200);
    assert!(!client.log().contains("disconnected") && !server.log().contains("connector down"));
}

/// Weak point 14: a connector that hangs, or dies, costs a try elsewhere and no request.
#[tokio::test(flavor = "multi_thread")]
async fn a_hung_or_dead_connector_costs_no_request() {
    let (a, b) = (backend::http("a").await, backend::http("b").await);
    let (_server, port, visit) = server();
    let first = client(port, TUNNEL, 1, a);
    let mut second = client(port, TUNNEL, 3, b);
    let answers = |count| (0..count).map(|_| curl("known.host", visit, "/", &[])).collect::<Vec<_>>();
    let share = answers(100).iter().filter(|(_, body)| body.starts_with("b ")).count();
    assert!((55..95).contains(&share), "{share} of 100 with weights 1 and 3");
    second.signal("STOP");
    assert!(answers(10).iter().all(|(status, body)| *status == 200 && body.starts_with("a ")));
    second.signal("CONT");
    second.signal("KILL");
    second.wait();
    assert!(answers(10).iter().all(|(status, _)| *status == 200));
    drop(first);
    eventually("503 without connectors", || (status(visit, "known.host") == 503).then_some(()));
}

/// Weak point 14, for each way to a connector: requests and TLS at the entrypoint, visitors of the tunnel port; with either mux.
#[test]
fn every_visitor_passes_over_a_hung_connector() {
    let (lively, hung) = (scripted("lively"), scripted("hung"));
    for mux in ["", ", mux.type: yamux"] {
        let (server, port, visit) = server_with(mux);
        let _lively = client_with(port, &format!("tunnel.id: {TUNNEL}{mux}"), lively);
        let request =
            b"POST / HTTP/1.1\r\nHost: known.host\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
        let ways: [(&str, &dyn Fn() -> String); 3] = [
            ("http", &|| exchange(visit, request).0),
            ("tls", &|| exchange(visit, &relay::client_hello(b"known.host")).0),
            ("private", &|| {
                let (mut visitor, status) = relay::ask(port, relay::CONNECT, "known.host", false);
                assert_eq!(status, 0);
                visitor.write_all(b"first").unwrap();
                read_all(&mut visitor).0
            }),
        ];
        for (way, ask) in ways {
            // While it lives it gets all the traffic.
            let metadata = format!("tunnel.id: {TUNNEL}, tunnel.weight: 255{mux}");
            let hung = client_with(port, &metadata, hung);
            assert!(ask().ends_with("hung"), "{way}{mux}");
            hung.signal("STOP");
            assert!(ask().ends_with("lively"), "{way}{mux}");
        }
        let passed = || server.log().matches("connector passed over").count();
        eventually("each was passed over", || (passed() == 3).then_some(()));
    }
}

/// A stream that has answered before tells nothing of its being read; its visitor is not left to the connector all the same, and
/// later visitors do not come to it.
#[tokio::test(flavor = "multi_thread")]
async fn kept_visitors_leave_a_hung_connector() {
    let (a, b) = (backend::http("a").await, backend::http("b").await);
    let (server, port, visit) = server_with(", entrypoint.keepalive: true");
    let client = |weight, target| {
        let metadata = format!("tunnel.id: {TUNNEL}, tunnel.weight: {weight}");
        client_handling(", http.keepalive: true", port, &metadata, target)
    };
    let hung = client(255, a);
    let mut visitors: Vec<_> = (0..3).map(|_| connect(visit)).collect();
    for visitor in &mut visitors {
        ask_again(visitor);
        assert!(reply_of(visitor).starts_with("a "));
    }
    let _lively = client(1, b);
    hung.signal("STOP");
    visitors.iter_mut().for_each(ask_again);
    for visitor in &mut visitors {
        assert!(reply_of(visitor).starts_with("b "));
    }
    assert!(server.log().contains("connector passed over"));
    // Once it is heard of again, it has the traffic again.
    hung.signal("CONT");
    eventually("the first is back", || curl("known.host", visit, "/", &[]).1.starts_with("a ").then_some(()));
}

fn ask_again(visitor: &mut TcpStream) {
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: known.host\r\n\r\n").unwrap();
}

/// The body of a reply that says how long it is.
fn reply_of(visitor: &mut TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        visitor.read_exact(&mut byte).unwrap();
        head.push(char::from(byte[0]));
    }
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap()];
    visitor.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// What a hung connector finds when it wakes was given to another in the meantime: it is not done a second time.
#[test]
fn a_connector_that_wakes_does_not_repeat_what_others_have_done() {
    let (posts, asked) = counted("hung");
    let (_server, port, visit) = server();
    let hung = client_with(port, &format!("tunnel.id: {TUNNEL}, tunnel.weight: 255"), asked);
    let _lively = client(port, TUNNEL, 1, scripted("lively"));
    let post = b"POST / HTTP/1.1\r\nHost: known.host\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    assert!(exchange(visit, post).0.ends_with("hung"));
    hung.signal("STOP");
    assert!(exchange(visit, post).0.ends_with("lively"));
    hung.signal("CONT");
    let get = b"GET / HTTP/1.1\r\nHost: known.host\r\nConnection: close\r\n\r\n";
    eventually("it has read all that waited", || exchange(visit, get).0.ends_with("hung").then_some(()));
    assert_eq!(posts.load(Ordering::Relaxed), 1);
}

/// Like [`scripted`]; counts its POST requests.
fn counted(name: &'static str) -> (Arc<AtomicUsize>, u16) {
    let posts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&posts);
    let count = move |request: &[u8]| {
        if request.starts_with(b"POST ") {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    };
    (posts, answering(name, count))
}

/// A client that stops takes no new streams while it finishes its last: they go elsewhere, with their bodies.
#[test]
fn a_client_that_drains_costs_no_request() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_server, port, visit) = server();
    // While it lives it is always tried first.
    let mut leaving = client(port, TUNNEL, 255, held.local_addr().unwrap().port());
    let mut slow = connect(visit);
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: known.host\r\nConnection: close\r\n\r\n").unwrap();
    let (mut target, _) = held.accept().unwrap();
    let _staying = client(port, TUNNEL, 1, scripted("staying"));
    leaving.signal("TERM");
    leaving.wait_for(&["stopping"]);
    let request = b"POST / HTTP/1.1\r\nHost: known.host\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    for _ in 0..20 {
        let reply = exchange(visit, request).0;
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("staying"), "{reply}");
    }
    target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").unwrap();
    assert!(read_all(&mut slow).0.ends_with("slow"));
    assert_eq!(leaving.wait(), Some(0));
}

/// Weak points 4 and 5: a silent visitor or target holds up nobody else; weak point 10: a half-close loses nothing.
#[test]
fn one_slow_stream_does_not_hold_up_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut got = Vec::new();
                // Answers when the visitor has ended its side, at the latest when the connection is cut.
                drop(stream.read_to_end(&mut got));
                drop(stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{}", got.len()).as_bytes()));
            });
        }
    });
    let web = scripted("ok");
    let (_server, port, visit) = server();
    let client = client(port, TUNNEL, 0, web);
    let mut silent: Vec<_> = (0..20).map(|_| connect(visit)).collect();
    for stream in &mut silent {
        stream.write_all(b"GE").unwrap();
    }
    assert_eq!(status(visit, "known.host"), 200);
    assert!(!client.log().contains("disconnected"));
    let relay = raw_tunnel(target);
    let mut visitor = connect(relay.1);
    visitor.write_all(&vec![0x80; 3 << 20]).unwrap();
    visitor.shutdown(std::net::Shutdown::Write).unwrap();
    visitor.set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
    let mut got = Vec::new();
    // smux has no half-close: the target never learns of the end, but the connection stands until it answers.
    assert!(visitor.read_to_end(&mut got).is_err() && got.is_empty());
}

/// A target that answers every connection's first bytes at once, and ends.
fn scripted(name: &'static str) -> u16 {
    answering(name, |_| {})
}

/// The same, which looks at each request first.
fn answering(name: &'static str, look: impl Fn(&[u8]) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let look = look.clone();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let n = stream.read(&mut request).unwrap_or(0);
                look(&request[..n]);
                let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                drop(stream.write_all(reply.as_bytes()));
            });
        }
    });
    port
}

/// A relay server and its client in one process, without sniffing; the port that the server opened.
fn raw_tunnel(target: u16) -> (Proc, u16) {
    let (port, visit) = (free_port(), free_port());
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ bind: true }} }}
- addr: 127.0.0.1:{visit}
  handler: {{ type: rtcp }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: relay }} }}] }}]
"
    ));
    process.wait_for(&["connected"]);
    (process, visit)
}
