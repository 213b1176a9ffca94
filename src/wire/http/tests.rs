use super::*;
use bytes::{Bytes, BytesMut};

fn request(text: impl AsRef<[u8]>) -> Result<Option<RequestHead>, Rejected> {
    HeadReader::default().request(&mut BytesMut::from(text.as_ref()), &Limits::default())
}

fn accepted(text: impl AsRef<[u8]>) -> RequestHead {
    let text = text.as_ref();
    request(text).unwrap_or_else(|e| panic!("{e}: {}", text.escape_ascii())).expect("whole head")
}

fn get() -> RequestHead {
    accepted("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn reply(text: impl AsRef<[u8]>, to: &RequestHead) -> Result<ReplyHead, Rejected> {
    HeadReader::default()
        .reply(&mut BytesMut::from(text.as_ref()), &Limits::default(), to)
        .map(|head| head.expect("whole head"))
}

#[test]
fn a_request_head_says_what_it_means() {
    let text = "POST /a/b?x=1?y HTTP/1.1\r\nHost: Known.Host.:8080\r\nX-One: \t a b \r\nx-one:\r\nContent-Length: 12\r\n\r\n";
    let mut buf = BytesMut::from(text);
    buf.extend_from_slice(b"the body ...");
    let head = HeadReader::default().request(&mut buf, &Limits::default()).unwrap().unwrap();
    assert_eq!(&buf[..], b"the body ...");
    assert_eq!(head.raw(), text);
    assert_eq!((head.method(), head.target()), ("POST", "/a/b?x=1?y"));
    assert_eq!((head.path(), head.query()), ("/a/b", Some("x=1?y")));
    assert_eq!(head.authority().unwrap().to_string(), "known.host:8080");
    assert_eq!(head.framing(), Framing::Length(12));
    assert!(head.keep_alive() && !head.is_http10() && !head.idempotent() && head.upgrade().is_none());
    let fields: Vec<_> = head.fields().collect();
    assert_eq!(fields[1], ("X-One", &b"a b"[..]));
    assert_eq!(fields[2], ("x-one", &b""[..]));
    assert_eq!(fields.len(), 4);
    assert_eq!(head.field("X-ONE"), Some(&b"a b"[..]));
    assert_eq!(head.field("x-two"), None);
}

#[test]
fn targets_of_every_form() {
    for (line, authority, path, query) in [
        ("GET / HTTP/1.1\r\nHost:", None, "/", None),
        ("GET / HTTP/1.0", None, "/", None),
        ("GET / HTTP/1.0\r\nHost: [::1]:8080", Some("[::1]:8080"), "/", None),
        ("GET //x?q HTTP/1.1\r\nHost: a:", Some("a:80"), "//x", Some("q")),
        ("GET http://A/p?q HTTP/1.1\r\nHost: a:80", Some("a:80"), "/p", Some("q")),
        ("GET HTTP://a HTTP/1.1\r\nHost: a", Some("a:80"), "/", None),
        ("GET https://a?q HTTP/1.1\r\nHost: a", Some("a:443"), "/", Some("q")),
        ("GET wss://a:1/ HTTP/1.0", Some("a:1"), "/", None),
        ("OPTIONS * HTTP/1.1\r\nHost: a", Some("a:80"), "*", None),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443", Some("a:443"), "", None),
        ("CONNECT [::1]:22 HTTP/1.0", Some("[::1]:22"), "", None),
    ] {
        let head = accepted(format!("{line}\r\n\r\n"));
        assert_eq!(head.authority().map(ToString::to_string).as_deref(), authority, "{line}");
        assert_eq!((head.path(), head.query()), (path, query), "{line}");
    }
}

#[test]
fn request_lines_that_are_refused() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /",
        "GET / ",
        "GET HTTP/1.1",
        "/ HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET / HTTP/2.0",
        "GET / HTTP/1.2",
        "GET / HTTP/1.10",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1,1",
        "GET / ICAP/1.0",
        "PRI * HTTP/2.0",
        "GET * HTTP/1.1",
        "GET /#f HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET ?q HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:/a/ HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://:80/a HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://u:p@a/ HTTP/1.1",
        "GET http://b/ HTTP/1.1",
        "GET http://a:81/ HTTP/1.1",
        "GET http://a:x/ HTTP/1.1",
        "GET http://a\\b/ HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT a:0 HTTP/1.1",
        "CONNECT a: HTTP/1.1",
        "CONNECT b:80 HTTP/1.1",
        "CONNECT /a HTTP/1.1",
        "CONNECT http://a:80/ HTTP/1.1",
        "CONNECT a:80/ HTTP/1.1",
        "CONNECT ::1:80 HTTP/1.1",
    ] {
        let got = request(format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(got.map(|_| ()).map_err(|e| e.status), Err(400), "{line:?}");
    }
}

