//! Channel `quic` in the whole program: who is let in, ports, and ends of processes.

use crate::support::{
    Proc, Program::Ours, connect, eventually, exchange, free_port, read_all, wait_for_port, wait_for_udp_port,
};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// A relay on a UDP port.
fn relay(port: u16, more: &str) -> Proc {
    let relay = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{port}
  listener: {{ type: quic, metadata: {{ handshakeTimeout: 2s }} }}
  handler: {{ type: relay }}
{more}"
    ));
    wait_for_udp_port(port);
    relay
}

/// Whoever visits this reaches the target through the relay.
fn visitors(port: u16, target: u16) -> (Proc, u16) {
    let visit = free_port();
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: c, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{target}' }}] }}
- addr: 127.0.0.1:{target}
  handler: {{ type: whoami }}
chains:
- name: c
  hops:
  - nodes:
    - name: relay
      addr: 127.0.0.1:{port}
      connector: {{ type: relay, metadata: {{ connectTimeout: 1s }} }}
      dialer: {{ type: quic, metadata: {{ handshakeTimeout: 1s, maxIdleTimeout: 1s }} }}
"
    ));
    wait_for_port(visit);
    (process, visit)
}

fn answers(visit: u16) {
    eventually("an answer", || exchange(visit, GET).0.starts_with("HTTP/1.1 200 ").then_some(()));
}

#[test]
fn whoever_is_not_admitted_gets_no_answer() {
    let port = free_port();
    let relay =
        relay(port, "  admission: a\nadmissions: [{ name: a, whitelist: true, matchers: [192.0.2.0/24] }]\n");
    let (visitors, visit) = visitors(port, free_port());
    assert!(exchange(visit, GET).0.starts_with("HTTP/1.1 503 "));
    visitors.wait_for(&["cannot connect", "handshakeTimeout"]);
    relay.wait_for(&["not_admitted", "client=127.0.0.1:"]);
}

/// UDP has ports of its own; a second listener on one of them is told so.
#[test]
fn tcp_may_have_the_same_port() {
    let port = free_port();
    let whoami = format!("- {{ addr: '127.0.0.1:{port}', handler: {{ type: whoami }} }}\n");
    let _relay = relay(port, &whoami);
    wait_for_port(port);
    answers(port);
    let (_visitors, visit) = visitors(port, free_port());
    answers(visit);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let again = format!(
        "services: [{{ addr: '127.0.0.1:{port}', listener: {{ type: quic }}, handler: {{ type: whoami }} }}]"
    );
    std::fs::write(&file, again).unwrap();
    let said = run(&file);
    assert!(said.contains("cannot listen") && said.contains("another program has this port"), "{said}");
}

fn run(file: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("-C").arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A relay that dies without a word and comes back does not know of its connections; they are found out and made anew.
#[test]
fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let port = free_port();
    let mut first = relay(port, "");
    let (visitors, visit) = visitors(port, free_port());
    answers(visit);
    let before = visitors.descriptors();
    first.signal("KILL");
    first.wait();
    let _second = relay(port, "");
    answers(visit);
    eventually("nothing is left", || (visitors.descriptors() <= before).then_some(()));
}

/// What is under way ends well, however late, and the other side learns at once that there is nobody any more.
#[test]
fn a_server_that_stops_lets_streams_end() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let mut relay = relay(port, "");
    let (visitors, visit) = visitors_of(port, &target);
    let mut visitor = connect(visit);
    visitor.write_all(GET).unwrap();
    let (mut accepted, _) = target.accept().unwrap();
    accepted.read_exact(&mut [0; 30]).unwrap();
    relay.signal("TERM");
    relay.wait_for(&["stopping"]);
    assert!(exchange(visit, GET).0.starts_with("HTTP/1.1 50"));
    assert!(relay.is_running());
    let body = vec![b'x'; 3_000_000];
    accepted
        .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .unwrap();
    accepted.write_all(&body).unwrap();
    let (reply, closed) = read_all(&mut visitor);
    assert!(reply.len() > body.len() && closed, "{} bytes", reply.len());
    drop(accepted);
    assert_eq!(relay.wait(), Some(0));
    assert!(relay.log().contains("stopped") && !relay.log().contains("cut"), "{}", relay.log());
    assert!(exchange(visit, GET).0.starts_with("HTTP/1.1 503 "));
    visitors.wait_for(&["cannot connect", "refused"]);
}

fn visitors_of(port: u16, target: &TcpListener) -> (Proc, u16) {
    let (visit, target) = (free_port(), target.local_addr().unwrap());
    let process = Ours.start(&format!(
        "services:
- addr: 127.0.0.1:{visit}
  handler: {{ type: tcp, chain: c, metadata: {{ sniffing: true }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '{target}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: relay }}, dialer: {{ type: quic }} }}] }}]
"
    ));
    wait_for_port(visit);
    (process, visit)
}
