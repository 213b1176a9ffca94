//! What the log says, in which form, and where.

use crate::support::matrix::TUNNEL;
use crate::support::{
    Proc, Program::Ours, backend, connect, eventually, exchange, free_port, read_all, relay, wait_for_port,
};
use serde_json::Value;
use std::io::Write;

fn records(log: &str, what: &str) -> Vec<Value> {
    let lines =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == what).collect()
}

/// A tunnel with its client in one process, JSON in its log.
fn tunnel(target: u16, log: &str) -> (Proc, u16) {
    let (port, visit) = (free_port(), free_port());
    let process = Ours.start(&format!(
        "log: {{ {log} }}
services:
- name: server
  addr: 127.0.0.1:{port}
  handler: {{ type: tunnel, metadata: {{ entrypoint: '127.0.0.1:{visit}', tunnel: '*.known.host:{TUNNEL}', sniffing.timeout: 300ms }} }}
- name: client
  addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: web, addr: '127.0.0.1:{target}', filter: {{ host: a.known.host }} }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
"
    ));
    process.wait_for(&["connected"]);
    (process, visit)
}

/// The only record of that kind of one visitor at one service, once it is there.
fn record(process: &Proc, service: &str, client: &str, what: &str) -> Value {
    eventually(&format!("a record of {client} at {service}"), || {
        let all = records(&process.log(), what);
        let mut own = all.into_iter().filter(|r| r["service"] == service && r["client"] == client);
        let found = own.next()?;
        assert!(own.next().is_none(), "more than one record of {client}");
        Some(found)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_connections_and_refusals_have_the_same_fields() {
    let (process, visit) = tunnel(backend::http("web").await, "format: json");
    let visitor = |bytes: &[u8]| {
        let mut stream = connect(visit);
        stream.write_all(bytes).unwrap();
        read_all(&mut stream);
        stream.local_addr().unwrap().to_string()
    };
    let get = |host: &str| format!("GET /path HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let common = |record: &Value, host: &str, outcome: &str| {
        assert_eq!((&record["host"], &record["outcome"]), (&host.into(), &outcome.into()), "{record}");
        assert!(record["bytes_in"].is_u64() && record["bytes_out"].is_u64(), "{record}");
        assert!(record["elapsed"].as_f64().is_some_and(|seconds| (0.0..30.0).contains(&seconds)), "{record}");
    };

    let client = visitor(get("a.known.host").as_bytes());
    let at_server = record(&process, "server", &client, "request");
    common(&at_server, "a.known.host", "ok");
    assert_eq!((&at_server["status"], &at_server["method"]), (&200.into(), &"GET".into()));
    assert_eq!((&at_server["route"], &at_server["tunnel"]), (&"*.known.host".into(), &TUNNEL.into()));
    assert_eq!(at_server["connector"].as_str().unwrap().len(), 36);
    let at_client = record(&process, "client", &client, "request");
    common(&at_client, "a.known.host", "ok");
    assert_eq!((&at_client["node"], &at_client["route"]), (&"web".into(), &"a.known.host".into()));
    assert_eq!(at_client["connector"], at_server["connector"]);
    assert!(at_client["bytes_out"].as_u64().unwrap() > 10, "{at_client}");

    let client = visitor(get("b.known.host").as_bytes());
    let refused = record(&process, "client", &client, "request");
    common(&refused, "b.known.host", "no_route");
    assert_eq!((&refused["status"], &refused["request_id"].as_str().unwrap().len()), (&502.into(), &16));
    let client = visitor(get("other.host").as_bytes());
    common(&record(&process, "server", &client, "request"), "other.host", "no_route");

    // The target knows no TLS and answers with an error of its own.
    let client = visitor(&relay::client_hello(b"a.known.host"));
    let tls = record(&process, "server", &client, "connection");
    common(&tls, "a.known.host", "ok");
    assert_eq!((&tls["protocol"], &tls["tunnel"]), (&"tls".into(), &TUNNEL.into()));
    assert!(tls["bytes_in"].as_u64().unwrap() > 60, "{tls}");
    let client = visitor(&relay::client_hello(b"other.host"));
    common(&record(&process, "server", &client, "connection"), "other.host", "no_route");
    for (bytes, outcome) in
        [(&b"\xff\xff"[..], "no_host"), (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "bad_client_hello")]
    {
        let client = visitor(bytes);
        let record = record(&process, "server", &client, "connection");
        assert_eq!(record["outcome"], outcome, "{record}");
        assert!(record["error"].is_string() && record["bytes_in"].is_u64(), "{record}");
    }
}

/// The clock of a connection runs from its beginning, not from when it was known what it is.
#[test]
fn the_time_that_sniffing_takes_counts() {
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let process = Ours.start(&format!(
        "log: {{ format: json }}
services:
- name: s
  addr: 127.0.0.1:{port}
  handler: {{ type: tcp, metadata: {{ sniffing: true, sniffing.timeout: 500ms }} }}
  forwarder: {{ nodes: [{{ addr: '{}' }}] }}
",
        target.local_addr().unwrap()
    ));
    process.wait_for(&["listening"]);
    let visitor = connect(port);
    drop(target.accept().unwrap());
    let client = visitor.local_addr().unwrap().to_string();
    drop(visitor);
    let raw = record(&process, "s", &client, "connection");
    assert!(raw["elapsed"].as_f64().is_some_and(|seconds| seconds >= 0.5), "{raw}");
}

/// What a stranger writes can neither end a line nor fill the disk.
#[tokio::test(flavor = "multi_thread")]
async fn text_of_strangers_is_bounded_and_escaped() {
    for format in ["json", "text"] {
        let (process, visit) = tunnel(backend::http("web").await, &format!("format: {format}, level: trace"));
        let before = process.log().lines().count();
        let long = "m".repeat(60_000);
        let name = [b'a'; 250];
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a.known.host\x1b[31m\r\nConnection: close\r\n\r\n"[..],
            format!("GET /{long} HTTP/1.1\r\nHost: a.known.host\r\nConnection: close\r\n\r\n").as_bytes(),
            format!(
                "GET / HTTP/1.1\r\nHost: x.known.host\r\n\r\n{long} / HTTP/1.1\r\nHost: x.known.host\r\n\r\n"
            )
            .as_bytes(),
            format!("GET / HTTP/1.1\r\nHost: {long}.known.host\r\nConnection: close\r\n\r\n").as_bytes(),
            &relay::client_hello(b"a\n.known.host level=ERROR\x1b[2J"),
            &relay::client_hello(&name),
        ] {
            exchange(visit, bytes);
        }
        let mut last = connect(visit);
        last.write_all(b"GET / HTTP/1.1\r\nHost: a.known.host\r\nConnection: close\r\n\r\n").unwrap();
        read_all(&mut last);
        process.wait_for(&["request", &last.local_addr().unwrap().to_string(), "200"]);
        let log = process.log();
        assert!(!log.contains('\x1b'), "{log}");
        for line in log.lines().skip(before) {
            assert!(line.len() < 2_000, "{} bytes: {}", line.len(), &line[..300]);
            assert!(line.starts_with(if format == "json" { "{" } else { "2" }), "{line}");
        }
        if format == "json" {
            records(&log, "request");
        }
    }
}

fn one_service(log: &str) -> (String, u16) {
    let port = free_port();
    (
        format!(
            "log: {{ {log} }}\nservices: [{{ addr: '127.0.0.1:{port}', handler: {{ type: whoami }} }}]\n"
        ),
        port,
    )
}

#[test]
fn output_and_level_are_as_configured() {
    let ask = |port| {
        wait_for_port(port);
        assert!(
            exchange(port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").0.contains("200 OK")
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let (yaml, port) = one_service(&format!("output: '{}'", file.display()));
    let process = Ours.start(&yaml);
    ask(port);
    eventually("the file has the record", || {
        std::fs::read_to_string(&file).unwrap().contains("request").then_some(())
    });
    assert_eq!(process.log(), "");

    let (yaml, port) = one_service("output: none");
    let mut process = Ours.start(&yaml);
    ask(port);
    process.signal("TERM");
    assert_eq!((process.wait(), process.log().as_str()), (Some(0), ""));

    let (yaml, port) = one_service("output: stdout, level: warn");
    let quiet = Ours.start(&yaml);
    ask(port);
    assert_eq!(quiet.log(), "");
    let (yaml, port) = one_service("output: stdout, level: error");
    let loud = Ours.start_with(&yaml, &[], &[("POINTSMAN_LOG", "info,pointsman::app=off")]);
    ask(port);
    loud.wait_for(&["request", "service-0"]);
    assert!(!loud.log().contains("listening"), "{}", loud.log());
    assert!(!loud.log().contains("bad_request"), "{}", loud.log());

    let (yaml, _) = one_service("level: info");
    let mut wrong = Ours.start_with(&yaml, &[], &[("POINTSMAN_LOG", "verbose")]);
    assert_eq!(wrong.wait(), Some(1));
    wrong.wait_for(&["POINTSMAN_LOG", "verbose", "expected a level"]);
}
