//! The recordings of UDP played to our ends: what they say is what the reference said, but for ports and IDs.

use crate::support::Program::Ours;
use crate::support::matrix::Channel;
use crate::support::relay::{FIN, PSH, Peer, SYN, UPD};
use crate::support::udp::{chain, client, visitor};
use crate::support::vectors::{capture, text};
use crate::support::{PATIENCE, eventually};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// Says after each datagram what it was, with `E:` in front, as the target of the recordings does.
fn target() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buf = [0; 100];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            socket.send_to(&[b"E:", &buf[..len]].concat(), from).unwrap();
        }
    });
    port
}

/// What a side of a recording says, in order.
fn said(number: &str, to_server: bool) -> Vec<Vec<u8>> {
    let reads = capture(&text(number));
    reads.into_iter().filter(|read| read.to_server == to_server).map(|read| read.bytes).collect()
}

fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let stream = eventually("somebody comes", || listener.accept().ok()).0;
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads as many bytes as are expected; `port` is where one stands that is its sender's.
fn expect(stream: &mut TcpStream, expected: &[u8], port: Option<usize>) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    let mut expected = expected.to_vec();
    if let Some(at) = port {
        expected[at..at + 2].copy_from_slice(&got[at..at + 2]);
    }
    assert_eq!(got, expected);
}

const ID: &str = "11111111-2222-4333-8444-555555555555";

fn tunnel() -> String {
    format!("{{ type: tunnel, metadata: {{ tunnel.id: {ID} }} }}")
}

/// Recording 07: length and payload of a datagram come in frames of their own.
#[test]
fn a_client_of_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let chain = chain(listener.local_addr().unwrap().port(), Channel::TCP, &tunnel());
    let _client = client(Ours, ":0", &chain, target());
    let mut stream = accept(&listener);
    let (client, server) = (said("07", true), said("07", false));
    expect(&mut stream, &client[0], Some(17));
    for bytes in &server[..5] {
        stream.write_all(bytes).unwrap();
    }
    let mut peer = Peer(stream);
    let answer = |peer: &mut Peer, expected: &[u8]| {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            match peer.next().unwrap() {
                (PSH, 3, payload) => got.extend(payload),
                (UPD, 3, _) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, expected);
    };
    answer(&mut peer, b"\0\x0aE:ping-one");
    peer.0.write_all(&server[5..].concat()).unwrap();
    answer(&mut peer, b"\0\x0aE:ping-two");
    // A stream that ends inside a datagram ends alone.
    peer.send(PSH, 3, b"\0\x09cut").unwrap();
    peer.send(FIN, 3, &[]).unwrap();
    peer.send(SYN, 5, &[]).unwrap();
    peer.send(PSH, 5, &[&server[2][8..], b"\0\x05again"].concat()).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\0\x07E:again") {
        if let (PSH, 5, payload) = peer.next().unwrap() {
            got.extend(payload);
        }
    }
}

/// Recording 08.
#[test]
fn a_visitor_of_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let chain = chain(listener.local_addr().unwrap().port(), Channel::TCP, &tunnel());
    let (process, visit) = visitor(Ours, &chain, "udp.local:53");
    process.wait_for(&["listening"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", visit)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(b"ping-one").unwrap();
    let mut stream = accept(&listener);
    let (client, server) = (said("08", true), said("08", false));
    let mut request = client[0].clone();
    let source = socket.local_addr().unwrap().port().to_be_bytes();
    request[17..19].copy_from_slice(&source);
    expect(&mut stream, &request, None);
    stream.write_all(&server[0]).unwrap();
    expect(&mut stream, &client[1..3].concat(), None);
    stream.write_all(&server[1]).unwrap();
    let mut buf = [0; 100];
    let len = socket.recv(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"E:ping-one");
    socket.send(b"ping-two").unwrap();
    expect(&mut stream, &client[3..].concat(), None);
    // Two in one segment are two datagrams.
    stream.write_all(b"\0\x01a\0\x02bc").unwrap();
    for expected in [&b"a"[..], b"bc"] {
        let len = socket.recv(&mut buf).unwrap();
        assert_eq!(&buf[..len], expected);
    }
}

/// Recordings 12 and 14: a port at a relay, and a relay that connects on.
#[test]
fn a_client_and_a_visitor_of_a_relay() {
    let relay = "{ type: relay, auth: { username: user, password: pass } }";
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let chain = chain(listener.local_addr().unwrap().port(), Channel::TCP, relay);
    let (client_said, server) = (said("12", true), said("12", false));
    let _client = client(Ours, "127.0.0.1:18701", &chain, target());
    let mut stream = accept(&listener);
    expect(&mut stream, &client_said[0], None);
    // The first datagram may come with the answer.
    stream.write_all(&server[..2].concat()).unwrap();
    expect(&mut stream, b"\0\x07\xff\x01\x7f\0\0\x01\x90\x75E:hello", None);
    // Each peer has a flow of its own, also while another one's answer is on its way.
    stream.write_all(b"\0\x01\xff\x01\x7f\0\0\x01\0\x01a\0\x01\xff\x01\x7f\0\0\x01\0\x02b").unwrap();
    let mut got = vec![0; 26];
    stream.read_exact(&mut got).unwrap();
    let (one, other) = (b"\0\x03\xff\x01\x7f\0\0\x01\0\x01E:a", b"\0\x03\xff\x01\x7f\0\0\x01\0\x02E:b");
    assert!(got == [&one[..], other].concat() || got == [&other[..], one].concat(), "{got:02x?}");
    drop(stream);
    drop(_client);

    let (visitor_said, server) = (said("14", true), said("14", false));
    let (process, visit) = visitor(Ours, &chain, "127.0.0.1:18692");
    process.wait_for(&["listening"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", visit)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(b"hello2").unwrap();
    let mut stream = accept(&listener);
    expect(&mut stream, &visitor_said.concat(), None);
    stream.write_all(&server.concat()).unwrap();
    let mut buf = [0; 100];
    let len = socket.recv(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"E:hello2");
}
