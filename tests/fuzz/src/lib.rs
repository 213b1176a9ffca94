//! What each fuzz target does with its input; the corpora go through the same functions in the ordinary tests.

mod http;
mod link;
mod mux;

use bytes::{Bytes, BytesMut};
use pointsman::config::{self, Source};
use pointsman::wire::quic::InitialReader;
use pointsman::wire::relay::{Request, Response, datagram};
use pointsman::wire::resp::Reader;
use pointsman::wire::smux::{Decoder, Version};
use pointsman::wire::tls::ClientHelloReader;
use pointsman::wire::{grpc, proxy, unary};

/// What is done with one input.
pub type Target = fn(&[u8]);

/// Every parser that reads what strangers send, and the mux session, by the name of its target.
pub const TARGETS: [(&str, Target); 13] = [
    ("relay", relay),
    ("smux", smux),
    ("mux", mux::mux),
    ("http1", http::http1),
    ("http1_pieces", http::http1_pieces),
    ("client_hello", client_hello),
    ("grpc", grpc),
    ("proxy", proxy),
    ("resp", resp),
    ("unary", unary),
    ("datagram", datagram),
    ("quic", quic),
    ("config", config),
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of TARGETS");
    target(data);
}

/// What is read can be written, and says the same again.
fn relay(data: &[u8]) {
    if let Ok(Some((request, len))) = Request::decode(data) {
        assert!(len <= data.len());
        let mut again = BytesMut::new();
        if request.encode(&mut again).is_ok() {
            assert_eq!(Request::decode(&again), Ok(Some((request, again.len()))));
        }
    }
    drop(Response::decode(data));
}

/// The decoder comes to an end, whatever it is given.
fn smux(data: &[u8]) {
    for version in [Version::V1, Version::V2] {
        let mut buf = BytesMut::from(data);
        let mut decoder = Decoder::new(version);
        while let Ok(Some(_)) = decoder.next(&mut buf) {}
    }
}

/// Cut in two, a ClientHello says what it says whole.
fn client_hello(data: &[u8]) {
    let whole = ClientHelloReader::default().read(data);
    let mut reader = ClientHelloReader::default();
    if let Ok(None) = reader.read(&data[..data.len() / 2]) {
        assert_eq!(reader.read(data), whole);
    }
}

/// Cut into pieces, messages hold the data that they hold whole.
fn grpc(data: &[u8]) {
    let decoded = |size: usize| {
        let (mut decoder, mut found) = (grpc::Decoder::default(), Vec::new());
        let mut pieces = data.chunks(size).map(Bytes::copy_from_slice);
        let read = pieces.try_for_each(|piece| decoder.decode(piece, |part| found.extend_from_slice(&part)));
        assert!(found.len() <= data.len());
        read.map(|()| (found, decoder.is_between()))
    };
    assert_eq!(decoded(usize::MAX), decoded(1));
}

/// What half of the bytes says for sure, all of them say.
fn proxy(data: &[u8]) {
    let half = proxy::decode(&data[..data.len() / 2]);
    if half != Ok(None) {
        assert_eq!(proxy::decode(data), half);
    }
}

/// Replies are the same in one piece and byte by byte, up to the first mistake.
fn resp(data: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut reader, mut buf, mut replies) = (Reader::new(4096), BytesMut::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match reader.reply(&mut buf) {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(_) => return (replies, true),
                }
            }
        }
        (replies, false)
    };
    assert_eq!(read(&mut std::iter::once(data)), read(&mut data.chunks(1)));
}

/// A field that is a flag is no text, unless it is not there.
fn unary(data: &[u8]) {
    if let Ok(fields) = unary::Fields::decode(Bytes::copy_from_slice(data)) {
        for number in 0..4 {
            if fields.flag(number) == Ok(true) {
                assert!(fields.text(number).is_err());
            }
        }
    }
}

/// Datagrams are the same from a whole stream and byte by byte, up to the first mistake.
fn datagram(data: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut buf, mut found) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match datagram::take_addressed(&mut buf) {
                    Ok(Some(datagram)) => found.push(datagram),
                    Ok(None) => break,
                    Err(_) => return (found, true),
                }
            }
        }
        (found, false)
    };
    assert_eq!(read(&mut std::iter::once(data)), read(&mut data.chunks(1)));
    let mut buf = BytesMut::from(data);
    while let Some(datagram) = datagram::take(&mut buf) {
        assert!(datagram.len() <= data.len());
    }
}

/// A hello that one datagram tells is the same when it comes once more.
fn quic(data: &[u8]) {
    let Some(mut reader) = InitialReader::begin(data) else { return };
    let first = reader.read(data);
    if first.is_ok() {
        assert_eq!(reader.read(data), first);
    }
}

/// A file is taken, or its problems can be shown.
fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = Source { name: "fuzz".to_owned(), text: text.to_owned() };
    if let Err(problems) = config::load(&[source]) {
        assert!(problems.0.iter().all(|problem| !problem.to_string().is_empty()));
    }
}
