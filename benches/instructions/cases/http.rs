//! HTTP/1 heads and bodies.

use bytes::BytesMut;
use pointsman::wire::http::{Body, Framing, HeadReader, Limits, ReplyHead, RequestHead};
use std::hint::black_box;

const REQUEST: &str = "GET /articles/2026/search?q=points&lang=en HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: session=5f3d2c1b0a998877665544332211ffee; theme=dark\r\n\
    Connection: keep-alive\r\n\r\n";

const REPLY: &str = "HTTP/1.1 200 OK\r\n\
    Date: Sun, 29 Nov 2026 10:00:00 GMT\r\n\
    Server: nginx\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 612\r\n\
    Last-Modified: Sat, 28 Nov 2026 08:00:00 GMT\r\n\
    ETag: \"6748264e-264\"\r\n\
    Connection: keep-alive\r\n\r\n";

pub(super) fn request() -> Box<dyn FnMut()> {
    Box::new(|| {
        let head = read_request();
        assert!(black_box(&head).keep_alive());
    })
}

pub(super) fn reply() -> Box<dyn FnMut()> {
    let request = read_request();
    Box::new(move || {
        let mut buf = BytesMut::from(black_box(REPLY));
        let reader = &mut HeadReader::default();
        let head: ReplyHead = reader.reply(&mut buf, &Limits::default(), &request).unwrap().unwrap();
        assert_eq!(black_box(&head).framing(), Framing::Length(612));
    })
}

/// 100 chunks, that come in pieces which end anywhere.
pub(super) fn chunked() -> Box<dyn FnMut()> {
    let chunk = |i: usize| format!("{:x}\r\n{}\r\n", 10 * i + 1, "x".repeat(10 * i + 1));
    let text: String = (0..100).map(chunk).chain(["0\r\nX-Checksum: 1234\r\n\r\n".to_owned()]).collect();
    Box::new(move || {
        let mut body = Body::new(Framing::Chunked);
        for piece in black_box(&text).as_bytes().chunks(1449) {
            assert_eq!(body.advance(piece).unwrap(), piece.len());
        }
        assert!(body.is_done());
    })
}

fn read_request() -> RequestHead {
    let mut buf = BytesMut::from(black_box(REQUEST));
    HeadReader::default().request(&mut buf, &Limits::default()).unwrap().unwrap()
}
