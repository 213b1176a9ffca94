//! What each fuzz target does with its input; the corpora go through the same functions in the ordinary tests.

mod http;
mod link;
mod mux;

use bytes::BytesMut;
use pointsman::config::{self, Source};
use pointsman::wire::relay::{Request, Response};
use pointsman::wire::smux::{Decoder, Version};
use pointsman::wire::tls::ClientHelloReader;

/// What is done with one input.
pub type Target = fn(&[u8]);

/// Every parser that reads what strangers send, and the mux session, by the name of its target.
pub const TARGETS: [(&str, Target); 7] = [
    ("relay", relay),
    ("smux", smux),
    ("mux", mux::mux),
    ("http1", http::http1),
    ("http1_pieces", http::http1_pieces),
    ("client_hello", client_hello),
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

/// A file is taken, or its problems can be shown.
fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = Source { name: "fuzz".to_owned(), text: text.to_owned() };
    if let Err(problems) = config::load(&[source]) {
        assert!(problems.0.iter().all(|problem| !problem.to_string().is_empty()));
    }
}
