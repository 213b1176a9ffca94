//! `handler: whoami` reads as strictly as every other handler, keeps the same times and bounds, and says what it refuses.

use crate::support::{Proc, Program::Ours, connect, curl, exchange, free_port, read_all};
use std::io::{Read, Write};

fn whoami(metadata: &str) -> (Proc, u16) {
    let port = free_port();
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: whoami, metadata: {{ {metadata} }} }}
"
    ));
    process.wait_for(&["listening"]);
    (process, port)
}

#[test]
fn bad_requests_are_told_what_they_are() {
    let (process, port) = whoami("http.headTimeout: 500ms, http.stallTimeout: 500ms");
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(70_000));
    for (request, status, outcome) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "bad_request",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400, "bad_request"),
        ("\x16nonsense", 400, "bad_request"),
        (&long, 431, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: a\r\n", 408, "head_timeout"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf", 408, "body_timeout"),
    ] {
        let mut visitor = connect(port);
        visitor.write_all(request.as_bytes()).unwrap();
        let (reply, closed) = read_all(&mut visitor);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")) && closed, "{reply:?}, closed: {closed}");
        let client = format!("client={}", visitor.local_addr().unwrap());
        let line = process.wait_for(&[&client, outcome]);
        assert!(line.contains(&format!("status={status} ")), "{line}");
        let half = if outcome == "body_timeout" { "bytes_in=4 " } else { "bytes_in=0 " };
        assert!(line.contains(half), "{line}");
        // The wait is part of the time that it took.
        let elapsed = line.split("elapsed=").nth(1).unwrap().split(' ').next().unwrap();
        let elapsed: f64 = elapsed.parse().unwrap();
        assert!(!outcome.ends_with("_timeout") || elapsed >= 0.5, "{line}");
    }
}

#[test]
fn a_silent_visitor_is_given_up() {
    let (process, port) = whoami("http.headTimeout: 300ms");
    assert_eq!(read_all(&mut connect(port)), (String::new(), true));
    process.wait_for(&["head_timeout", "no request in time (http.headTimeout)"]);
}

#[test]
fn a_visitor_that_asks_whether_to_go_on_is_told_to() {
    let (_process, port) = whoami("");
    let mut visitor = connect(port);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    visitor.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    visitor.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    visitor.write_all(b"ok").unwrap();
    let (reply, closed) = read_all(&mut visitor);
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && closed, "{reply}");
}

#[test]
fn times_and_bounds_are_settings() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let (process, port) = whoami("http.maxHeadSize: 2000, http.maxHeadFields: 16, http.idleTimeout: 300ms");
    let fields = "X: x\r\n".repeat(16);
    for (field, status) in
        [(format!("X: {}\r\n", "x".repeat(2000)), 431), (fields, 431), (String::new(), 200)]
    {
        let (reply, closed) = exchange(port, format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n").as_bytes());
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")) && closed, "{reply}");
    }
    drop(process);
    let (_process, port) = whoami("http.keepalive: false");
    let (reply, closed) = exchange(port, GET.repeat(2).as_bytes());
    assert!(closed && reply.contains("Connection: close\r\n"), "{reply}");
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 1, "{reply}");
}

#[test]
fn http2_with_prior_knowledge_is_answered() {
    let (process, port) = whoami("http.maxHeadFields: 16");
    let h2 = |more: &[&str]| curl("h2.example", port, "/p?q", &[&["--http2-prior-knowledge"], more].concat());
    let (status, body) = h2(&["-d", "body", "-H", "X-Own: 1"]);
    assert_eq!(status, 200, "{body}");
    for line in ["host: h2.example\n", "method: POST\n", "path: /p?q\n", "x-own: 1\n"] {
        assert!(body.contains(line), "{line}: {body}");
    }
    process.wait_for(&["request", "POST", "status=200", "bytes_in=4"]);
    let fields: Vec<_> = (0..17).flat_map(|i| ["-H".to_owned(), format!("X-{i}: 1")]).collect();
    let (status, body) = h2(&fields.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(status, 431, "{body}");
}