#[test]
fn fields_that_are_refused() {
    for fields in [
        &b"X: 1"[..],
        b"Host: a\r\nHost: a",
        b"Host: a\r\nhost: b",
        b"Host: a:x",
        b"Host: a:99999",
        b"Host: :80",
        b"Host: a b",
        b"Host: a, b",
        b"Host: a/b",
        b"Host: u@a",
        b"Host: ::1",
        b"Host: a:80:80",
        b"Host: [::1",
        b"Host: a..b",
        b"Host : a",
        b"Host\t: a",
        b" Host: a",
        b"Host: a\r\n X: 1",
        b"Host: a\r\n\tX: 1",
        b"Host: a\r\nX: 1\r\n 2",
        b"Host: a\r\n: 1",
        b"Host: a\r\nX",
        b"Host: a\r\nX Y: 1",
        b"Host: a\r\nX(: 1",
        b"Host: a\r\nX\xe9: 1",
        b"Host: a\nX: 1",
        b"Host: a\rX: 1",
        b"Host: a\r\r\nX: 1",
        b"Host: a\r\nX: \0",
        b"Host: a\r\nX: \x01",
        b"Host: a\r\nX: \x7f",
        b"Host: a\r\nContent-Length: 5\r\nContent-Length: 5",
        b"Host: a\r\nContent-Length: 5\r\ncontent-length: 6",
        b"Host: a\r\nContent-Length: 5, 5",
        b"Host: a\r\nContent-Length: +5",
        b"Host: a\r\nContent-Length: -0",
        b"Host: a\r\nContent-Length: 0x5",
        b"Host: a\r\nContent-Length: 5 5",
        b"Host: a\r\nContent-Length: 05",
        b"Host: a\r\nContent-Length: 5.0",
        b"Host: a\r\nContent-Length:",
        b"Host: a\r\nContent-Length: 18446744073709551616",
        b"Host: a\r\nContent-Length : 5",
        b"Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        b"Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0",
        b"Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Host: a\r\nTransfer-Encoding: chunked, chunked",
        b"Host: a\r\nTransfer-Encoding: gzip, chunked",
        b"Host: a\r\nTransfer-Encoding: chunked;q=1",
        b"Host: a\r\nTransfer-Encoding: ,chunked",
        b"Host: a\r\nTransfer-Encoding: \"chunked\"",
        b"Host: a\r\nTransfer-Encoding: xchunked",
        b"Host: a\r\nTransfer-Encoding: identity",
        b"Host: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        b"Host: a\r\nTransfer-Encoding:",
        b"Host: a\r\nTransfer-Encoding: \x0bchunked",
        b"Host: a\r\nConnection: close, Content-Length",
        b"Host: a\r\nConnection: host",
        b"Host: a\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding",
        b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1",
        b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked",
        b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x",
        b"Host: a\r\nConnection: upgrade\r\nUpgrade: ,",
    ] {
        let text = [b"POST / HTTP/1.1\r\n", fields, b"\r\n\r\n"].concat();
        let got = request(&text).map(|_| ()).map_err(|e| e.status);
        assert_eq!(got, Err(400), "{}", fields.escape_ascii());
    }
    for text in [
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(request(text).map(|_| ()).map_err(|e| e.status), Err(400), "{text:?}");
    }
}

#[test]
fn every_byte_in_a_value_is_allowed_or_refused_by_rule() {
    for byte in 0..=255u8 {
        let text = [b"GET / HTTP/1.1\r\nHost: a\r\nX: a", &[byte][..], b"b\r\n\r\n"].concat();
        assert_eq!(request(&text).is_ok(), is_value(byte), "{byte:#x}");
        let text = [b"GET / HTTP/1.1\r\nHost: a\r\nX", &[byte][..], b"y: b\r\n\r\n"].concat();
        assert_eq!(request(&text).is_ok(), is_token(byte) || byte == b':', "{byte:#x}");
    }
}

#[test]
fn one_empty_line_before_a_request_is_dropped() {
    let mut buf = BytesMut::from("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest");
    let head = HeadReader::default().request(&mut buf, &Limits::default()).unwrap().unwrap();
    assert_eq!((&head.raw()[..3], &buf[..]), (&b"GET"[..], &b"rest"[..]));
}

