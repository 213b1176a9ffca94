//! Data channels and PROXY headers in front of the whole program: what both ends say when something is wrong.

mod bad_input;
mod options;

use crate::support::matrix::TUNNEL;
use crate::support::{Proc, Program::Ours, connect, eventually, exchange, free_port, wait_for_port};
use std::io::{ErrorKind, Read, Write};
use std::net::UdpSocket;

/// A tunnel server with that `listener`.
fn server(listener: &str, more: &str) -> (Proc, u16, u16) {
    server_for(listener, "", more)
}

/// The same with more keys of its handler.
fn server_for(listener: &str, keys: &str, more: &str) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  listener: {listener}
  handler: {{ type: tunnel{keys}, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'known.host:{TUNNEL}'{more} }} }}
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

/// The chain to it; `auth` is more of the connector.
fn chain(port: u16, dialer: &str, auth: &str) -> String {
    format!(
        "chains:
- name: c
  hops:
  - nodes:
    - name: server
      addr: localhost:{port}
      connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }}{auth} }}
      dialer: {dialer}
"
    )
}

/// Its client with that `dialer`; the target is `whoami` on that port.
fn client(port: u16, dialer: &str, target: u16, more: &str) -> Proc {
    client_as("", port, dialer, target, more)
}

/// The same as somebody.
fn client_as(auth: &str, port: u16, dialer: &str, target: u16, more: &str) -> Proc {
    Ours.start(&format!(
        "services:
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true{more} }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
- addr: 127.0.0.1:{target}
  handler: {{ type: whoami }}
  metadata: {{ proxyProtocol: 1 }}
{}",
        chain(port, dialer, auth)
    ))
}

/// A client that has nothing but its way to the server; `listener`: more keys of its listener.
fn stranger(auth: &str, port: u16, dialer: &str, listener: &str) -> Proc {
    Ours.start(&stranger_by(&chain(port, dialer, auth), listener))
}

