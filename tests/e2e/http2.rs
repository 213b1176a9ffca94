//! HTTP/2 requests that are refused, some of them before anybody hears of them: each leaves one line in the log.

use crate::support::Program::Ours;
use crate::support::{Proc, connect, eventually, free_port, wait_for_port};
use h2::client::SendRequest;
use http::Request;
use std::io::{Read, Write};
use std::net::TcpStream as Blocking;
use tokio::net::TcpStream;

/// A mirror, and a reverse proxy in front of it, that take heads of 1 KiB.
fn services() -> (Proc, [u16; 2]) {
    let [mirror, front] = [free_port(), free_port()];
    let process = Ours.start(&format!(
        "services:
- name: mirror
  addr: 127.0.0.1:{mirror}
  handler: {{ type: whoami, metadata: {{ http.maxHeadSize: 1024 }} }}
- name: front
  addr: 127.0.0.1:{front}
  handler: {{ type: tcp, metadata: {{ sniffing: true, http.maxHeadSize: 1024 }} }}
  forwarder: {{ nodes: [{{ name: mirror, addr: '127.0.0.1:{mirror}' }}] }}
"
    ));
    [mirror, front].into_iter().for_each(wait_for_port);
    (process, [mirror, front])
}

async fn visitor(port: u16) -> SendRequest<bytes::Bytes> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Asks with a field of this size; the status and the body of the answer.
async fn ask(sender: &mut SendRequest<bytes::Bytes>, size: usize) -> Result<(u16, String), h2::Error> {
    let request = Request::get("http://h.example/").header("x", "~".repeat(size)).body(()).unwrap();
    *sender = sender.clone().ready().await?;
    let (head, mut body) = sender.send_request(request, true)?.0.await?.into_parts();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data?);
    }
    Ok((head.status.as_u16(), String::from_utf8(text).unwrap()))
}

/// Waits until so many lines of the log hold all these texts.
fn wait_for_lines(process: &Proc, texts: &[&str], count: usize) {
    eventually(&format!("{count} lines with {texts:?}"), || {
        let log = process.log();
        let lines = log.lines().filter(|line| texts.iter().all(|text| line.contains(text)));
        (lines.count() == count).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_are_refused_and_logged() {
    let (process, ports) = services();
    for (port, service) in ports.into_iter().zip(["service=\"mirror\"", "service=\"front\""]) {
        let mut sender = visitor(port).await;
        assert_eq!(ask(&mut sender, 500).await.unwrap().0, 200);
        let (status, text) = ask(&mut sender, 1200).await.unwrap();
        assert!(status == 431 && text.contains("head too large (http.maxHeadSize)"), "{text}");
        process.wait_for(&[service, "host=\"h.example\"", "status=431", "request_id", "http.maxHeadSize"]);
        assert_eq!(ask(&mut sender, 4000).await.unwrap(), (431, String::new()));
        // The connection goes on, until it is much too large.
        assert_eq!(ask(&mut sender, 500).await.unwrap().0, 200);
        let error = ask(&mut sender, 10_000).await.unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
        process.wait_for(&[service, "connection error detected", "http.maxHeadSize"]);
        wait_for_lines(&process, &[service, "outcome=\"bad_request\""], 3);
    }
}

/// Preface and SETTINGS, and heads on these streams: a GET of http://h, with `field` if there is one; the last byte are the flags.
fn raw(streams: impl Iterator<Item = u32>, field: &[u8], flags: u8) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for id in streams {
        let block = [b"\x82\x84\x86\x41\x01h", field].concat();
        bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, flags]);
        bytes.extend_from_slice(&id.to_be_bytes());
        bytes.extend_from_slice(&block);
    }
    bytes
}

/// Reads until all of these frames have come.
fn read_frames(stream: &mut Blocking, frames: &[&[u8]]) {
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while !frames.iter().all(|frame| got.windows(frame.len()).any(|part| part == *frame)) {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "{got:?}");
        got.extend_from_slice(&buffer[..n]);
    }
}

/// RST_STREAM.
fn reset(stream: u16, code: u8) -> Vec<u8> {
    let [high, low] = stream.to_be_bytes();
    vec![0, 0, 4, 3, 0, 0, 0, high, low, 0, 0, 0, code]
}

const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

#[test]
fn malformed_requests_are_reset_and_logged() {
    let (process, ports) = services();
    for (port, service) in ports.into_iter().zip(["service=\"mirror\"", "service=\"front\""]) {
        let mut stream = connect(port);
        // `connection: x`, which HTTP/2 has not.
        let field = b"\0\x0aconnection\x01x";
        stream.write_all(&raw([1, 3].into_iter(), field, END_HEADERS | END_STREAM)).unwrap();
        read_frames(&mut stream, &[&reset(1, 1), &reset(3, 1)]);
        wait_for_lines(&process, &[service, "outcome=\"bad_request\"", "malformed HTTP/2 request"], 2);
    }
}

#[test]
fn requests_too_many_at_once_are_reset_and_logged() {
    let (process, [mirror, _]) = services();
    let mut stream = connect(mirror);
    // Their bodies do not come.
    stream.write_all(&raw((1..521).step_by(2), b"", END_HEADERS)).unwrap();
    let resets = [513, 515, 517, 519].map(|stream| reset(stream, 7));
    read_frames(&mut stream, &resets.each_ref().map(Vec::as_slice));
    wait_for_lines(&process, &["outcome=\"too_many_requests\"", "more than 256 requests"], 4);
}