#[test]
fn persistence_and_upgrade() {
    for (version, connection, keep) in [
        ("1.1", "x", true),
        ("1.1", "Close", false),
        ("1.1", "keep-alive, close", false),
        ("1.0", "x", false),
        ("1.0", "Keep-Alive", true),
        ("1.0", "keep-alive ,close", false),
    ] {
        let head = accepted(format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n"));
        assert_eq!(head.keep_alive(), keep, "{version} {connection}");
    }
    for (version, fields, upgrade, h2c) in [
        ("1.1", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket", Some("websocket"), false),
        ("1.1", "Connection: a\r\nConnection: upgrade\r\nUpgrade: a/1, b", Some("a/1, b"), false),
        ("1.1", "Upgrade: websocket", None, false),
        ("1.1", "Upgrade: h2c", None, false),
        ("1.1", "Connection: upgrade", None, false),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket", None, false),
        ("1.1", "Connection: upgrade\r\nUpgrade: websocket, H2C", None, true),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 3", None, true),
    ] {
        let head = accepted(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert_eq!((head.upgrade(), head.offers_h2c()), (upgrade, h2c), "{fields}");
    }
}

#[test]
fn limits_hold_while_the_head_is_incomplete() {
    let limits = Limits { max_bytes: 64, max_fields: 2 };
    let take = |text: &str| {
        HeadReader::default().request(&mut BytesMut::from(text), &limits).map(|head| head.is_some())
    };
    let exact = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(32));
    assert_eq!(exact.len(), 64);
    assert_eq!(take(&exact), Ok(true));
    assert_eq!(take(&exact.replace("X: ", "X: x")).unwrap_err().status, 431);
    assert_eq!(take(&"G".repeat(63)), Ok(false));
    assert_eq!(take(&"G".repeat(64)).unwrap_err().status, 431);
    assert_eq!(take("GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\n\r\n"), Ok(true));
    assert_eq!(take("GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\nC: 1\r\n").unwrap_err().status, 431);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(255));
    assert_eq!(accepted(many).fields().count(), 256);
}

#[test]
fn bad_beginnings_are_refused_at_once() {
    for text in
        ["\x16\x03\x01", "GET /\u{e9}", "GET / HTTP/1.1\n", "GET / HTTP/2.0\r\n", "GET / HTTP/1.1\rX", " "]
    {
        assert!(request(text).is_err(), "{text:?}");
    }
    assert!(HeadReader::default().reply(&mut BytesMut::from("ICY"), &Limits::default(), &get()).is_err());
    assert!(HeadReader::default().reply(&mut BytesMut::from("\r\n"), &Limits::default(), &get()).is_err());
}

/// However small the pieces, no byte of a head is looked at twice but the CR of each line.
#[test]
fn a_head_that_drips_in_is_searched_once() {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(60_000));
    for piece in [1, 7, 60_000] {
        let (mut reader, mut buf, mut heads) = (HeadReader::default(), BytesMut::new(), 0);
        let before = LOOKED_AT.get();
        for piece in text.as_bytes().chunks(piece) {
            buf.extend_from_slice(piece);
            heads += usize::from(reader.request(&mut buf, &Limits::default()).unwrap().is_some());
        }
        let looked_at = LOOKED_AT.get() - before;
        assert_eq!((heads, buf.len()), (1, 0));
        assert!(looked_at <= text.len() + 4, "{looked_at} bytes looked at of {}", text.len());
    }
}

#[test]
fn reply_framing() {
    let head = accepted("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let connect = accepted("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    let ws = accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a, WebSocket\r\n\r\n");
    use Framing::{Chunked, Close, Length, None};
    for (text, to, framing, keep, switches) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", &get(), Length(5), true, false),
        ("HTTP/1.1 200\r\nContent-Length: 0", &get(), None, true, false),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: Chunked", &get(), Chunked, true, false),
        (
            "HTTP/1.1 200 Tr\u{e8}s\tbien\r\nConnection: close\r\nContent-Length: 5",
            &get(),
            Length(5),
            false,
            false,
        ),
        ("HTTP/1.1 200 OK", &get(), Close, false, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5", &get(), Length(5), false, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive", &get(), Length(5), true, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", &head, None, true, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", &head, None, true, false),
        ("HTTP/1.1 304 X\r\nContent-Length: 5", &get(), None, true, false),
        ("HTTP/1.1 204 X\r\nContent-Length: 0", &get(), None, true, false),
        ("HTTP/1.1 204 X", &get(), None, true, false),
        ("HTTP/1.1 100 Continue", &get(), None, true, false),
        ("HTTP/1.1 103 X\r\nLink: x", &get(), None, true, false),
        ("HTTP/1.1 101 X\r\nUpgrade: websocket", &ws, None, false, true),
        ("HTTP/1.1 200 X\r\nContent-Length: 5", &ws, Length(5), true, false),
        ("HTTP/1.1 200 X", &connect, None, false, true),
        ("HTTP/1.1 407 X\r\nContent-Length: 5", &connect, Length(5), true, false),
    ] {
        let got = reply(format!("{text}\r\n\r\n"), to).unwrap_or_else(|e| panic!("{e}: {text:?}"));
        assert_eq!((got.framing(), got.keep_alive(), got.switches()), (framing, keep, switches), "{text:?}");
        assert_eq!(got.is_interim(), matches!(got.status(), 100 | 103));
    }
}