fn stranger_by(chain: &str, listener: &str) -> String {
    format!(
        "services:
- addr: :0
  handler: {{ type: rtcp }}
  listener: {{ type: rtcp, chain: c{listener} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:9' }}] }}
{chain}"
    )
}

/// A visitor is answered.
fn answers(visit: u16) {
    let (said, _) = exchange(visit, b"GET / HTTP/1.1\r\nHost: known.host\r\nConnection: close\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

/// Who a visitor was goes by two headers and a tunnel to a target that only the last header tells.
#[test]
fn a_visitor_is_known_by_proxy_headers_from_one_end_to_the_other() {
    let (server, port, visit) = server("{ type: wss }", ", entrypoint.ProxyProtocol: 1");
    let client = client(port, "{ type: wss }", free_port(), ", proxyProtocol: 2");
    server.wait_for(&["connector up"]);
    client.wait_for(&["IS NOT VERIFIED", "server"]);
    let request = "GET / HTTP/1.1\r\nHost: known.host\r\nConnection: close\r\n\r\n";
    let (said, _) =
        exchange(visit, format!("PROXY TCP4 192.0.2.7 192.0.2.8 4567 80\r\n{request}").as_bytes());
    assert!(said.contains("client: 192.0.2.7:4567"), "{said}");
    server.wait_for(&["client=192.0.2.7:4567", "outcome=\"ok\""]);
    let (said, _) = exchange(visit, request.as_bytes());
    assert!(said.contains("client: 127.0.0.1:"), "{said}");
    assert_eq!(exchange(visit, b"PROXY TCP4 nobody\r\n").0, "");
    server.wait_for(&["bad_proxy_header", "two addresses and two ports"]);
}

/// The fingerprint in the server's log is what its clients can be given.
#[test]
fn a_self_signed_certificate_can_be_pinned() {
    for kind in ["mtls", "quic"] {
        let (server, port, _) = server(&format!("{{ type: {kind} }}"), "");
        let line = server.wait_for(&["self-signed certificate", "fingerprint="]);
        let fingerprint = line.split("fingerprint=\"").nth(1).unwrap().split('"').next().unwrap();
        let dialer = format!("{{ type: {kind}, tls: {{ fingerprint: {fingerprint} }} }}");
        let client = client(port, &dialer, free_port(), "");
        server.wait_for(&["connector up"]);
        assert!(!client.log().contains("NOT VERIFIED"), "{}", client.log());
    }
}

/// A way into a port with TLS for what is no TLS: this does the handshake.
fn over_tls(port: u16) -> (Proc, u16) {
    let door = free_port();
    let proxy = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{door}
  handler: {{ type: tcp }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{port}', tls: {{ secure: false }} }}] }}
"
    ));
    proxy.wait_for(&["listening"]);
    (proxy, door)
}

/// A stranger that says nothing sensible ends alone, and leaves nothing behind.
#[test]
fn strangers_harm_no_channel() {
    for kind in ["tls", "mtls", "mtcp", "ws", "wss", "mws", "mwss", "h2", "h2c", "grpc"] {
        let channel = format!("{{ type: {kind}, metadata: {{ handshakeTimeout: 500ms }} }}");
        let (server, port, visit) = server(&channel, "");
        let _client = client(port, &channel, free_port(), "");
        server.wait_for(&["connector up"]);
        let (before, said) = (server.descriptors(), server.log().len());
        let garbage: &[&[u8]] = &[
            b"",
            b"\x16\x03\x01\x00\x05hello",
            b"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x02\x02\xff\xff\x03\x00\x00\x00nothing was opened",
            &[0xff; 70_000],
        ];
        // Those with TLS meet it behind a good handshake as well.
        let inside = matches!(kind, "tls" | "mtls" | "wss" | "mwss" | "h2" | "grpc").then(|| over_tls(port));
        let doors = [Some(port), inside.as_ref().map(|(_, port)| *port)];
        for (port, bytes) in
            doors.into_iter().flatten().flat_map(|port| garbage.iter().map(move |g| (port, *g)))
        {
            let mut stranger = connect(port);
            // It may be sent away before it has said everything.
            let _ = stranger.write_all(bytes);
            // The session of `mtcp` needs no handshake, nor that in `mtls`; what is a WebSocket or a stream has the handler's own time.
            let waits = matches!(kind, "mtcp" | "mws" | "ws")
                || inside.as_ref().is_some_and(|(_, inner)| *inner == port);
            if !waits || bytes.len() == 70_000 {
                let ended = stranger.read_to_end(&mut Vec::new());
                let waits = ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                assert!(!waits, "{kind}: {}", bytes[..bytes.len().min(40)].escape_ascii());
            }
        }
        let strangers = garbage.len() * if inside.is_some() { 2 } else { 1 };
        drop(inside);
        eventually(&format!("{kind}: nothing is left"), || (server.descriptors() <= before).then_some(()));
        eventually(&format!("{kind}: the log has a line for each of {strangers} strangers"), || {
            let log = server.log();
            let outcomes = ["\"bad_handshake\"", "\"handshake_timeout\""];
            let told =
                log[said..].lines().filter(|line| outcomes.iter().any(|outcome| line.contains(outcome)));
            (told.count() == strangers).then_some(())
        });
        answers(visit);
    }
}

/// Whoever may carry many streams has to have one of them let in: saying what it wants is not enough where passwords are asked for.
#[test]
fn a_wrong_password_holds_no_connection() {
    for kind in ["mtcp", "h2c", "quic"] {
        let (port, visit, target) = (free_port(), free_port(), free_port());
        let server = Ours.start(&format!(
            "services:
- addr: 127.0.0.1:{port}
  listener: {{ type: {kind}, metadata: {{ handshakeTimeout: 500ms }} }}
  handler: {{ type: relay, auth: {{ username: user, password: right }} }}
- {{ addr: '127.0.0.1:{target}', handler: {{ type: whoami }} }}
"
        ));
        server.wait_for(&["listening", &port.to_string()]);
        let visitors = |password| {
            Ours.start(&format!(
                "services:
- addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops:
  - nodes:
    - addr: 127.0.0.1:{port}
      connector: {{ type: relay, auth: {{ username: user, password: {password} }} }}
      dialer: {{ type: {kind} }}
"
            ))
        };
        for (password, status) in [("right", "HTTP/1.1 200 "), ("wrong", "")] {
            let _visitors = visitors(password);
            wait_for_port(visit);
            let (said, _) = exchange(visit, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            assert!(said.starts_with(status), "{kind}: {said}");
            if password == "wrong" {
                server.wait_for(&["handshake_timeout", "let in", "handshakeTimeout"]);
            }
        }
    }
}

/// Datagrams that are no QUIC, or none that goes on: they cost nothing, and whoever speaks it is served meanwhile.
#[test]
fn garbage_datagrams_harm_nobody() {
    let channel = "{ type: quic, metadata: { handshakeTimeout: 500ms } }";
    let (server, port, visit) = server(channel, "");
    let _client = client(port, channel, free_port(), "");
    server.wait_for(&["connector up"]);
    let before = server.descriptors();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut datagram = [0; 1200];
    for i in 0..20_000_usize {
        let len = [0, 1, 20, 1200][i % 4];
        fastrand::fill(&mut datagram);
        // In turn: noise, a long header of version 1, one of a version that there is not.
        if i % 3 > 0 {
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, u8::try_from(i % 3).unwrap()]);
        }
        // The kernel may have no room for it.
        let _ = stranger.send_to(&datagram[..len], ("127.0.0.1", port));
    }
    answers(visit);
    eventually("nothing is left", || (server.descriptors() <= before).then_some(()));
    assert!(!server.log().contains("connector down"), "{}", server.log());
}

/// One node is told who the visitor is, the other one is not; nor does anybody else learn of it.
#[test]
fn a_node_may_want_a_proxy_header_for_itself() {
    let (visit, told, untold) = (free_port(), free_port(), free_port());
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  metadata: {{ proxyProtocol: 1 }}
  forwarder:
    nodes:
    - {{ name: told, addr: '127.0.0.1:{told}', host: told.host, metadata: {{ proxyProtocol: 2 }} }}
    - {{ name: untold, addr: '127.0.0.1:{untold}', host: untold.host }}
- {{ addr: '127.0.0.1:{told}', handler: {{ type: whoami }}, metadata: {{ proxyProtocol: 1 }} }}
- {{ addr: '127.0.0.1:{untold}', handler: {{ type: whoami }}, metadata: {{ proxyProtocol: 1 }} }}
"
    ));
    wait_for_port(visit);
    let header = "PROXY TCP4 192.0.2.7 192.0.2.8 4567 80\r\n";
    for (host, client) in [("told.host", "client: 192.0.2.7:4567"), ("untold.host", "client: 127.0.0.1:")] {
        let request = format!("{header}GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (said, _) = exchange(visit, request.as_bytes());
        assert!(said.contains(client), "{host}: {said}");
    }
    drop(process);
}

/// In a chain the header comes before the data channel.
#[test]
fn a_node_of_a_chain_may_want_one_too() {
    let (visit, port, target) = (free_port(), free_port(), free_port());
    let relay = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  listener: {{ type: tls }}
  handler: {{ type: relay }}
  metadata: {{ proxyProtocol: 1 }}
- {{ addr: '127.0.0.1:{target}', handler: {{ type: whoami }} }}
"
    ));
    wait_for_port(port);
    for version in [1, 2] {
        let visitors = Ours.start(&format!(
            "services:
- addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: c }}
  metadata: {{ proxyProtocol: 1 }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops:
  - nodes:
    - addr: 127.0.0.1:{port}
      connector: {{ type: relay }}
      dialer: {{ type: tls }}
      metadata: {{ proxyProtocol: {version} }}
"
        ));
        wait_for_port(visit);
        let request = format!(
            "PROXY TCP4 192.0.2.{version} 192.0.2.8 4567 80\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        );
        let (said, _) = exchange(visit, request.as_bytes());
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        relay.wait_for(&[&format!("client=192.0.2.{version}:4567"), "outcome=\"ok\""]);
        drop(visitors);
    }
}
