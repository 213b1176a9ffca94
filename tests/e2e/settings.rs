//! Each time-out and each bound is observed to hold when it is set, and the log or the answer names it. Those of the weak
//! points are in `weak_points`: `sniffing.*`, `http.headTimeout`, `http.idleTimeout`, `handshakeTimeout`, `readTimeout`,
//! `entrypoint.readTimeout`, `maxConnections`, `maxHandshakes`, `tunnel.maxConnectors`; the defaults in `integration`.

use crate::support::matrix::TUNNEL;
use crate::support::relay::{self, FIN, NOP, PSH, Peer, SYN, UPD};
use crate::support::{Proc, Program::Ours, connect, eventually, exchange, free_port, read_all};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// A proxy with one node for everything.
fn proxy(target: u16, metadata: &str) -> (Proc, u16) {
    let port = free_port();
    let proxy = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ {metadata} }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
"
    ));
    // A connection made to see whether the port is open would be the first to reach the target.
    proxy.wait_for(&["listening"]);
    (proxy, port)
}

fn tunnel_server(metadata: &str) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'known.host:{TUNNEL}', {metadata} }} }}
"
    ));
    server.wait_for(&["listening", "role=\"service\""]);
    (server, port, visit)
}

fn client(port: u16, target: u16, mux: &str) -> Proc {
    Ours.start(&format!(
        "services:
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL}, {mux} }} }} }}] }}]
"
    ))
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: known.host\r\n\r\n";

#[test]
fn a_raw_connection_that_is_silent_ends() {
    let (target, to) = listener();
    for (metadata, hello) in
        [("idleTimeout: 1s", &b"raw"[..]), ("idleTimeout: 1s, sniffing: true", &relay::client_hello(b"h"))]
    {
        let (proxy, port) = proxy(to, metadata);
        let mut visitor = connect(port);
        visitor.write_all(hello).unwrap();
        let (mut accepted, _) = target.accept().unwrap();
        accepted.write_all(b"hello").unwrap();
        let (got, closed) = read_all(&mut visitor);
        assert!(closed && got == "hello", "{got:?}, closed: {closed}");
        proxy.wait_for(&["idle_timeout", "(idleTimeout)", "bytes_out=5"]);
    }
}

#[test]
fn a_half_closed_connection_that_is_silent_ends() {
    let (target, to) = listener();
    let (proxy, port) = proxy(to, "halfCloseTimeout: 300ms");
    let mut visitor = connect(port);
    visitor.write_all(b"end").unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    let (_held, _) = target.accept().unwrap();
    assert_eq!(read_all(&mut visitor), (String::new(), true));
    proxy.wait_for(&["half_close_timeout", "(halfCloseTimeout)", "bytes_in=3"]);
}

#[test]
fn a_reply_that_makes_no_progress_is_cut() {
    let (target, to) = listener();
    let (proxy, port) = proxy(to, "sniffing: true, http.stallTimeout: 300ms");
    let mut visitor = connect(port);
    visitor.write_all(GET).unwrap();
    let (mut accepted, _) = target.accept().unwrap();
    accepted.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    let mut got = Vec::new();
    // Cut short: a reset, for an orderly end would say that this was all.
    assert!(visitor.read_to_end(&mut got).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    assert!(got.is_empty() || got.ends_with(b"half"));
    proxy.wait_for(&["outcome=\"stalled\"", "http.stallTimeout"]);
}

#[test]
fn a_request_body_that_makes_no_progress_is_refused() {
    let (_target, to) = listener();
    let (proxy, port) = proxy(to, "sniffing: true, http.stallTimeout: 300ms");
    let (reply, closed) = exchange(port, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    assert!(reply.starts_with("HTTP/1.1 408 ") && closed, "{reply}");
    proxy.wait_for(&["408", "http.stallTimeout"]);
}

/// A listener that nobody accepts from, its queue full: further connections are not answered.
#[test]
fn a_target_that_does_not_answer_is_given_up() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let to = socket.local_addr().unwrap().as_socket().unwrap();
    let _full: Vec<_> = (0..4)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            drop(filler.connect(&to.into()));
            filler
        })
        .collect();
    let (proxy, port) = proxy(to.port(), "sniffing: true, connectTimeout: 300ms");
    let (reply, _) = exchange(port, GET);
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    proxy.wait_for(&["upstream_down", "connectTimeout"]);
}

#[test]
fn heads_have_the_size_that_is_allowed() {
    let (_target, to) = listener();
    let (proxy, port) =
        proxy(to, "sniffing: true, http.maxHeadSize: 2048, http.maxHeadFields: 20, readTimeout: 200ms");
    let head = |fields: String| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let answer = |fields: String| exchange(port, head(fields).as_bytes()).0;
    assert!(answer(format!("X: {}\r\n", "x".repeat(1900))).starts_with("HTTP/1.1 504 "));
    assert!(answer(format!("X: {}\r\n", "x".repeat(2100))).starts_with("HTTP/1.1 431 "));
    assert!(answer("X: x\r\n".repeat(19)).starts_with("HTTP/1.1 504 "));
    assert!(answer("X: x\r\n".repeat(20)).starts_with("HTTP/1.1 431 "));
    proxy.wait_for(&["431", "http.maxHeadSize"]);
    proxy.wait_for(&["431", "http.maxHeadFields"]);
}

