//! SIGTERM and SIGINT: what is under way ends well, what is new is refused, and the grace period has an end.

use crate::support::matrix::TUNNEL;
use crate::support::{PATIENCE, Proc, Program::Ours, connect, free_port, now, read_all, wait_for_port};
use futures_util::{SinkExt, StreamExt};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// Server, client and a proxy in one process; the ports of entrypoint and proxy.
fn start(target: u16, grace: &str) -> (Proc, u16, u16) {
    let (port, visit, proxy) = (free_port(), free_port(), free_port());
    let node = format!("[{{ name: n, addr: '127.0.0.1:{target}' }}]");
    let process = Ours.start_with(
        &format!(
            "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: 'h:{TUNNEL}' }} }}
- addr: 127.0.0.1:{proxy}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: {node} }}
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: {node} }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
        ),
        &["--grace", grace],
        &[],
    );
    process.wait_for(&["connected"]);
    wait_for_port(proxy);
    (process, visit, proxy)
}

/// A request under way: the visitor's side and the target's.
fn under_way(target: &TcpListener, port: u16) -> (TcpStream, TcpStream) {
    let mut visitor = connect(port);
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let (mut accepted, _) = target.accept().unwrap();
    let mut head = [0; 27];
    accepted.read_exact(&mut head).unwrap();
    (visitor, accepted)
}

#[test]
fn requests_under_way_are_answered_and_connections_told_to_close() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut process, visit, proxy) = start(target.local_addr().unwrap().port(), "30s");
    let mut pairs = [under_way(&target, visit), under_way(&target, proxy)];
    // Idle connections do not hold the end up.
    let idle = [visit, proxy].map(|port| {
        let (mut visitor, mut accepted) = under_way(&target, port);
        accepted.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        visitor.read_exact(&mut [0; 27]).unwrap();
        visitor
    });
    process.signal("TERM");
    process.wait_for(&["stopping"]);
    for mut visitor in idle {
        assert_eq!(read_all(&mut visitor), (String::new(), true));
    }
    crate::support::eventually("new connections are refused", || {
        (TcpStream::connect(("127.0.0.1", proxy)).is_err()
            && TcpStream::connect(("127.0.0.1", visit)).is_err())
        .then_some(())
    });
    for (visitor, accepted) in &mut pairs {
        assert!(process.is_running());
        accepted.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
        let (reply, closed) = read_all(visitor);
        assert!(reply.contains("Connection: close\r\n") && reply.ends_with("done") && closed, "{reply}");
    }
    assert_eq!(process.wait(), Some(0));
    assert!(process.log().contains("stopped") && !process.log().contains("cut"), "{}", process.log());
}

#[test]
fn the_grace_period_ends() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut process, visit, _) = start(target.local_addr().unwrap().port(), "300ms");
    let (mut visitor, _accepted) = under_way(&target, visit);
    process.signal("INT");
    assert_eq!(process.wait(), Some(0));
    process.wait_for(&["grace period over"]);
    assert!(visitor.read(&mut [0]).is_ok_and(|n| n == 0) || visitor.read(&mut [0]).is_err());
}

#[test]
fn a_second_signal_ends_at_once() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut process, visit, _) = start(target.local_addr().unwrap().port(), "10m");
    let _pair = under_way(&target, visit);
    process.signal("TERM");
    process.wait_for(&["stopping"]);
    let asked = now();
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    assert!(asked.elapsed() < PATIENCE / 2);
    process.wait_for(&["second signal"]);
}

/// Every connection and request leaves its line, also when it is cut; tasks that serve no connection are not counted.
#[test]
fn what_is_cut_is_logged() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let mut process = Ours.start_with(
        &format!(
            "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{}' }}] }}
",
            target.local_addr().unwrap().port()
        ),
        &["--grace", "10m"],
        &[],
    );
    process.wait_for(&["listening"]);
    let mut raw = connect(port);
    raw.write_all(b"\xffraw").unwrap();
    let (mut accepted, _) = target.accept().unwrap();
    accepted.read_exact(&mut [0; 4]).unwrap();
    accepted.write_all(b"hello").unwrap();
    raw.read_exact(&mut [0; 5]).unwrap();
    let (visitor, _accepted) = under_way(&target, port);
    let (mut reader, mut replying) = under_way(&target, port);
    replying.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    reader.read_exact(&mut [0; 42]).unwrap();
    process.signal("TERM");
    process.wait_for(&["stopping", "connections=3"]);
    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    let client = |stream: &TcpStream| format!("client={}", stream.local_addr().unwrap());
    process.wait_for(&[" connection ", &client(&raw), "outcome=\"cut\"", "bytes_in=4 bytes_out=5"]);
    process.wait_for(&[" request ", &client(&visitor), "outcome=\"cut\"", "host=\"h\"", "node=\"n\""]);
    process.wait_for(&[
        " request ",
        &client(&reader),
        "outcome=\"cut\"",
        "status=200",
        "bytes_in=0 bytes_out=4",
    ]);
}

#[test]
fn without_connections_none_is_counted() {
    let process = Ours
        .start(&format!("services: [{{ addr: '127.0.0.1:{}', handler: {{ type: whoami }} }}]", free_port()));
    process.wait_for(&["listening"]);
    process.signal("TERM");
    process.wait_for(&["stopping", "connections=0"]);
}

/// A WebSocket goes on until its own end, through tunnel and proxy.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_gets_the_grace_period() {
    let target = crate::support::backend::websocket().await;
    let (mut process, visit, proxy) = start(target, "30s");
    let mut sockets = Vec::new();
    for port in [visit, proxy] {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        sockets.push(tokio_tungstenite::client_async("ws://h/", stream).await.unwrap().0);
    }
    process.signal("TERM");
    process.wait_for(&["stopping"]);
    for socket in &mut sockets {
        for _ in 0..3 {
            socket.send(Message::text("still here")).await.unwrap();
            let echo = tokio::time::timeout(Duration::from_secs(5), socket.next()).await.unwrap();
            assert_eq!(echo.unwrap().unwrap(), Message::text("still here"));
        }
        assert!(process.is_running());
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }
    drop(sockets);
    assert_eq!(tokio::task::block_in_place(|| process.wait()), Some(0));
}
