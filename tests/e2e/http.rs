//! HTTP/1 through the reverse proxy: routing per request, strictness, failures.

use crate::support::{Proc, Program, backend, connect, curl, exchange, free_port, read_all, wait_for_port};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

fn reverse_proxy(nodes: &[(&str, u16)]) -> (Proc, u16) {
    let port = free_port();
    let nodes: String = nodes
        .iter()
        .map(|(host, port)| format!("    - {{ name: {host}, addr: 127.0.0.1:{port}, host: {host} }}\n"))
        .collect();
    let yaml = format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, readTimeout: 1s, sniffing.timeout: 500ms }} }}
  listener: {{ type: tcp }}
  forwarder:
    nodes:
{nodes}"
    );
    let proxy = Program::Ours.start(&yaml);
    wait_for_port(port);
    (proxy, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_goes_where_its_own_host_says() {
    let (a, b) = (backend::http("a").await, backend::http("b").await);
    let (_proxy, port) = reverse_proxy(&[("example.com", a), (".example.org", b)]);
    assert_eq!(curl("example.com", port, "/x", &[]), (200, format!("a example.com:{port} /x GET")));
    let (replies, _) = exchange(
        port,
        b"GET /1 HTTP/1.1\r\nHost: Example.COM.\r\n\r\n\
          GET /2 HTTP/1.1\r\nHost: www.example.org:99\r\n\r\n\
          GET /3 HTTP/1.1\r\nHost: badexample.org\r\n\r\n\
          POST /sum HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
          GET /4 HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    );
    let marks =
        ["a Example.COM. /1", "b www.example.org:99 /2", "502 no route", "3 352441c2", "a example.com /4"];
    let at: Vec<_> =
        marks.iter().map(|mark| replies.find(mark).unwrap_or_else(|| panic!("{mark}: {replies}"))).collect();
    assert!(at.is_sorted(), "{replies}");
    assert!(!replies.contains("/5"), "{replies}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_by_server_name_and_stays_closed() {
    let (tls, ca, _dir) = backend::https("tls", "secure.example").await;
    let (_proxy, port) = reverse_proxy(&[("secure.example", tls)]);
    let (status, body) = curl("secure.example", port, "/s", &["--cacert", ca.to_str().unwrap()]);
    assert_eq!((status, body), (200, format!("tls secure.example:{port} /s GET")));
}

/// What two parsers could read in two ways is refused, and nothing after it is read (weak point 23).
#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused() {
    let web = backend::http("web").await;
    let (_proxy, port) = reverse_proxy(&[("h", web)]);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h:abc\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let (reply, closed) = exchange(port, format!("{head}{hidden}").as_bytes());
        assert!(reply.starts_with("HTTP/1.1 400 ") && closed, "{head:?}: {reply:?}, closed: {closed}");
        assert!(!reply.contains("/hidden"), "{head:?}: {reply}");
        assert!(reply.contains("request ID "), "{reply}");
    }
    for head in [
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let (reply, closed) = exchange(port, format!("{head}{hidden}").as_bytes());
        assert!(reply.starts_with("HTTP/1.1 400 ") && closed, "{head:?}: {reply:?}, closed: {closed}");
        assert!(!reply.contains("/hidden"), "{head:?}: {reply}");
    }
    // An empty line in front is no second reading, nor is what comes behind an offer that nobody takes up.
    for head in [
        "\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n\
         GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ] {
        let (reply, closed) = exchange(port, head.as_bytes());
        assert!(
            reply.starts_with("HTTP/1.1 200 ") && !reply.contains("HTTP/1.1 4") && closed,
            "{head:?}: {reply:?}"
        );
    }
    let (reply, closed) =
        exchange(port, b"POST /sum HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n");
    assert!(reply.starts_with("HTTP/1.1 400 ") && closed, "{reply}");
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(70_000));
    let (reply, closed) = exchange(port, long.as_bytes());
    assert!(reply.starts_with("HTTP/1.1 431 ") && closed, "{reply}");
}

/// What only a lenient server would take for HTTP does not pass as raw to a node that takes everything.
#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_http_is_no_raw_connection() {
    let web = backend::http("web").await;
    let port = free_port();
    let _proxy = Program::Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: all, addr: '127.0.0.1:{web}' }}] }}