#[test]
fn replies_that_are_refused() {
    let connect = accepted("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    let ws = accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    let h2c = accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n");
    for (text, to) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", &get()),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5", &get()),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5", &get()),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip", &get()),
        ("HTTP/1.1 304 X\r\nTransfer-Encoding: gzip, chunked", &get()),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked", &get()),
        ("HTTP/1.1 204 X\r\nContent-Length: 5", &get()),
        ("HTTP/1.1 204 X\r\nTransfer-Encoding: chunked", &get()),
        ("HTTP/1.1 100 X\r\nContent-Length: 5", &get()),
        ("HTTP/1.1 101 X\r\nUpgrade: websocket", &get()),
        ("HTTP/1.1 101 X\r\nUpgrade: h2c", &h2c),
        ("HTTP/1.1 101 X\r\nUpgrade: other", &ws),
        ("HTTP/1.1 101 X\r\nUpgrade: websocket, other", &ws),
        ("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nUpgrade: websocket", &ws),
        ("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nContent-Length: 5", &ws),
        ("HTTP/1.0 101 X\r\nUpgrade: websocket", &ws),
        ("HTTP/1.1 101 X", &ws),
        ("HTTP/1.1 200 X\r\nContent-Length: 5", &connect),
        ("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked", &connect),
        ("HTTP/1.1 99 X", &get()),
        ("HTTP/1.1 0200 X", &get()),
        ("HTTP/1.1 099 X", &get()),
        ("HTTP/1.1 200X", &get()),
        ("HTTP/1.1  200 X", &get()),
        ("HTTP/1.1 20 X", &get()),
        ("HTTP/2.0 200 X", &get()),
        ("HTTP/1.2 200 X", &get()),
        ("HTTP/1.1 200 X\x01", &get()),
        ("HTTP/1.1 200 X\r\nX : 1", &get()),
        ("HTTP/1.1 200 X\r\nX: 1\r\n 2", &get()),
        ("HTTP/1.1 200 X\r\nX: 1\n", &get()),
        ("HTTP/1.1 200 X\r\nContent-Length: 5\rX: 1", &get()),
    ] {
        let got = reply(format!("{text}\r\n\r\n"), to).map(|_| ()).map_err(|e| e.status);
        assert_eq!(got, Err(502), "{text:?}");
    }
}

fn chunked(bytes: &[u8]) -> (Body, Result<usize, Rejected>) {
    let mut body = Body::new(Framing::Chunked);
    let used = body.advance(bytes);
    (body, used)
}

#[test]
fn chunked_bodies_end_where_they_end() {
    for (text, trailing) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "GET"),
        ("5;a=b;c=\"x y\"\r\nhel\r\n\r\n0000000000000000;z\r\n\r\n", "0\r\n"),
        ("1\r\na\r\n00A\r\n0123456789\r\n0\r\nGrpc-Status: 0\r\nX:\r\n\r\n", "\r\n"),
    ] {
        let (body, used) = chunked(format!("{text}{trailing}").as_bytes());
        assert_eq!((used, body.is_done()), (Ok(text.len()), true), "{text:?}");
        for cut in 0..text.len() {
            let (mut body, used) = chunked(&text.as_bytes()[..cut]);
            assert_eq!((used, body.is_done()), (Ok(cut), false), "{text:?} {cut}");
            assert!(body.end().is_err());
        }
    }
}