#[test]
fn streams_of_a_connector_are_bounded() {
    let (server, port, visit) = tunnel_server("mux.maxStreams: 2");
    let mut connector = Peer::connector(port, false);
    let mut held = [connect(visit), connect(visit)];
    for visitor in &mut held {
        visitor.write_all(GET).unwrap();
        connector.accept(b"\r\n\r\n");
    }
    let (reply, _) = exchange(visit, GET);
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    server.wait_for(&["no_connector", "mux.maxStreams"]);
}

#[test]
fn frames_have_the_size_that_is_allowed() {
    let (_server, port, visit) = tunnel_server("mux.maxFrameSize: 1000");
    let mut connector = Peer::connector(port, false);
    let mut visitor = connect(visit);
    visitor.write_all(b"POST / HTTP/1.1\r\nHost: known.host\r\nContent-Length: 50000\r\n\r\n").unwrap();
    visitor.write_all(&[b'x'; 50_000]).unwrap();
    let (mut got, mut largest) = (0, 0);
    while got < 50_000 {
        if let (PSH, _, payload) = connector.next().unwrap() {
            got += payload.len();
            largest = largest.max(payload.len());
        }
    }
    assert_eq!(largest, 1000);
}

/// With `mux.keepaliveDisabled` nothing is sent on an idle session; without it a NOP comes at every interval.
#[test]
fn keepalive_is_as_configured() {
    let commands = |metadata: &str| {
        let (_server, port, visit) = tunnel_server(metadata);
        let mut connector = Peer::connector(port, false);
        // The pause in which a NOP is due: as long as an unanswered HTTP head lasts.
        let mut watch = connect(visit);
        watch.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        assert!(read_all(&mut watch).0.starts_with("HTTP/1.1 408 "));
        let mut visitor = connect(visit);
        visitor.write_all(GET).unwrap();
        let mut seen = Vec::new();
        loop {
            let mut head = [0; 8];
            connector.0.read_exact(&mut head).unwrap();
            seen.push(head[1]);
            if head[1] == SYN {
                return seen;
            }
        }
    };
    let nops = commands("mux.keepaliveInterval: 100ms, http.headTimeout: 700ms");
    assert!(nops.len() > 2 && nops[0] == NOP, "{nops:?}");
    let none = commands("mux.keepaliveInterval: 100ms, mux.keepaliveDisabled: true, http.headTimeout: 700ms");
    assert_eq!(none, [SYN]);
}

#[test]
fn a_stopped_server_is_noticed_by_its_client() {
    let (server, port, _) = tunnel_server("mux.keepaliveInterval: 100ms");
    let client = client(port, 1, "mux.keepaliveTimeout: 600ms");
    client.wait_for(&["connected"]);
    server.signal("STOP");
    client.wait_for(&["disconnected", "mux.keepaliveTimeout"]);
    server.signal("CONT");
    eventually("the client is back", || (client.log().matches("connected ").count() > 1).then_some(()));
}

#[test]
fn a_stopped_client_is_dropped_by_its_server() {
    let (server, port, _) = tunnel_server("mux.keepaliveTimeout: 600ms");
    let client = client(port, 1, "mux.keepaliveInterval: 100ms");
    server.wait_for(&["connector up"]);
    client.signal("STOP");
    server.wait_for(&["connector down", "mux.keepaliveTimeout"]);
    client.signal("CONT");
    eventually("the client is back", || (server.log().matches("connector up").count() > 1).then_some(()));
}

#[test]
fn a_connector_that_gives_no_sign_is_passed_over() {
    let (server, port, visit) = tunnel_server("tunnel.silence: 200ms");
    let _silent = Peer::connector(port, false);
    let mut lively = Peer::connector(port, false);
    let answers = std::thread::spawn(move || {
        loop {
            let (stream, _) = lively.accept(b"\r\n\r\n");
            lively.send(UPD, stream, &[1, 0, 0, 0, 0, 0, 16, 0]).unwrap();
            lively.send(PSH, stream, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            lively.send(FIN, stream, b"").unwrap();
        }
    });
    eventually("the silent one has been asked first", || {
        let mut visitor: TcpStream = connect(visit);
        visitor.write_all(GET).unwrap();
        assert!(read_all(&mut visitor).0.starts_with("HTTP/1.1 204 "));
        server.log().contains("tunnel.silence").then_some(())
    });
    assert!(!answers.is_finished());
}
