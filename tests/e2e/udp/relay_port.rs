//! A UDP port that a relay server opens, its client written byte by byte.

use crate::support::Program::Ours;
use crate::support::relay::{BIND, CONNECT, UDP, loopback, message, network, read_message};
use crate::support::udp::{Resolver, free_udp_port, name_server};
use crate::support::{PATIENCE, Proc, connect, eventually, free_port};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};

fn relay(metadata: &str, more: &str) -> (Proc, u16) {
    let port = free_port();
    let relay = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ {metadata} }} }}
  listener: {{ type: tcp }}
{more}"
    ));
    relay.wait_for(&["listening"]);
    (relay, port)
}

/// Asks for a UDP port; the connection, the status, and the port that was opened.
fn bind(relay: u16, port: u16) -> (TcpStream, u8, u16) {
    let mut stream = connect(relay);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&message(BIND | UDP, &[network(true), loopback(port)])).unwrap();
    let (status, features) = read_message(&mut stream).unwrap();
    let port = features.last_chunk().map_or(0, |port| u16::from_be_bytes(*port));
    (stream, status, port)
}

/// A datagram in form B to or from a loopback port.
fn framed(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[..], &[0xff, 1, 127, 0, 0, 1], &port.to_be_bytes(), payload].concat()
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

fn peer(to: u16) -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(("127.0.0.1", to)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 70_000];
    let len = socket.recv(&mut buf).unwrap();
    buf.truncate(len);
    buf
}

#[test]
fn datagrams_name_their_peers_and_go_where_they_say() {
    let (relay, at) = relay("bind: true, ttl: 1s", "");
    let (mut client, status, port) = bind(at, 0);
    assert_eq!(status, 0);
    let (one, one_port) = peer(port);
    let (other, other_port) = peer(port);
    one.send(b"from one").unwrap();
    expect(&mut client, &framed(one_port, b"from one"));
    let large = vec![7; 60_000];
    other.send(&large).unwrap();
    expect(&mut client, &framed(other_port, &large));
    client.write_all(&[framed(other_port, b"to the other"), framed(one_port, &large)].concat()).unwrap();
    assert_eq!(heard(&other), b"to the other");
    assert_eq!(heard(&one), large);
    // A name, and a peer that has said nothing: an association.
    let (third, third_port) = peer(port);
    let name = [&b"\0\x02\xff\x03\x09localhost"[..], &third_port.to_be_bytes(), b"hi"].concat();
    client.write_all(&name).unwrap();
    assert_eq!(heard(&third), b"hi");
    for port in [one_port, other_port, third_port] {
        relay.wait_for(&["connection", &format!("client=127.0.0.1:{port}"), "outcome=\"ok\""]);
    }
    // The port goes with its client.
    drop(client);
    relay.wait_for(&["port closed"]);
    drop(UdpSocket::bind(("127.0.0.1", port)).unwrap());
}

#[test]
fn what_a_client_may_not_is_refused() {
    let (_closed, at) = relay("", "");
    assert_eq!(bind(at, 0).1, 3, "without bind: true");
    let (relay, at) = relay("bind: true", "");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(bind(at, taken.local_addr().unwrap().port()).1, 5, "a taken port");
    let (mut client, _, port) = bind(at, 0);
    client.write_all(b"\0\x01\0\x01\x7f\0\0\x01\0\x01x").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "a fragment");
    relay.wait_for(&["port closed", &port.to_string()]);
}

/// Where a forwarder chooses the targets, a client reaches no others by way of its port.
#[test]
fn a_relay_with_a_forwarder_answers_only_who_has_asked() {
    let nodes = format!("  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{}' }}] }}\n", name_server(1));
    let (_relay, at) = relay("bind: true", &nodes);
    let (mut client, _, port) = bind(at, 0);
    let (stranger, stranger_port) = peer(port);
    let (one, one_port) = peer(port);
    one.send(b"hello").unwrap();
    expect(&mut client, &framed(one_port, b"hello"));
    client
        .write_all(&[framed(stranger_port, b"nobody asked"), framed(one_port, b"answer")].concat())
        .unwrap();
    assert_eq!(heard(&one), b"answer");
    stranger.set_nonblocking(true).unwrap();
    assert_eq!(stranger.recv(&mut [0; 100]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn no_more_peers_than_there_may_be() {
    let (relay, at) = relay("bind: true, ttl: 500ms", "  metadata: { maxConnections: 2 }\n");
    let (mut client, _, port) = bind(at, 0);
    let peers = [peer(port), peer(port), peer(port)];
    for (socket, port) in &peers[..2] {
        socket.send(b"x").unwrap();
        expect(&mut client, &framed(*port, b"x"));
    }
    peers[2].0.send(b"lost").unwrap();
    relay.wait_for(&["maxConnections reached"]);
    client.set_nonblocking(true).unwrap();
    // There is room again when the others have been silent for their time.
    let got = eventually("a third peer gets in", || {
        peers[2].0.send(b"y").unwrap();
        let mut got = [0; 100];
        client.read(&mut got).ok().map(|len| got[..len].to_vec())
    });
    assert!(got.starts_with(&framed(peers[2].1, b"y")), "{got:02x?}");
}

/// Either of the flag and the Network feature says it (section 1.3), and there is an answer at once.
#[test]
fn a_relay_connects_on_to_a_name_server() {
    let (_relay, at) = relay("", "");
    let target = name_server(8);
    for (command, features) in
        [(CONNECT | UDP, vec![loopback(target)]), (CONNECT, vec![network(true), loopback(target)])]
    {
        let mut stream = connect(at);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&message(command, &features)).unwrap();
        assert_eq!(read_message(&mut stream).unwrap().0, 0);
        stream.write_all(b"\0\x11\x01\x02\0\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01").unwrap();
        let mut answer = [0; 2 + 17 + 16];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!((&answer[..4], answer[34]), (&b"\0\x21\x01\x02"[..], 8));
    }
    // And through a port of our own.
    let visit = free_udp_port();
    let forward = Ours.start(&format!(
        "services:
- {{ addr: '127.0.0.1:{visit}', listener: {{ type: udp }}, handler: {{ type: udp }}, forwarder: {{ nodes: [{{ addr: 'localhost:{target}' }}] }} }}
"
    ));
    forward.wait_for(&["listening"]);
    assert_eq!(Resolver::new(visit).ask(0), 8);
}
