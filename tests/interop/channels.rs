//! The matrix: every data channel, in every direction, between ours and GOST's, with every case. What is missing in it has a row
//! in `cannot`.

use super::support::Program::{self, Gost, Ours};
use super::support::matrix::{self, Channel, Kind, Row};
use super::support::udp;
use pointsman::channel::KINDS;

/// Who serves, and who dials.
const PAIRS: [(Program, Program); 3] = [(Ours, Ours), (Ours, Gost), (Gost, Ours)];

/// All rows of a channel.
fn rows(channel: Channel, pairs: &[(Program, Program)]) {
    std::thread::scope(|scope| {
        for &(server, client) in pairs {
            for kind in [Kind::Tunnel, Kind::Relay, Kind::Forward] {
                let row = Row::new(kind, channel, (server, client));
                matrix::spawn(scope, row, move || matrix::every_case(row));
            }
            let datagrams = format!("{} with datagrams, client {client:?} at {server:?}", channel.word);
            matrix::spawn(scope, datagrams, move || udp::every_way(channel, server, client));
        }
    });
}

macro_rules! rows {
    ($($test:ident: $word:literal, $metadata:literal;)*) => {
        const WORDS: &[&str] = &[$($word),*];

        $(#[test]
        fn $test() {
            rows(Channel::with($word, $metadata), &PAIRS);
        })*
    };
}

rows! {
    tcp: "tcp", "";
    tls: "tls", "";
    mtls: "mtls", "";
    mtcp: "mtcp", "";
    ws: "ws", "";
    wss: "wss", "path: /some/path, host: pointsman.example";
    mws: "mws", "";
    mwss: "mwss", "";
    h2: "h2", "";
    h2c: "h2c", "";
    h2c_with_a_path: "h2c", "path: /tunnel";
    grpc: "grpc", "";
    grpc_without_tls: "grpc", "grpc.insecure: true, grpc.path: /svc/method";
    quic: "quic", "";
}

#[test]
fn no_channel_is_left_out() {
    KINDS.iter().for_each(|kind| assert!(WORDS.contains(&kind.name), "no row of {}", kind.name));
}

/// The control: what two of the reference manage must be asked of ours, and they manage every case.
#[test]
fn tcp_between_two_of_the_reference() {
    rows(Channel::TCP, &[(Gost, Gost)]);
}