#[test]
fn chunked_bodies_that_are_refused() {
    let long_line = format!("1;{}\r\n", "x".repeat(256));
    let long_trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(16 * 1024));
    let many_trailers = format!("0\r\n{}\r\n", "X: 1\r\n".repeat(65));
    for text in [
        "\r\n",
        "x\r\n",
        "+5\r\n",
        "-5\r\n",
        "0x5\r\n",
        " 5\r\n",
        "5 \r\n",
        "5\t\r\n",
        "5 ;a\r\n",
        "5; a\r\n",
        "5\n",
        "5\rh",
        "5;a\n",
        "5;a\rb",
        "5;a\0",
        "5;\"a\r\n",
        "5;\"\\\"\"\r\n",
        "5;\u{e9}\r\n",
        ";a\r\n",
        "00000000000000001\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "5\r\nhello0\r\n",
        "5\r\nhello\n0",
        "5\r\nhello\r0",
        "5\r\nhelloo\r\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\n X: 1\r\n",
        "0\r\nX : 1\r\n",
        "0\r\n: 1\r\n",
        "0\r\nX\r\n",
        "0\r\nX: 1\n",
        "0\r\nX: 1\rY",
        "0\r\nX: \0\r\n",
        "0\r\nX: 1\r\n 2\r\n",
        "0\r\nContent-Length: 5\r\n",
        "0\r\nTransfer-encoding: chunked\r\n",
        "0\r\nHOST: a\r\n",
        "0\r\nA: b\r\nConnection: close\r\n",
        &long_line,
        &long_trailer,
        &many_trailers,
    ] {
        assert!(chunked(text.as_bytes()).1.is_err(), "{text:?}");
        let mut body = Body::new(Framing::Chunked);
        assert!(text.bytes().any(|byte| body.advance(&[byte]).is_err()), "{text:?}");
    }
    assert!(chunked(b"0\r\nTransfer-Encoding-X: chunked\r\n\r\n").1.is_ok());
}

#[test]
fn opaque_bytes_may_be_skipped_unseen() {
    let mut body = Body::new(Framing::Length(10));
    assert_eq!((body.advance(b"abc"), body.opaque()), (Ok(3), 7));
    body.skip(6);
    assert_eq!((body.advance(b"xyz"), body.is_done(), body.opaque()), (Ok(1), true, 0));

    let (mut body, used) = chunked(b"ffffffffffffffff\r\n12");
    assert_eq!((used, body.opaque()), (Ok(20), u64::MAX - 2));
    body.skip(u64::MAX - 2);
    assert_eq!((body.opaque(), body.advance(b"\r\n0\r\n\r\nX"), body.is_done()), (0, Ok(7), true));

    let mut body = Body::new(Framing::Close);
    body.skip(1 << 40);
    assert_eq!((body.opaque(), body.advance(b"any"), body.is_done()), (u64::MAX, Ok(3), false));
    assert_eq!((body.end(), body.is_done()), (Ok(()), true));
    for framing in [Framing::None, Framing::Length(0)] {
        let mut body = Body::new(framing);
        assert_eq!((body.is_done(), body.advance(b"next"), body.end()), (true, Ok(0), Ok(())));
    }
    assert!(Body::new(Framing::Length(1)).end().is_err());
}

#[test]
fn edited_heads_keep_their_end_and_framing() {
    let raw =
        Bytes::from("GET /x:y HTTP/1.1\r\nHost: a\r\nX-a: 1\r\nContent-Length: 5\r\nx-A: 2\r\nY: 3\r\n\r\n");
    assert_eq!(edit_head(&raw, None, &[], &[]), raw);
    assert_eq!(
        edit_head(&raw, None, &["X-A", "GET /x", "content-length", ""], &[("Z", "a b")]),
        "GET /x:y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nY: 3\r\nZ: a b\r\n\r\n"
    );
    let hostile =
        [("Z\r\nQ: 1", "a\r\n\r\nGET"), ("A", "\0\u{e9}\t"), ("", "x"), ("Transfer-Encoding", "chunked")];
    let edited = edit_head(&raw, None, &["host", "x-a"], &hostile);
    assert_eq!(
        edited,
        "GET /x:y HTTP/1.1\r\nContent-Length: 5\r\nY: 3\r\nZ--Q--1: a????GET\r\nA: ???\t\r\n\r\n"
    );
    assert_eq!(edit_head(&Bytes::from("no head"), Some("/"), &["x"], &[("a", "b")]), "no head");
    let moved = edit_head(&raw, Some("/a b\r\n"), &[], &[]);
    assert!(moved.starts_with(b"GET /a-b-- HTTP/1.1\r\nHost: a\r\n") && moved.ends_with(b"Y: 3\r\n\r\n"));
}
