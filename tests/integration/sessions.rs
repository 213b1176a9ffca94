//! Our sessions against recorded ones: the recorded peer's bytes go in, and what comes out must be the bytes that the
//! real program sent in our place.
//!
//! The recordings begin with the BIND exchange, which belongs to the relay protocol and is skipped here.

#![allow(clippy::unwrap_used, reason = "a test")]

use bytes::Bytes;
use pointsman::mux::{self, Incoming, Kind, Role, Session, Settings, Stream};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What each side of the first connection sent after its BIND message: the dialling (connector) and listening side.
struct Recording {
    connector: Vec<u8>,
    server: Vec<u8>,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn recording(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let side = |direction: &str| {
        let reads =
            text.lines().filter_map(|line| line.strip_prefix(direction)?.strip_prefix(" 1 ").map(unhex));
        let all: Vec<u8> = reads.flatten().collect();
        // A relay message: VER, CMD or STATUS, FEALEN.
        let bind = 4 + usize::from(u16::from_be_bytes([all[2], all[3]]));
        all[bind..].to_vec()
    };
    Recording { connector: side("C>S"), server: side("S>C") }
}

/// The frames in `bytes` (smux of either version) but for NOPs, which come by the clock.
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (frame, rest) = bytes.split_at(8 + usize::from(u16::from_le_bytes([bytes[2], bytes[3]])));
        if frame[1] != 3 {
            frames.push(frame.to_vec());
        }
        bytes = rest;
    }
    frames
}

/// The payloads that a recorded side sent.
fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
    frames(bytes).into_iter().filter(|f| f[1] == 2).map(|f| f[8..].to_vec()).collect()
}

async fn session(role: Role, kind: Kind) -> (Session, Incoming, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let settings = Settings { kind, ..Settings::tunnel() };
    let (session, incoming, driver) = mux::start(Box::new(ours.unwrap()), Bytes::new(), role, &settings);
    tokio::spawn(driver);
    (session, incoming, theirs.unwrap().0)
}

/// Reads whole frames until there are so many (NOPs not counted).
async fn next_frames(peer: &mut TcpStream, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    while got.len() < count {
        let mut frame = vec![0; 8];
        peer.read_exact(&mut frame).await.unwrap();
        let len = usize::from(u16::from_le_bytes([frame[2], frame[3]]));
        frame.resize(8 + len, 0);
        peer.read_exact(&mut frame[8..]).await.unwrap();
        if frame[1] != 3 {
            got.push(frame);
        }
    }
    got
}

async fn read(stream: &mut Stream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
}

/// Plays the tunnel server of a recording with one exchange: opens, sends the request, reads the reply, ends.
async fn play_server(name: &str, kind: Kind) {
    let recording = recording(name);
    let expected = frames(&recording.server);
    let sent = payloads(&recording.server);
    let (session, _incoming, mut peer) = session(Role::Client, kind).await;
    let mut stream = session.open(Bytes::from(sent[0].clone())).unwrap();
    let opening = next_frames(&mut peer, 2).await;
    assert_eq!(opening, expected[..2], "SYN, then the header");
    let (updates, data): (Vec<_>, Vec<_>) = frames(&recording.connector).into_iter().partition(|f| f[1] == 4);
    for update in updates {
        peer.write_all(&update).await.unwrap();
    }
    // In version 1 the visitor may speak after the header: one frame there too.
    for payload in &sent[1..] {
        stream.write_all(payload).await.unwrap();
    }
    let requests = next_frames(&mut peer, sent.len() - 1).await;
    assert_eq!(requests, expected[2..1 + sent.len()]);
    let replies = payloads(&recording.connector);
    for frame in data.iter().filter(|f| f[1] == 2) {
        peer.write_all(frame).await.unwrap();
    }
    read(&mut stream, &replies.concat()).await;
    let mut rest = Vec::new();
    if kind == Kind::SmuxV2 {
        rest = next_frames(&mut peer, 1).await;
    }
    drop(stream);
    rest.extend(next_frames(&mut peer, 1).await);
    assert_eq!(rest, expected[1 + sent.len()..], "the update behind the first read, then FIN");
}

