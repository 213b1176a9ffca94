//! Recorded relay messages: read as their notes say, written back byte for byte.

use bytes::BytesMut;
use pointsman::wire::relay::{Command, Request, Response, Status};

/// One read of a capture: direction, bytes, and the notes below it.
struct Line {
    to_server: bool,
    bytes: Vec<u8>,
    notes: String,
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn load(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines() {
        if let Some(note) = line.strip_prefix("# ^ ") {
            let last = lines.last_mut().unwrap();
            last.notes += &format!("{note}\n");
        } else if let Some((direction, rest)) =
            line.split_once(' ').filter(|(d, _)| matches!(*d, "C>S" | "S>C"))
        {
            let (_, bytes) = rest.split_once(' ').unwrap();
            lines.push(Line { to_server: direction == "C>S", bytes: hex(bytes), notes: String::new() });
        }
    }
    lines
}

fn check(line: &Line) {
    let mut again = BytesMut::new();
    for cut in 0..line.bytes.len().min(4) {
        assert_eq!(Request::decode(&line.bytes[..cut]), Ok(None));
    }
    if line.to_server {
        let (request, len) = Request::decode(&line.bytes).unwrap().unwrap();
        let command = if line.notes.contains("(BIND") { Command::Bind } else { Command::Connect };
        assert_eq!(request.command, command, "{}", line.notes);
        if let Some(tunnel) = request.tunnel() {
            assert!(
                line.notes.contains(&format!("Tunnel(id={} flags={:02x}", tunnel.id, tunnel.flags)),
                "{}",
                line.notes
            );
        }
        request.encode(&mut again).unwrap();
        assert_eq!(&again[..], &line.bytes[..len]);
    } else {
        let (response, len) = Response::decode(&line.bytes).unwrap().unwrap();
        assert_eq!(response.status == Status::Ok, line.notes.contains("status=0x00"), "{}", line.notes);
        response.encode(&mut again).unwrap();
        assert_eq!(&again[..], &line.bytes[..len]);
    }
}

#[test]
fn recorded_messages_are_read_and_written_back() {
    let mut count = 0;
    for entry in std::fs::read_dir("tests/data/vectors").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // 20 and later carry the messages inside other protocols.
        if name.as_str() < "20" && path.extension().is_some_and(|e| e == "hex") {
            let text = std::fs::read_to_string(&path).unwrap();
            let relay = load(&text).into_iter().filter(|line| line.notes.starts_with("relay re"));
            for line in relay {
                check(&line);
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count}");
}
