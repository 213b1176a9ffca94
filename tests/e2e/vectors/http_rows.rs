//! The rows of the HTTP recording at our entrypoint.

use super::http_cases::{SWITCH, World};
use super::{PRIVATE, server};
use crate::support::relay::{Peer, client_hello, loopback};
use crate::support::vectors::{rows, text};
use std::io::Write;

/// How ours stands to what the row says.
enum Ours {
    Same,
    /// Why it differs.
    Differs(&'static str),
}
use Ours::{Differs, Same};

/// The beginning of each row, how ours stands to it, and ours.
type Case = (&'static str, Ours, fn(&World));

const CASES: [Case; 33] = [
    ("GET /a, then GET /b on the same connection ", Same, two_requests),
    ("GET /a, then GET /b with Host: nope.local", Same, another_host),
    ("GET /a with 'Connection: close'", Differs("a defect there"), connection_close),
    ("GET /a HTTP/1.0", Differs("a defect there; bytes pass unchanged"), http_1_0),
    ("unknown host / private host", Differs("the body says why"), no_route),
    ("known host, no live connector", Differs("the body says why"), no_connector),
    (
        "no Host header (1.1 and 1.0)",
        Differs("RFC 9112: 400; in 1.0 there may be none, but no rule either"),
        no_host,
    ),
    ("Host: SRV-0.local", Differs("names have no case"), host_in_capitals),
    ("Host: srv-0.local:8080", Same, host_with_port),
    ("Host: a.b.wild.local / wild.local", Same, wildcard),
    (
        "GET http://srv-0.local/x with Host: other",
        Differs("two hosts that disagree are ambiguous"),
        absolute_form,
    ),
    ("CONNECT srv-0.local:443", Same, connect_method),
    (
        "X-Forwarded-For: 9.8.7.6, 1.1.1.1",
        Differs("anybody can write the field: the source stays the socket's"),
        forwarded_for,
    ),
    ("Gost-Sid: abc", Differs("no field is added unasked"), gost_sid),
    ("Gost-Record: off", Differs("no field is taken away unasked"), gost_record),
    (
        "Gost-Forwarded-Node: a, b",
        Differs("appended, and only with entrypoint.forwardedNode"),
        forwarded_node,
    ),
    ("no User-Agent", Differs("no field is added unasked"), no_user_agent),
    ("websocket upgrade", Differs("names keep their spelling"), websocket),
    ("chunked response", Same, chunked_reply),
    ("close-delimited response", Differs("a defect there"), close_delimited),
    ("103 Early Hints + 200", Differs("interim replies pass"), early_hints),
    ("POST with Transfer-Encoding: chunked", Differs("passed on in the visitor's chunks"), chunked_request),
    ("Expect: 100-continue", Differs("interim replies pass"), expect_continue),
    ("backend closes without answer / writes garbage", Differs("a bad reply is 502"), no_answer),
    ("backend silent for entrypoint.readTimeout", Differs("504"), silent),
    ("'PRI * HTTP/2.0' preface", Differs("HTTP/2 is routed, see grpc.rs"), http2),
    ("0xff 0xfe ... or 'SSH-2.0-x'", Same, no_http),
    ("nothing sent", Differs("closed after sniffing.timeout"), nothing),
    ("TLS, SNI srv-0.local", Same, tls_known),
    ("TLS, SNI unknown / private / upper case / absent", Differs("names have no case"), tls_unknown),
    (
        "TLS record header announcing 255 bytes",
        Differs("closed after sniffing.clientHelloTimeout"),
        half_a_hello,
    ),
    ("TLS record that is not a ClientHello", Same, no_hello),
    ("TLS, backend never answers ServerHello", Differs("its own connection waits, no other one"), mute_tls),
];

#[test]
fn every_http_case_is_answered_as_the_table_says() {
    let text = text("27");
    let rows = rows(&text);
    assert_eq!(rows.len(), CASES.len());
    let world = World::new();
    for (row, (begins, ours, case)) in rows.iter().zip(&CASES) {
        assert!(row.starts_with(begins), "{row}");
        match ours {
            Same => println!("{row}"),
            Differs(why) => println!("{row}\n    ours differs: {why}"),
        }
        case(&world);
    }
    assert!(!world.server.log().contains("connector down") && !world.client.log().contains("disconnected"));
}

/// A request for `/a`, with more fields where given as whole lines.
fn get(host: &str, more: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

fn two_requests(world: &World) {
    let (visitor, reply) = world.ask(&get("srv-0.local", ""));
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nGET /a HTTP/1.1\r\nHost: srv-0.local\r\n\r\n"), "unchanged: {reply}");
    visitor.stays_open();
}

fn another_host(world: &World) {
    let (mut visitor, _) = world.ask(&get("srv-0.local", ""));
    visitor.send(get("nope.local", ""));
    let reply = visitor.reply();
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
    visitor.stays_open();
}

fn connection_close(world: &World) {
    let (visitor, reply) = world.ask(&get("srv-0.local", "Connection: close\r\n"));
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    visitor.ends();
}

fn http_1_0(world: &World) {
    let (visitor, reply) = world.ask("GET /a HTTP/1.0\r\nHost: srv-0.local\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nGET /a HTTP/1.0\r\nHost: srv-0.local\r\n\r\n"), "unchanged: {reply}");
    visitor.ends();
}

fn no_route(world: &World) {
    for host in ["nope.local", "srv-1.local"] {
        let (visitor, reply) = world.ask(&get(host, ""));
        assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
        assert!(reply.contains("502 no route for host"), "{reply}");
        assert!(!reply.contains(PRIVATE), "{reply}");
        visitor.stays_open();
    }
}

fn no_connector(world: &World) {
    let (visitor, reply) = world.ask(&get("empty.local", ""));
    assert!(reply.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{reply}");
    assert!(reply.contains("503 no connector"), "{reply}");
    visitor.stays_open();
}

fn no_host(world: &World) {
    let (visitor, reply) = world.ask("GET /a HTTP/1.1\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{reply}");
    visitor.ends();
    let (visitor, reply) = world.ask("GET /a HTTP/1.0\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
    visitor.ends();
}

fn host_in_capitals(world: &World) {
    let (visitor, reply) = world.ask(&get("SRV-0.local", ""));
    assert!(reply.ends_with("\r\nHost: SRV-0.local\r\n\r\n"), "unchanged: {reply}");
    visitor.stays_open();
}

/// A connector that is a script sees the header of the stream.
fn stream_of(request: &str) -> (Vec<u8>, u16) {
    let (_server, port, visit) = server();
    let mut connector = Peer::connector(port, false);
    let mut visitor = crate::support::connect(visit);
    visitor.write_all(request.as_bytes()).unwrap();
    (connector.accept(b"\r\n\r\n").1, visitor.local_addr().unwrap().port())
}

fn host_with_port(world: &World) {
    let request = get("srv-0.local:8080", "");
    let (visitor, reply) = world.ask(&request);
    assert!(reply.ends_with(&request), "unchanged: {reply}");
    visitor.stays_open();
    let (stream, _) = stream_of(&request);
    let destination = crate::support::relay::name("srv-0.local", 8080);
    assert!(stream.windows(destination.len()).any(|w| w == destination), "{stream:02x?}");
}

fn wildcard(world: &World) {
    for host in ["a.b.wild.local", "wild.local"] {
        let (visitor, reply) = world.ask(&get(host, ""));
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        visitor.stays_open();
    }
}

fn absolute_form(world: &World) {
    let (visitor, reply) = world.ask("GET http://srv-0.local/x HTTP/1.1\r\nHost: other\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{reply}");
    visitor.ends();
    let request = "GET http://srv-0.local/x HTTP/1.1\r\nHost: srv-0.local\r\n\r\n";
    let (visitor, reply) = world.ask(request);
    assert!(reply.ends_with(request), "unchanged: {reply}");
    visitor.stays_open();
}

fn connect_method(world: &World) {
    let request = "CONNECT srv-0.local:443 HTTP/1.1\r\nHost: srv-0.local:443\r\n\r\n";
    let (mut visitor, reply) = world.ask(request);
    assert_eq!(reply, "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(visitor.until("\r\n\r\n"), request, "unchanged");
    visitor.send("\u{1}\u{0}raw\r\n\r\n");
    visitor.until("\u{1}\u{0}raw\r\n\r\n");
}

fn forwarded_for(world: &World) {
    let request = get("srv-0.local", "X-Forwarded-For: 9.8.7.6, 1.1.1.1\r\n");
    assert!(world.ask(&request).1.ends_with(&request));
    let (stream, port) = stream_of(&request);
    let source = loopback(port);
    assert_eq!(stream[4..4 + source.len()], source, "{stream:02x?}");
}

fn passes_unchanged(world: &World, more: &str) {
    let request = get("srv-0.local", more);
    let (visitor, reply) = world.ask(&request);
    assert!(reply.ends_with(&format!("\r\n\r\n{request}")), "{reply}");
    visitor.stays_open();
}

fn gost_sid(world: &World) {
    passes_unchanged(world, "Gost-Sid: abc\r\n");
}

fn gost_record(world: &World) {
    passes_unchanged(world, "Gost-Record: off\r\n");
}

fn forwarded_node(world: &World) {
    passes_unchanged(world, "Gost-Forwarded-Node: a, b\r\n");
}

fn no_user_agent(world: &World) {
    passes_unchanged(world, "");
}

fn websocket(world: &World) {
    let upgrade =
        "GET /websocket HTTP/1.1\r\nHost: srv-0.local\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let (mut visitor, reply) = world.ask(upgrade);
    assert_eq!(reply, SWITCH, "unchanged");
    visitor.send("\u{1}\u{0}raw\r\n\r\n");
    visitor.until("\u{1}\u{0}raw\r\n\r\n");
}

fn chunked_reply(world: &World) {
    let (mut visitor, _) = world.ask("GET /chunks HTTP/1.1\r\nHost: srv-0.local\r\n\r\n");
    assert_eq!(visitor.until("one\r\n"), "3\r\none\r\n", "before the target has sent the rest");
    world.go.send(()).unwrap();
    assert_eq!(visitor.until("0\r\n\r\n"), "3\r\ntwo\r\n0\r\n\r\n");
    visitor.stays_open();
}

fn close_delimited(world: &World) {
    let (mut visitor, _) = world.ask("GET /close-delimited HTTP/1.1\r\nHost: srv-0.local\r\n\r\n");
    visitor.until("all of it");
    visitor.ends();
}

fn early_hints(world: &World) {
    let (mut visitor, reply) = world.ask("GET /hints HTTP/1.1\r\nHost: srv-0.local\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n"), "{reply}");
    let reply = visitor.reply();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("ok"), "{reply}");
    visitor.stays_open();
}

fn chunked_request(world: &World) {
    let request = "POST /sum HTTP/1.1\r\nHost: srv-0.local\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n";
    let (visitor, reply) = world.ask(request);
    assert!(reply.ends_with(request), "unchanged: {reply}");
    visitor.stays_open();
}

fn expect_continue(world: &World) {
    let head =
        "POST /expect HTTP/1.1\r\nHost: srv-0.local\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let (mut visitor, reply) = world.ask(head);
    assert_eq!(reply, "HTTP/1.1 100 Continue\r\n\r\n");
    visitor.send("body");
    let reply = visitor.reply();
    assert!(reply.ends_with(&format!("{head}body")), "unchanged: {reply}");
    visitor.stays_open();
}

fn no_answer(world: &World) {
    for (path, status) in [("/drop", "503 Service Unavailable"), ("/garbage", "502 Bad Gateway")] {
        let (visitor, reply) = world.ask(&format!("GET {path} HTTP/1.1\r\nHost: srv-0.local\r\n\r\n"));
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{reply}");
        visitor.stays_open();
    }
}

fn silent(world: &World) {
    let (visitor, reply) = world.ask("GET /silent HTTP/1.1\r\nHost: srv-0.local\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{reply}");
    visitor.stays_open();
}

fn http2(world: &World) {
    let mut visitor = world.visitor();
    visitor.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0");
    // Our SETTINGS acknowledge the visitor's.
    visitor.until("\0\0\0\u{4}\u{1}\0\0\0\0");
}

fn no_http(world: &World) {
    for bytes in [&b"\xff\xfe\0\0\0"[..], b"SSH-2.0-x\r\n"] {
        let mut visitor = world.visitor();
        visitor.send(bytes);
        visitor.ends();
    }
}

fn nothing(world: &World) {
    world.visitor().ends();
}

fn tls_known(world: &World) {
    let hello = client_hello(b"srv-0.local");
    let mut visitor = world.visitor();
    visitor.send(&hello);
    // The target sends it back.
    visitor.until("srv-0.local");
}

fn tls_unknown(world: &World) {
    for name in ["nope.local", "srv-1.local", ""] {
        let mut visitor = world.visitor();
        visitor.send(client_hello(name.as_bytes()));
        visitor.ends();
    }
    let mut visitor = world.visitor();
    visitor.send(client_hello(b"SRV-0.local"));
    visitor.until("SRV-0.local");
}

fn half_a_hello(world: &World) {
    let mut visitor = world.visitor();
    visitor.send(b"\x16\x03\x01\x00\xff");
    visitor.ends_or_resets();
}

fn no_hello(world: &World) {
    let mut visitor = world.visitor();
    visitor.send(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00");
    visitor.ends_or_resets();
}

fn mute_tls(world: &World) {
    let mut visitor = world.visitor();
    visitor.send(client_hello(b"mute.local"));
    // As long as entrypoint.readTimeout.
    silent(world);
    two_requests(world);
}
