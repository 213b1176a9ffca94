//! A line that is cut without a word: both ends find out by themselves, in time, and are together again once it is mended.

use crate::support::matrix::TUNNEL;
use crate::support::netns::{End, Line};
use crate::support::{Proc, eventually, free_port, now};
use std::time::Duration;

/// The tunnel of a client that the line does not lead to.
const OTHER: &str = "5f0b4a4e-8b7c-4e6c-9d0e-1f2a3b4c5d6e";
const TIMES: &str = "mux.keepaliveInterval: 500ms, mux.keepaliveTimeout: 2s";
/// What either end may take to find out: the time above, and what a slow machine adds.
const BOUND: Duration = Duration::from_secs(10);

fn start(line: &Line, end: End, yaml: &str) -> Proc {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut command = line.command(end, env!("CARGO_BIN_EXE_pointsman"));
    command.arg("-C").arg(&file);
    Proc::spawn(command, dir)
}

fn client(line: &Line, end: End, tunnel: &str, port: u16, channel: &str) -> Proc {
    let (target, server) = (free_port(), End::Near.addr());
    let yaml = format!(
        "services:
- addr: :0
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: c, metadata: {{ connectTimeout: 1s, handshakeTimeout: 1s }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
- addr: 127.0.0.1:{target}
  handler: {{ type: whoami }}
chains:
- name: c
  hops:
  - nodes:
    - name: server
      addr: {server}:{port}
      connector: {{ type: tunnel, metadata: {{ tunnel.id: {tunnel}, connectTimeout: 1s, {TIMES} }} }}
      dialer: {channel}
"
    );
    start(line, end, &yaml)
}

/// The status that a visitor of that host gets at the server.
fn visit(line: &Line, host: &str, port: u16) -> u16 {
    let mut curl = line.command(End::Near, "curl");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "-H"]);
    let output = curl.arg(format!("Host: {host}")).arg(format!("http://127.0.0.1:{port}/")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).parse().unwrap()
}

fn answers(line: &Line, host: &str, port: u16) {
    eventually(&format!("{host} is answered"), || (visit(line, host, port) == 200).then_some(()));
}

fn is_found_by_both_ends(kind: &str, metadata: &str) {
    let (line, port, entry) = (Line::new(), free_port(), free_port());
    let channel = format!("{{ type: {kind}, metadata: {{ handshakeTimeout: 1s{metadata} }} }}");
    let server = start(
        &line,
        End::Near,
        &format!(
            "services:
- addr: 0.0.0.0:{port}
  listener: {channel}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{entry}', tunnel: 'far.host:{TUNNEL},near.host:{OTHER}', {TIMES} }}
"
        ),
    );
    server.wait_for(&["listening", "role=\"service\""]);
    let far = client(&line, End::Far, TUNNEL, port, &channel);
    let near = client(&line, End::Near, OTHER, port, &channel);
    let hosts = ["far.host", "near.host"];
    hosts.iter().for_each(|host| answers(&line, host, entry));
    let before = [&server, &far, &near].map(Proc::descriptors);

    line.cut();
    let cut = now();
    server.wait_for(&["connector down", TUNNEL]);
    far.wait_for(&["disconnected"]);
    assert!(cut.elapsed() < BOUND, "{kind}: found after {:?}", cut.elapsed());
    assert_eq!((visit(&line, "far.host", entry), visit(&line, "near.host", entry)), (503, 200), "{kind}");
    far.wait_for(&["cannot connect"]);

    line.mend();
    hosts.iter().for_each(|host| answers(&line, host, entry));
    for (process, before) in [&server, &far, &near].into_iter().zip(before) {
        let what = format!("{kind}: {before} descriptors, and no more");
        eventually(&what, || (process.descriptors() <= before).then_some(()));
    }
    assert!(!near.log().contains("disconnected"), "{kind}: {}", near.log());
}

macro_rules! channels {
    ($($kind:ident $metadata:literal;)*) => {
        $(#[test]
        fn $kind() {
            is_found_by_both_ends(stringify!($kind), $metadata);
        })*
    };
}

channels! {
    tcp "";
    tls "";
    ws ", keepalive: true, ttl: 1s";
    h2 ", keepalive: true, ttl: 1s";
    quic ", keepAlive: true, ttl: 500ms, maxIdleTimeout: 2s";
}