"
    ));
    wait_for_port(port);
    for start in ["GET\t/", "\r\n\r\nGET /", "\n\nGET /"] {
        let request = format!("{start} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let (reply, closed) = exchange(port, request.as_bytes());
        assert!(
            reply.starts_with("HTTP/1.1 400 ") && reply.contains("request ID ") && closed,
            "{start:?}: {reply}"
        );
    }
}

/// A server that sends `reply` to whoever connects, then keeps the connection.
fn scripted(reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok_and(|n| n > 0) {
                drop(stream.write_all(reply));
            }
            kept.push(stream);
        }
    });
    port
}

#[test]
fn failures_have_their_own_status() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "HTTP/1.1 504 "),
        (b"garbage\r\n\r\n", "HTTP/1.1 502 "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 502 "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 502 "),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 502 "),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 103 ",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA", "HTTP/1.1 200 "),
    ];
    let ports: Vec<_> = cases.iter().map(|(reply, _)| scripted(reply)).collect();
    let names: Vec<_> = (0..cases.len()).map(|i| format!("h{i}")).collect();
    let dead = free_port();
    let mut nodes: Vec<_> = names.iter().map(String::as_str).zip(ports).collect();
    nodes.push(("dead", dead));
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    nodes.push(("closing", closing.local_addr().unwrap().port()));
    std::thread::spawn(move || closing.incoming().for_each(drop));
    let (_proxy, port) = reverse_proxy(&nodes);
    for (i, (_, expected)) in cases.iter().enumerate() {
        let request = format!("GET / HTTP/1.1\r\nHost: h{i}\r\nConnection: close\r\n\r\n");
        let (reply, closed) = exchange(port, request.as_bytes());
        assert!(reply.starts_with(expected) && closed, "{i}: {reply}");
        assert!(!reply.contains("EXTRA"), "{reply}");
    }
    let (reply, _) = exchange(port, b"GET / HTTP/1.1\r\nHost: dead\r\nConnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("503 upstream down"), "{reply}");
    // Nor does it become another failure because there is no other node to try.
    let (reply, _) = exchange(port, b"GET / HTTP/1.1\r\nHost: closing\r\nConnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 503 ") && reply.contains("503 upstream down"), "{reply}");
    let (reply, _) = exchange(port, b"GET / HTTP/1.1\r\nHost: none\r\nConnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 502 ") && reply.contains("no route for host"), "{reply}");
}

/// Bytes that a server sends unasked must not become the next visitor's answer (weak point 21).
#[test]
fn unasked_bytes_on_an_idle_upstream_end_it() {
    let upstream = scripted(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
    );
    let (_proxy, port) = reverse_proxy(&[("h", upstream)]);
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let (reply, _) = exchange(port, request.repeat(3).as_bytes());
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 3, "{reply}");
    assert!(!reply.contains("POISON"), "{reply}");
}

/// The end of a close-delimited reply reaches the visitor (weak point 9).
#[test]
fn a_reply_without_length_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(stream.read(&mut [0; 4096]));
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").unwrap();
    });
    let (_proxy, port) = reverse_proxy(&[("h", upstream)]);
    let (reply, closed) = exchange(port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(reply.ends_with("all of it") && closed, "{reply}");
}

/// A reply or a raw connection that its target breaks off does not look complete.
#[test]
fn what_breaks_off_ends_in_a_reset() {
    use std::io::ErrorKind::ConnectionReset;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().port();
    let (done, next) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.read(&mut [0; 4096]));
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf of it").unwrap();
            next.recv().unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
    });
    let (proxy, port) = reverse_proxy(&[("h", upstream)]);
    let raw_port = free_port();
    let raw = Program::Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{raw_port}
  handler: {{ type: tcp }}
  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{upstream}' }}] }}
"
    ));
    // Looked for in its log: a connection to its port would go through to the target.
    raw.wait_for(&["listening"]);
    for port in [port, raw_port] {
        let mut visitor = connect(port);
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        visitor.read_exact(&mut [0; 29]).unwrap();
        done.send(()).unwrap();
        assert_eq!(visitor.read(&mut [0; 1]).unwrap_err().kind(), ConnectionReset);
    }
    proxy.wait_for(&["upstream ended in mid-reply"]);
    raw.wait_for(&["target failed: connection reset"]);
}

