//! Weak points 7, 19 and 22: memory, connections and descriptors.

use super::{get, server};
use crate::support::relay::{self, BIND};
use crate::support::{
    Proc, Program::Ours, backend, connect, eventually, exchange, free_port, read_all, wait_for_port,
};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Weak point 7: 200 MiB of header, in one line and in many, are refused early and cost no memory.
#[test]
fn a_head_without_end_costs_no_memory() {
    const TOTAL: usize = 200 << 20;
    let (server, _, visit) = server("");
    exchange(visit, &get("/", "known.host"));
    let before = server.resident();
    let lines = b"X-Field: 0123456789abcdef\r\n".repeat(1 << 12);
    for piece in [vec![b'x'; 1 << 16], lines] {
        let mut visitor = connect(visit);
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: known.host\r\nX: ").unwrap();
        let sent = (0..TOTAL / piece.len()).take_while(|_| visitor.write_all(&piece).is_ok()).count();
        assert!(sent * piece.len() < TOTAL / 10, "{sent} pieces were taken");
        let grown = server.resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes more");
    }
    server.wait_for(&["431", "http.maxHead"]);
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0)) || stream.take_error().unwrap().is_some()
}

/// Weak point 19: entrypoints have the bounds of their service.
#[test]
fn connections_of_an_entrypoint_are_bounded() {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', sniffing.timeout: 20s }} }}
  metadata: {{ maxConnections: 3, maxHandshakes: 2 }}
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    let silent = [connect(visit), connect(visit)];
    assert!(is_closed(&mut connect(visit)));
    server.wait_for(&["maxHandshakes"]);
    let mut talking = silent.map(|mut visitor| {
        // An unknown host: the answer shows that the request was read, and the connection stays.
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: no.host\r\n\r\n").unwrap();
        visitor.read_exact(&mut [0; 12]).unwrap();
        visitor
    });
    let _third = connect(visit);
    eventually("a connection too many is closed", || {
        is_closed(&mut connect(visit));
        server.log().contains("maxConnections").then_some(())
    });
    talking[0].write_all(b"GET / HTTP/1.1\r\nHost: no.host\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_all(&mut talking[0]).0.contains("HTTP/1.1 502 "));
    eventually("there is room again", || {
        let mut visitor = connect(visit);
        visitor.write_all(&get("/", "no.host")).ok()?;
        read_all(&mut visitor).0.starts_with("HTTP/1.1 502 ").then_some(())
    });
}

/// Weak point 19: so have ports that clients open by BIND.
#[test]
fn connections_of_an_opened_port_are_bounded() {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ bind: true }} }}
  metadata: {{ maxConnections: 2 }}
"
    ));
    wait_for_port(port);
    let mut client = connect(port);
    let request = relay::message(BIND, &[relay::network(false), relay::loopback(visit)]);
    client.write_all(&request).unwrap();
    assert_eq!(relay::read_message(&mut client).unwrap().0, 0);
    let _held = [connect(visit), connect(visit)];
    eventually("a visitor too many is closed", || {
        is_closed(&mut connect(visit));
        server.log().contains("maxConnections").then_some(())
    });
}

fn proxy(target: u16) -> (Proc, u16) {
    let port = free_port();
    let proxy = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
"
    ));
    wait_for_port(port);
    (proxy, port)
}

/// Weak point 22: after 500 one-shot requests no upstream socket waits to be closed.
#[tokio::test(flavor = "multi_thread")]
async fn one_shot_requests_leave_no_socket_half_closed() {
    let (proxy, port) = proxy(backend::http("web").await);
    exchange(port, &get("/", "h"));
    let before = proxy.descriptors();
    for _ in 0..500 {
        assert!(exchange(port, &get("/", "h")).0.starts_with("HTTP/1.1 200 "));
    }
    eventually("no socket is left", || {
        (proxy.close_wait() == 0 && proxy.descriptors() <= before).then_some(())
    });
}
