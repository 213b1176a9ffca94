//! What our client does when a server misbehaves: a script plays the server, and only the bad stream may suffer.

use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::relay::{FIN, PSH, Peer, SYN, loopback, message, name, read_message, tunnel};
use crate::support::vectors::{rows, text};
use crate::support::{Proc, eventually, now};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Our client, and the port it thinks is its server's.
struct Script {
    client: Proc,
    listener: TcpListener,
}

impl Script {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Ours.start(&format!(
            "services:
- name: service-0
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c, metadata: {{ handshakeTimeout: 500ms }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '{}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
",
            target(),
            listener.local_addr().unwrap()
        ));
        Self { client, listener }
    }

    /// The client's next connection, its BIND read.
    fn next(&self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let mut stream = eventually("the client comes", || self.listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        assert_eq!(read_message(&mut stream).unwrap().0, 2);
        stream
    }

    fn bound(&self) -> Peer {
        let mut stream = self.next();
        stream.write_all(&message(0, &[name("a6265c6d9847a4be", 0), tunnel()])).unwrap();
        Peer(stream)
    }

    /// The client has stayed where it was.
    fn came_once(&self) {
        assert!(self.listener.accept().is_err(), "it reconnected");
        assert!(!self.client.log().contains("disconnected"));
    }
}

/// Answers every connection's first bytes.
fn target() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved"));
        }
    });
    port
}

/// The header of an ordinary stream.
fn header() -> Vec<u8> {
    message(0, &[loopback(1), name("srv-0.local", 80)])
}

/// Opens a stream that begins with `header` and sees it served.
fn is_served(peer: &mut Peer, id: u32, header: &[u8]) {
    peer.send(SYN, id, &[]).unwrap();
    peer.send(PSH, id, header).unwrap();
    peer.send(PSH, id, b"GET / HTTP/1.1\r\nHost: srv-0.local\r\n\r\n").unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"served") {
        match peer.next().unwrap() {
            (PSH, from, payload) if from == id => got.extend(payload),
            (FIN, from, _) if from == id => panic!("stream {id} ended: {:?}", String::from_utf8_lossy(&got)),
            _ => {}
        }
    }
}

/// Reads until the client has ended the stream.
fn is_ended(peer: &mut Peer, id: u32) {
    while !matches!(peer.next().unwrap(), (FIN, from, _) if from == id) {}
}

/// A stream that goes wrong, ended by the client alone.
fn bad_stream(script: &Script, then: impl FnOnce(&mut Peer)) {
    let mut peer = script.bound();
    peer.send(SYN, 3, &[]).unwrap();
    then(&mut peer);
    is_ended(&mut peer, 3);
    is_served(&mut peer, 5, &header());
    script.came_once();
}

fn another_version(script: &Script) {
    let mut peer = script.bound();
    peer.0.write_all(&[1, 0, 0, 0, 3, 0, 0, 0]).unwrap();
    // Where frames cannot be told apart any more there is nothing to isolate.
    while peer.next().is_ok() {}
    is_served(&mut script.bound(), 3, &header());
}

fn silent_stream(script: &Script) {
    let mut peer = script.bound();
    peer.send(SYN, 3, &[]).unwrap();
    is_served(&mut peer, 5, &header());
    is_ended(&mut peer, 3);
    is_served(&mut peer, 7, &header());
    script.came_once();
}

fn error_status(script: &Script) {
    bad_stream(script, |peer| peer.send(PSH, 3, &message(5, &[])).unwrap());
}

fn unresolvable_source(script: &Script) {
    let mut peer = script.bound();
    is_served(&mut peer, 3, &message(0, &[name("no-such-name.invalid", 1), name("srv-0.local", 80)]));
    script.came_once();
}

fn no_address(script: &Script) {
    let mut peer = script.bound();
    is_served(&mut peer, 3, &message(0, &[]));
    script.came_once();
}

fn ended_without_header(script: &Script) {
    bad_stream(script, |peer| peer.send(FIN, 3, &[]).unwrap());
}

fn even_id(script: &Script) {
    let mut peer = script.bound();
    is_served(&mut peer, 2, &header());
    script.came_once();
}

fn refused(script: &Script) {
    let mut since = None;
    for attempt in 0..5 {
        let mut stream = script.next();
        since.get_or_insert_with(now);
        if attempt % 2 == 0 {
            stream.write_all(&message(5, &[])).unwrap();
        }
    }
    // 0.75 s at the least between the first and the fifth; a script that was late for the first sees less.
    assert!(since.unwrap().elapsed() > Duration::from_millis(300));
    script.client.wait_for(&["cannot connect", "ServiceUnavailable"]);
    is_served(&mut script.bound(), 3, &header());
}

fn never_answered(script: &Script) {
    let silent = script.next();
    is_served(&mut script.bound(), 3, &header());
    drop(silent);
}

/// The beginning of a row, and ours.
type Case = (&'static str, fn(&Script));

/// The rows of the recording; all but those that are accepted there too differ by intent (section 4.3: the
/// reference ends the session, or waits without limit).
const CASES: [Case; 9] = [
    ("server speaks smux v1", another_version),
    ("SYN sid 3, no header;", silent_stream),
    ("SYN sid 3 + PSH 01050000", error_status),
    ("SYN sid 3 + PSH header whose first Addr is an unresolvable name", unresolvable_source),
    ("SYN sid 3 + PSH 01000000", no_address),
    ("SYN sid 3 then FIN without header", ended_without_header),
    ("SYN with an even stream id", even_id),
    ("bind answered with status != 0", refused),
    ("bind never answered", never_answered),
];

#[test]
fn a_server_that_misbehaves_harms_one_stream_at_most() {
    let text = text("29");
    let rows = rows(&text);
    assert_eq!(rows.len(), CASES.len());
    for (row, (begins, case)) in rows.iter().zip(CASES) {
        assert!(row.starts_with(begins), "{row}");
        println!("{row}");
        case(&Script::new());
    }
}