/// A visitor that half-closes gets its answer, and a server may speak first.
#[test]
fn raw_connections_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.write_all(b"220 hello\r\n").unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        }
    });
    let port = free_port();
    let _proxy = Program::Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, sniffing.timeout: 200ms }} }}
  forwarder: {{ nodes: [{{ name: n, addr: 'localhost:{upstream}' }}] }}
"
    ));
    wait_for_port(port);
    let mut visitor = connect(port);
    let mut banner = [0; 11];
    visitor.read_exact(&mut banner).unwrap();
    visitor.write_all(b"\x00\xffbytes").unwrap();
    visitor.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    visitor.read_to_end(&mut rest).unwrap();
    assert_eq!((&banner, &rest[..]), (b"220 hello\r\n", &b"\x00\xffbytes"[..]));
}

/// SIGTERM lets what is under way end; connections leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_stops_gently_and_leaks_nothing() {
    let web = backend::http("web").await;
    let (mut proxy, port) = reverse_proxy(&[("h", web)]);
    exchange(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let before = proxy.descriptors();
    for i in 0..2000 {
        let mut stream = connect(port);
        if i % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
            assert!(read_all(&mut stream).0.starts_with("HTTP/1.1 200 "));
        }
    }
    crate::support::eventually("descriptors are given back", || {
        (proxy.descriptors() <= before).then_some(())
    });

    let mut open = connect(port);
    let len = 20 << 20;
    open.write_all(format!("GET /bytes/{len} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
    let mut first = [0; 1000];
    open.read_exact(&mut first).unwrap();
    proxy.signal("TERM");
    proxy.wait_for(&["stopping"]);
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > len - 1000 && rest.ends_with(b"0\r\n\r\n"), "{}", rest.len());
    assert_eq!(proxy.wait(), Some(0));
}

/// A crowd that asks: everybody gets an answer or an end, and that this process was short of descriptors is held against no node.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_hangs_while_descriptors_are_short_and_no_node_is_blamed() {
    let mut nodes = String::new();
    for name in ["a", "b", "c"] {
        let port = backend::http(name).await;
        nodes += &format!("    - {{ name: {name}, addr: 127.0.0.1:{port} }}\n");
    }
    let port = free_port();
    let proxy = Program::Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true }} }}
  forwarder:
    nodes:
{nodes}"
    ));
    wait_for_port(port);
    let before = proxy.descriptors();
    proxy.limit_descriptors(before + 12);
    let mut crowd: Vec<_> = (0..60).map(|_| connect(port)).collect();
    for visitor in &mut crowd {
        // One that was turned away already may say so here.
        drop(visitor.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    for visitor in &mut crowd {
        let heard = visitor.read(&mut [0; 4096]);
        let silent =
            heard.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(!silent, "{heard:?}");
    }
    drop(crowd);
    // But for some connections to nodes that wait for requests.
    crate::support::eventually("descriptors are given back", || {
        (proxy.descriptors() <= before + 6).then_some(())
    });
    let mut served: Vec<_> = (0..6).map(|_| curl("h", port, "/", &[]).1[..1].to_owned()).collect();
    served.sort();
    assert_eq!(served, ["a", "a", "b", "b", "c", "c"]);
    assert!(!proxy.log().contains("node failed"));
}

/// Out of descriptors the proxy keeps what it has, and is itself again when they return (weak point 22).
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_run_out_and_come_back() {
    let web = backend::http("web").await;
    let (proxy, port) = reverse_proxy(&[("h", web)]);
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut kept = connect(port);
    let mut first = [0; 15];
    kept.write_all(request).unwrap();
    kept.read_exact(&mut first).unwrap();
    let before = proxy.descriptors();
    proxy.limit_descriptors(before + 20);
    let crowd: Vec<_> = (0..100).map(|_| connect(port)).collect();
    proxy.wait_for(&["cannot accept"]);
    kept.write_all(request).unwrap();
    let mut reply = String::new();
    crate::support::eventually("the kept connection is answered", || {
        let mut buf = [0; 4096];
        let n = kept.read(&mut buf).unwrap();
        reply += &String::from_utf8_lossy(&buf[..n]);
        reply.contains("HTTP/1.1 200 OK").then_some(())
    });
    drop(crowd);
    crate::support::eventually("new connections are answered again", || {
        (curl("h", port, "/", &[]).0 == 200).then_some(())
    });
    drop(kept);
    crate::support::eventually("descriptors are given back", || {
        (proxy.descriptors() <= before).then_some(())
    });
}
