//! The captures whose relay bytes ride in another protocol: small plain readers take that away, and what is inside is
//! compared with a transcript, since the notes of these files only repeat the raw bytes.

use super::explain::{Conversation, Seen, items, quoted};
use crate::recorded::{Read, capture, text};
use pointsman::wire::smux::{Item, Version};
use std::collections::HashMap;

pub(super) const FILES: [&str; 6] =
    ["19-yamux.hex", "20-ws.hex", "21-mws.hex", "22-mtcp.hex", "23-h2c.hex", "24-grpc-insecure.hex"];

/// Takes what is complete off the front of the input, and hands on what it carried.
type Unframe = fn(&mut Input) -> Vec<Vec<u8>>;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    /// Past the part that comes once, before the frames.
    begun: bool,
    /// gRPC: what the DATA frames carried.
    inner: Vec<u8>,
    /// Frames of an outer smux.
    frames: usize,
}

impl Input {
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= len).then(|| self.bytes.drain(..len).collect())
    }

    /// Throws away an HTTP head, or an HTTP/2 preface, once.
    fn skip_head(&mut self) {
        if !self.begun {
            let end = self.bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            self.bytes.drain(..end + 4);
            self.begun = true;
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
}

/// hashicorp's yamux, behind one relay message in each direction.
fn yamux(input: &mut Input) -> Vec<Vec<u8>> {
    let mut carried = Vec::new();
    if !input.begun {
        let len = 4 + number(&input.bytes[2..4]);
        carried.extend(input.take(len));
        input.begun = true;
    }
    while let Some(head) = input.bytes.first_chunk::<12>().copied() {
        assert_eq!((head[0], number(&head[4..8])), (0, 1), "version 0, stream 1");
        match head[1] {
            0 => carried.push(input.take(12 + number(&head[8..])).unwrap().split_off(12)),
            1 => drop(input.take(12)),
            other => panic!("frame of type {other}"),
        }
    }
    carried
}

/// RFC 6455: binary messages, those of the client masked.
fn websocket(input: &mut Input) -> Vec<Vec<u8>> {
    input.skip_head();
    let mut carried = Vec::new();
    while let Some([first, second]) = input.bytes.first_chunk::<2>().copied() {
        assert_eq!(first, 0x82, "one whole binary message");
        let (len, extended) = match second & 0x7f {
            126 => (number(&input.bytes[2..4]), 2),
            len => (usize::from(len), 0),
        };
        let mask_len = if second & 0x80 == 0 { 0 } else { 4 };
        let mut frame = input.take(2 + extended + mask_len + len).unwrap();
        let mut payload = frame.split_off(2 + extended + mask_len);
        let mask = &frame[2 + extended..];
        if let [_, _, _, _] = mask {
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        carried.push(payload);
    }
    carried
}

/// The payload of the only stream of an outer smux session.
fn outer(input: &mut Input, version: Version, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut carried = Vec::new();
    for item in items(version, bytes) {
        input.frames += 1;
        if let Item::Data(id, payload) = item {
            assert_eq!(id, 3);
            carried.push(payload.to_vec());
        }
    }
    carried
}

fn websocket_mux(input: &mut Input) -> Vec<Vec<u8>> {
    let messages = websocket(input);
    messages.iter().flat_map(|message| outer(input, Version::V1, message)).collect()
}

fn tcp_mux(input: &mut Input) -> Vec<Vec<u8>> {
    let bytes = std::mem::take(&mut input.bytes);
    outer(input, Version::V2, &bytes)
}

/// The payload of HTTP/2's DATA frames on the only stream.
fn http2(input: &mut Input) -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    if input.bytes.starts_with(PREFACE) {
        input.bytes.drain(..PREFACE.len());
    }
    let mut carried = Vec::new();
    while input.bytes.len() >= 9 {
        let (len, kind, flags) = (number(&input.bytes[..3]), input.bytes[3], input.bytes[4]);
        let frame = input.take(9 + len).unwrap();
        if kind == 0 && len != 0 {
            assert_eq!((flags, number(&frame[5..9])), (0, 1), "no padding, stream 1");
            carried.push(frame[9..].to_vec());
        }
    }
    carried
}

/// gRPC messages `Chunk { bytes data = 1 }` in HTTP/2.
fn grpc(input: &mut Input) -> Vec<Vec<u8>> {
    let data = http2(input).concat();
    input.inner.extend(data);
    let mut carried = Vec::new();
    while let Some(head) = input.inner.first_chunk::<5>().copied() {
        assert_eq!(head[0], 0, "not compressed");
        let message: Vec<_> = input.inner.drain(..5 + number(&head[1..])).skip(5).collect();
        let [0x0a, low, rest @ ..] = &message[..] else { panic!("{message:02x?}") };
        // A varint of one or two bytes.
        let (len, payload) = match usize::from(*low) {
            low @ 0x80.. => ((low & 0x7f) | usize::from(rest[0]) << 7, &rest[1..]),
            low => (low, rest),
        };
        assert_eq!(payload.len(), len);
        carried.push(payload.to_vec());
    }
    carried
}

/// What a capture says inside its carrier, how much that is, and how many frames of an outer smux it took.
fn transcript(number: &str, unframe: Unframe) -> (Vec<String>, Seen, usize) {
    let mut inputs: HashMap<(u32, bool), Input> = HashMap::new();
    let mut conversations: HashMap<u32, Conversation> = HashMap::new();
    let mut lines = Vec::new();
    for Read { conn, to_server, bytes, notes } in capture(&text(number)) {
        assert_eq!(notes, [quoted(&bytes, 100)]);
        let input = inputs.entry((conn, to_server)).or_default();
        input.bytes.extend(bytes);
        for carried in unframe(input) {
            let direction = if to_server { "C>S" } else { "S>C" };
            let conversation = conversations.entry(conn).or_default();
            conversation.yamux = number == "19";
            let said = conversation.hear(to_server, &carried);
            lines.extend(said.iter().map(|said| format!("{direction} {conn} {said}")));
        }
    }
    assert!(inputs.values().all(|i| i.bytes.is_empty() && i.inner.is_empty()), "half a frame at the end");
    let seen = conversations.values().fold(Seen::default(), |sum, c| sum + c.seen);
    (lines, seen, inputs.values().map(|i| i.frames).sum())
}

/// Carriers, and how many relay messages, smux frames inside, and smux frames around those each file has.
const CARRIERS: [(&str, Unframe, Seen, usize); 6] = [
    ("19", yamux, Seen { messages: 9, frames: 0 }, 0),
    ("20", websocket, Seen { messages: 3, frames: 8 }, 0),
    ("21", websocket_mux, Seen { messages: 3, frames: 9 }, 14),
    ("22", tcp_mux, Seen { messages: 3, frames: 9 }, 16),
    ("23", http2, Seen { messages: 3, frames: 8 }, 0),
    ("24", grpc, Seen { messages: 3, frames: 9 }, 0),
];

#[test]
fn inside_every_carrier_is_what_its_transcript_says() {
    let transcripts = include_str!("../../data/carried.txt");
    for (number, unframe, seen, outer_frames) in CARRIERS {
        let section = transcripts.split("\n=== ").find_map(|part| part.strip_prefix(number));
        let expected: Vec<_> = section.unwrap().lines().filter(|line| !line.is_empty()).collect();
        let (lines, seen_here, outer_here) = transcript(number, unframe);
        assert_eq!(lines, expected, "{number}");
        assert_eq!((seen_here, outer_here), (seen, outer_frames), "{number}");
    }
}