#[tokio::test]
async fn a_tunnel_server_sends_what_the_recorded_one_sent() {
    play_server("01-tunnel-bind-and-http.hex", Kind::SmuxV2).await;
}

#[tokio::test]
async fn a_relay_server_sends_what_the_recorded_one_sent() {
    play_server("11-relay-bind-tcp.hex", Kind::SmuxV1).await;
}

/// Plays the connector: reads a header of four bytes first, as the recorded one did, and answers.
async fn play_connector(name: &str, kind: Kind, streams: usize) {
    let recording = recording(name);
    let expected = frames(&recording.connector);
    let (_session, mut incoming, mut peer) = session(Role::Server, kind).await;
    let arriving = frames(&recording.server);
    let ids: Vec<[u8; 4]> =
        arriving.iter().filter(|f| f[1] == 0).map(|f| f[4..8].try_into().unwrap()).collect();
    assert_eq!(ids.len(), streams);
    for id in ids {
        let of = |frames: &[Vec<u8>], command: u8| -> Vec<Vec<u8>> {
            frames.iter().filter(|f| f[4..8] == id && f[1] == command).cloned().collect()
        };
        for frame in [of(&arriving, 0), of(&arriving, 2)].concat() {
            peer.write_all(&frame).await.unwrap();
        }
        let mut stream = incoming.accept().await.unwrap();
        let sent: Vec<u8> = of(&arriving, 2).iter().flat_map(|f| f[8..].to_vec()).collect();
        read(&mut stream, &sent[..4]).await;
        if kind == Kind::SmuxV2 {
            assert_eq!(next_frames(&mut peer, 1).await, of(&expected, 4), "the update behind the first read");
        }
        read(&mut stream, &sent[4..]).await;
        for frame in of(&expected, 2) {
            stream.write_all(&frame[8..]).await.unwrap();
            assert_eq!(next_frames(&mut peer, 1).await, [frame]);
        }
        if of(&arriving, 1).is_empty() {
            // The recording ends here.
            continue;
        }
        for frame in of(&arriving, 1) {
            peer.write_all(&frame).await.unwrap();
        }
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
        drop(stream);
        assert_eq!(next_frames(&mut peer, 1).await, of(&expected, 1));
    }
}

#[tokio::test]
async fn a_connector_sends_what_the_recorded_one_sent() {
    play_connector("01-tunnel-bind-and-http.hex", Kind::SmuxV2, 1).await;
}

#[tokio::test]
async fn a_second_connector_with_two_streams() {
    play_connector("04-tunnel-bind-weight3.hex", Kind::SmuxV2, 2).await;
}

#[tokio::test]
async fn a_relay_connector_sends_what_the_recorded_one_sent() {
    play_connector("11-relay-bind-tcp.hex", Kind::SmuxV1, 1).await;
}

/// yamux: the recorded server's bytes give the stream with header and request, and our answer is an answer to it.
#[tokio::test]
async fn a_recorded_yamux_stream_is_understood() {
    let recording = recording("19-yamux.hex");
    let (_session, mut incoming, mut peer) = session(Role::Server, Kind::Yamux).await;
    peer.write_all(&recording.server).await.unwrap();
    let mut stream = incoming.accept().await.unwrap();
    let mut head = [0; 4 + 28];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], [1, 0, 0, 28], "the stream's header: a relay response");
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, b"GET /x H");
    stream.write_all(b"answer").await.unwrap();
    let mut data = Vec::new();
    while !data.ends_with(b"answer") {
        assert_ne!(peer.read_buf(&mut data).await.unwrap(), 0);
    }
    let answer = &data[data.len() - 18..];
    assert_eq!(answer[..2], [0, 0], "version 0, a data frame");
    assert_eq!(answer[4..12], [0, 0, 0, 1, 0, 0, 0, 6], "on stream 1, six bytes");
}
