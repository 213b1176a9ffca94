//! Every recorded file: what our codecs read in the bytes must be, word for word, what its notes say, and must be written back
//! to the same bytes.
//!
//! The notes are made again here from what was decoded. Which message comes when is the protocol's business and known
//! without them: a request and a response, then smux where the request was a BIND over TCP, else the visitor's bytes.

mod carried;
mod explain;

use crate::recorded::{capture, hex, names, rows, text};
use explain::{Conversation, Seen, describe_request, describe_response};
use pointsman::wire::relay::{Request, Response};
use pointsman::wire::tls::ClientHelloReader;
use std::collections::HashMap;

/// Relay messages and smux frames in each file whose connections carry nothing else.
const PLAIN: [(&str, Seen); 19] = [
    ("01-tunnel-bind-and-http.hex", Seen { messages: 3, frames: 14 }),
    ("02-tunnel-tls-passthrough.hex", Seen { messages: 3, frames: 13 }),
    ("03-tunnel-bind-metadata-weight1.hex", Seen { messages: 3, frames: 4 }),
    ("04-tunnel-bind-weight3.hex", Seen { messages: 4, frames: 14 }),
    ("05-private-tunnel-connector.hex", Seen { messages: 6, frames: 19 }),
    ("06-private-tunnel-visitor.hex", Seen { messages: 2, frames: 0 }),
    ("07-udp-tunnel-connector.hex", Seen { messages: 3, frames: 9 }),
    ("08-udp-tunnel-visitor.hex", Seen { messages: 2, frames: 0 }),
    ("09-tunnel-direct.hex", Seen { messages: 5, frames: 8 }),
    ("10-external-entrypoint.hex", Seen { messages: 6, frames: 0 }),
    ("11-relay-bind-tcp.hex", Seen { messages: 3, frames: 8 }),
    ("12-relay-bind-udp.hex", Seen { messages: 2, frames: 0 }),
    ("13-relay-connect-tcp.hex", Seen { messages: 2, frames: 0 }),
    ("14-relay-connect-udp.hex", Seen { messages: 2, frames: 0 }),
    ("15-relay-bind-refused.hex", Seen { messages: 8, frames: 0 }),
    ("16-relay-bind-unauthorized.hex", Seen { messages: 6, frames: 0 }),
    ("17-relay-bind-colon-port-bug.hex", Seen { messages: 2, frames: 0 }),
    ("18-tunnel-bind-auth-customhost.hex", Seen { messages: 4, frames: 11 }),
    ("30-bad-sni-kills-connector.hex", Seen { messages: 4, frames: 3 }),
];

#[test]
fn every_capture_says_what_its_notes_say() {
    for (name, expected) in PLAIN {
        let mut conversations: HashMap<u32, Conversation> = HashMap::new();
        for read in capture(&text(&name[..2])) {
            let said = conversations.entry(read.conn).or_default().hear(read.to_server, &read.bytes);
            assert_eq!(said, read.notes, "{name}");
        }
        let seen = conversations.values().fold(Seen::default(), |sum, c| sum + c.seen);
        assert_eq!(seen, expected, "{name}");
    }
}

/// A new file must be taken up in a test here.
#[test]
fn no_capture_is_left_out() {
    let plain = PLAIN.map(|(name, _)| name);
    let read: Vec<_> = [&plain[..], &carried::FILES, &["25-client-hellos.hex"]].concat();
    for name in names(".hex") {
        assert!(read.contains(&name.as_str()), "{name}");
    }
    assert_eq!(names(".hex").len(), read.len());
}

/// The requests and replies of the status probes; that our server answers them is shown by the end-to-end tests.
#[test]
fn every_probe_says_what_its_notes_say() {
    let text = text("26");
    let notes = |row: &str| -> Vec<&str> {
        let below = text.lines().skip_while(|line| *line != row).skip(1);
        below.map_while(|line| line.strip_prefix("# ^ ")).collect()
    };
    let (mut told, mut bad) = (0, 0);
    for row in rows(&text) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (request, notes) = (hex(cells[1]), notes(row));
        let Some((first, reply)) = notes.split_first() else {
            assert!(!matches!(Request::decode(&request), Ok(Some(_))), "{row}");
            bad += 1;
            continue;
        };
        let decoded = Request::decode(&request).unwrap().unwrap().0;
        // A feature that is not known is skipped, not kept.
        let unknown = "Unknown(type=0x7f len=3); ";
        assert_eq!(describe_request(&decoded, &request), first.replace(unknown, ""), "{row}");
        explain::written_back(&decoded, &request, !first.contains(unknown));
        if let [reply] = reply {
            let bytes = hex(cells[2]);
            let decoded = Response::decode(&bytes).unwrap().unwrap().0;
            assert_eq!(format!("reply: {}", describe_response(&decoded, &bytes)), *reply, "{row}");
            explain::written_back(&decoded, &bytes, true);
        }
        told += 1;
    }
    assert_eq!((told, bad), (18, 4));
}

/// The hellos of the reference's dialers, which dial an IP address and so name no server; and the one of a visitor.
#[test]
fn client_hellos_are_understood() {
    let read = |hello: &[u8]| {
        for cut in 0..hello.len() {
            assert_eq!(ClientHelloReader::default().read(&hello[..cut]), Ok(None), "{cut}");
        }
        ClientHelloReader::default().read(hello).unwrap().unwrap().server_name
    };
    let text = text("25");
    assert!(text.contains("so no SNI"));
    for row in rows(&text) {
        assert_eq!(read(&hex(row.split_once(' ').unwrap().1)), None, "{row}");
    }
    assert_eq!(rows(&text).len(), 6);
    let visitor = capture(&crate::recorded::text("02")).swap_remove(2).bytes;
    let hello = &visitor[visitor.len() - 517..];
    assert_eq!(read(hello).unwrap().as_str(), "srv-0.local");
}
