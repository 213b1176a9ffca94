//! Weak point 6: every wait on a peer has a limit, and the log names the setting that raises it.

use super::{client_yaml, get, server, to};
use crate::support::{PATIENCE, Program::Ours, connect, free_port, now, read_all, relay, wait_for_port};
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn visitors_of_an_entrypoint_that_do_not_go_on() {
    let (server, _, visit) = server(
        ", sniffing.timeout: 300ms, http.headTimeout: 400ms, sniffing.clientHelloTimeout: 500ms, http.idleTimeout: 600ms",
    );
    let hello = relay::client_hello(b"known.host");
    for (bytes, reply, log) in [
        (&b""[..], "", "sniffing.timeout"),
        (b"GE", "", "sniffing.timeout"),
        (b"GET / HTTP/1.1\r\nHost: known.host\r\n", "HTTP/1.1 408 ", "http.headTimeout"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", "http.headTimeout"),
        (&hello[..20], "", "sniffing.clientHelloTimeout"),
    ] {
        let mut visitor = connect(visit);
        visitor.write_all(bytes).unwrap();
        let (got, closed) = read_all(&mut visitor);
        assert!(closed && got.starts_with(reply), "{bytes:?}: {got:?}, closed: {closed}");
        let client = format!("client={}", visitor.local_addr().unwrap());
        server.wait_for(&[&client, log]);
    }
    // Between two requests.
    let mut visitor = connect(visit);
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: known.host\r\n\r\n").unwrap();
    let (got, closed) = read_all(&mut visitor);
    assert!(closed && got.starts_with("HTTP/1.1 503 ") && !got.contains("Connection: close"), "{got}");
}

#[test]
fn clients_of_a_tunnel_port_that_do_not_go_on() {
    let (server, port, _) = server(", handshakeTimeout: 300ms");
    for bytes in [&b""[..], &[1], &[1, 2, 0, 20, 3]] {
        let mut client = connect(port);
        client.write_all(bytes).unwrap();
        let (got, closed) = read_all(&mut client);
        assert!(closed && got.is_empty(), "{got:?}");
        let client = format!("client={}", client.local_addr().unwrap());
        server.wait_for(&[&client, "handshakeTimeout"]);
    }
}

#[test]
fn a_server_that_does_not_answer_bind() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Ours.start(&client_yaml(listener.local_addr().unwrap().port(), &to(1)));
    // It gives up and comes again.
    let (first, _) = listener.accept().unwrap();
    let started = now();
    let (_second, _) = listener.accept().unwrap();
    assert!(started.elapsed() < PATIENCE / 2);
    client.wait_for(&["cannot connect", "handshakeTimeout"]);
    drop(first);
}

/// After the sniff time-out a server that speaks first is heard, and a visitor that is silent passes.
#[test]
fn a_silent_visitor_of_a_forwarder() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, to) = (free_port(), target.local_addr().unwrap().port());
    let _proxy = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, sniffing.timeout: 200ms }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{to}' }}] }}
"
    ));
    wait_for_port(port);
    let mut visitor = connect(port);
    let (mut accepted, _) = target.accept().unwrap();
    accepted.write_all(b"220 ready\r\n").unwrap();
    let mut banner = [0; 11];
    visitor.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
}

/// A target that accepts and never answers: `entrypoint.readTimeout` here, `readTimeout` there.
#[test]
fn a_silent_target() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = target.local_addr().unwrap().port();
    for (at_server, at_client, log) in [
        (", entrypoint.readTimeout: 400ms", "", "entrypoint.readTimeout"),
        ("", ", readTimeout: 400ms", "readTimeout"),
    ] {
        let (server, port, visit) = server(at_server);
        let client = super::client(
            port,
            &format!(
                "  handler: {{ type: rtcp, metadata: {{ sniffing: true{at_client} }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{silent}' }}] }}"
            ),
        );
        let mut visitor = connect(visit);
        visitor.write_all(&get("/", "known.host")).unwrap();
        let (reply, _) = read_all(&mut visitor);
        assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
        let who = if at_client.is_empty() { &server } else { &client };
        who.wait_for(&["upstream_silent", log]);
    }
}
