//! The status probes: one request per row to the tunnel port, the reply byte for byte, and whether the connection stays.

use super::server;
use crate::support::connect;
use crate::support::relay::{FIN, Peer, SYN, read_message};
use crate::support::vectors::{hex, rows, text};
use std::io::{Read, Write};

/// The connector's ID is random: in the last feature of a BIND reply, before its flags and weight.
fn masked(mut reply: Vec<u8>) -> Vec<u8> {
    // Type 3, 20 bytes.
    if let Some(at) = reply.windows(3).rposition(|w| w == [3, 0, 20]) {
        reply[at + 3..at + 19].fill(0);
    }
    reply
}

#[test]
fn every_probe_is_answered_as_by_the_reference() {
    let text = text("26");
    let rows = rows(&text);
    assert_eq!(rows.len(), 22);
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [name, request, reply, state] = cells[..] else { panic!("{row}") };
        let (_server, port, _) = server();
        let mut stream = connect(port);
        stream.write_all(&hex(request)).unwrap();
        let mut got = vec![0; hex(reply).len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(masked(got), masked(hex(reply)), "{name}");
        match (state, reply) {
            ("closed", _) => assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{name}"),
            // The recording cuts this word short.
            ("ope", "") => still_reading(&mut stream, &hex(request)),
            ("ope", _) => runs_a_session(Peer(stream), name),
            _ => panic!("{row}"),
        }
    }
}

/// The connection was left open for the rest of the request: a whole one without a tunnel is refused with status 1.
fn still_reading(stream: &mut std::net::TcpStream, begun: &[u8]) {
    let whole = hex("0102000a020007017f0000010001");
    stream.write_all(&whole[begun.len()..]).unwrap();
    assert_eq!(read_message(stream).unwrap(), (1, Vec::new()));
}

/// A connector may open no stream, and its session says so by ending it.
fn runs_a_session(mut peer: Peer, name: &str) {
    peer.send(SYN, 2, &[]).unwrap();
    assert_eq!(peer.next().unwrap(), (FIN, 2, Vec::new()), "{name}");
}
