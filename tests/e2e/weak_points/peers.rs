//! What connectors and visitors of the tunnel port can do.

use super::{client, get, server, to};
use crate::support::matrix::TUNNEL;
use crate::support::relay::{self, BIND, CONNECT, FIN, PSH, Peer, SYN};
use crate::support::{backend, connect, eventually, exchange, free_port, read_all};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};

/// Weak point 1: as many connectors as the setting says, and whoever is turned away is named in the log.
#[test]
fn connectors_of_a_tunnel_are_bounded() {
    let (server, port, _) = server(", tunnel.maxConnectors: 2");
    let first = Peer::connector(port, false);
    let _second = Peer::connector(port, true);
    let (third, status) = relay::ask(port, BIND, "", false);
    assert_eq!(status, 5);
    let client = format!("client={}", third.local_addr().unwrap());
    server.wait_for(&["connector refused", TUNNEL, &client, "tunnel.maxConnectors"]);
    drop(first);
    eventually("the place is free again", || (relay::ask(port, BIND, "", false).1 == 0).then_some(()));
}

/// Weak point 3: a server name that no address can hold reaches no connector.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_name_with_a_port_harms_nobody() {
    let (server, port, visit) = server("");
    let client = client(port, &to(backend::http("web").await));
    for name in [&b"known.host:abc"[..], b"known.host:443", b"known.host\0", b"", &[b'a'; 300]] {
        let (reply, closed) = exchange(visit, &relay::client_hello(name));
        assert!(reply.is_empty() && closed, "{name:?}: {reply:?}");
    }
    assert!(exchange(visit, &get("/", "known.host")).0.starts_with("HTTP/1.1 200 "));
    assert!(!client.log().contains("disconnected") && !server.log().contains("connector down"));
}

/// Weak point 10: what comes after a visitor's half-close is not lost, and where the mux can, the half-close is passed on.
#[test]
fn a_half_close_loses_nothing() {
    const ANSWER: usize = 3 << 20;
    for (mux, wants_end) in [("", false), ("mux.type: yamux", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            if wants_end {
                stream.read_to_end(&mut question).unwrap();
            } else {
                question.resize(8, 0);
                stream.read_exact(&mut question).unwrap();
            }
            assert_eq!(question, b"question");
            stream.write_all(&backend::pattern(0, ANSWER)).unwrap();
        });
        let (port, visit) = (free_port(), free_port());
        let process = crate::support::Program::Ours.start(&format!(
            "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ bind: true, {mux} }} }}
- addr: 127.0.0.1:{visit}
  handler: {{ type: rtcp }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: relay, metadata: {{ {mux} }} }} }}] }}]
"
        ));
        process.wait_for(&["connected"]);
        let mut visitor = connect(visit);
        visitor.write_all(b"question").unwrap();
        visitor.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        visitor.read_to_end(&mut got).unwrap();
        assert!(got == backend::pattern(0, ANSWER), "{mux}: {} bytes", got.len());
    }
}

/// Weak point 15: a visitor meets only connectors of its own network, also where there is but one.
#[test]
fn udp_and_tcp_do_not_meet() {
    let (server, port, visit) = server("");
    let mut tcp = Peer::connector(port, false);
    assert_eq!(relay::ask(port, CONNECT, "known.host", true).1, 5);
    server.wait_for(&["no_connector", "known.host"]);
    let (mut visitor, status) = relay::ask(port, CONNECT, "known.host", false);
    assert_eq!(status, 0);
    visitor.write_all(b"over tcp").unwrap();
    tcp.accept(b"over tcp");
    drop(tcp);
    server.wait_for(&["connector down"]);
    let mut udp = Peer::connector(port, true);
    assert_eq!(relay::ask(port, CONNECT, "known.host", false).1, 5);
    assert!(exchange(visit, &get("/", "known.host")).0.starts_with("HTTP/1.1 503 "));
    let (mut visitor, status) = relay::ask(port, CONNECT, "known.host", true);
    assert_eq!(status, 0);
    visitor.write_all(b"over udp").unwrap();
    udp.accept(b"over udp");
}

/// Weak point 24: a connector that sends far more than its windows allow ends what it overfills, and once it has closed it is
/// never chosen again.
#[test]
fn a_connector_that_overfills_the_session_is_forgotten_when_it_closes() {
    let (server, port, visit) = server("");
    let mut flood = Peer::connector(port, false);
    let mut visitor = connect(visit);
    visitor.write_all(&get("/", "known.host")).unwrap();
    let (stream, _) = flood.accept(b"\r\n\r\n");
    flood.send(PSH, stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    // The visitor reads nothing. The window is 256 KiB and later 1 MiB; this is more than the session may hold.
    let data = [0; 32 * 1024];
    let sent = (0..4096).take_while(|_| flood.send(PSH, stream, &data).is_ok()).count();
    let memory = server.resident();
    assert!(memory < 150 << 20, "{memory} bytes resident after {sent} frames");
    drop(flood);
    server.wait_for(&["connector down"]);
    for _ in 0..5 {
        let reply = exchange(visit, &get("/", "known.host")).0;
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("no connector"), "{reply}");
    }
    let mut next = Peer::connector(port, false);
    let mut visitor = connect(visit);
    visitor.write_all(&get("/next", "known.host")).unwrap();
    let (stream, head) = next.accept(b"\r\n\r\n");
    assert!(String::from_utf8_lossy(&head).contains("GET /next "));
    next.send(PSH, stream, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert!(read_all(&mut visitor).0.starts_with("HTTP/1.1 204 "));
}

/// Weak points 5 and 6 at the client: a stream whose header does not come, or is none, ends alone and in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_header_ends_alone() {
    let web = backend::http("web").await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = crate::support::Program::Ours
        .start(&super::client_yaml(listener.local_addr().unwrap().port(), &to(web)));
    let (mut server, _) = listener.accept().unwrap();
    relay::read_message(&mut server).unwrap();
    let reply = relay::message(0, &[relay::name("endpoint", 0), relay::tunnel()]);
    server.write_all(&reply).unwrap();
    let mut session = Peer(server);
    let header = |status| relay::message(status, &[relay::loopback(1), relay::name("known.host", 80)]);
    for (id, first) in [(3, &b""[..]), (5, &[1, 0]), (7, &[2, 0, 0, 0]), (9, &header(5))] {
        session.send(SYN, id, b"").unwrap();
        session.send(PSH, id, first).unwrap();
    }
    session.send(SYN, 11, b"").unwrap();
    session.send(PSH, 11, &[header(0), get("/good", "known.host")].concat()).unwrap();
    let (mut ended, mut answer) = (Vec::new(), Vec::new());
    while ended.len() < 5 {
        match session.next().unwrap() {
            (FIN, id, _) => ended.push(id),
            (PSH, 11, payload) => answer.extend(payload),
            _ => {}
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, [3, 5, 7, 9, 11]);
    assert!(String::from_utf8_lossy(&answer).contains("web known.host /good GET"));
    assert!(!client.log().contains("disconnected"));
}
