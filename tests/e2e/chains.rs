//! Chains with all ends ours, and what a relay server answers.

use crate::support::Program::Ours;
use crate::support::chains::{chain, client, server, tunnel, visitor};
use crate::support::matrix::{Channel, TUNNEL};
use crate::support::relay::{CONNECT, loopback, message, name, read_message};
use crate::support::{Proc, backend, chains, connect, curl, free_port};
use std::io::{Read, Write};

#[tokio::test(flavor = "multi_thread")]
async fn visitors_reach_what_they_may() {
    chains::visitors(Ours, Ours, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_through_relays() {
    for channels in [["tcp", "tcp"], ["tls", "mtls"], ["mws", "grpc"], ["quic", "grpc"]] {
        chains::through_relays(Ours, Ours, Ours, channels).await;
    }
}

fn relay(more: &str) -> (Proc, u16) {
    relay_on("", "tcp", more)
}

/// `auth` of its handler and what its listener speaks.
fn relay_on(auth: &str, listener: &str, more: &str) -> (Proc, u16) {
    let port = free_port();
    let yaml = format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: relay{auth} }}
  listener: {{ type: {listener} }}
{more}"
    );
    let relay = Ours.start(&yaml);
    relay.wait_for(&["listening"]);
    (relay, port)
}

/// Asks for a connection; the stream and the status.
fn ask(port: u16, features: &[Vec<u8>], behind: &[u8]) -> (std::net::TcpStream, u8) {
    let mut stream = connect(port);
    stream.write_all(&[&message(CONNECT, features)[..], behind].concat()).unwrap();
    let (status, _) = read_message(&mut stream).unwrap();
    (stream, status)
}

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

fn answered(mut stream: std::net::TcpStream) {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.ends_with("web h /x GET"), "{reply}");
}

/// Section 5: what a client is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_connects_to_what_it_is_asked_for() {
    let web = backend::http("web").await;
    let (_relay, port) = relay("");
    let (stream, status) = ask(port, &[loopback(web)], REQUEST);
    assert_eq!(status, 0);
    answered(stream);
    let (stream, status) = ask(port, &[name("localhost", web)], REQUEST);
    assert_eq!(status, 0);
    answered(stream);
    assert_eq!(ask(port, &[], b"").1, 1, "no address");
    assert_eq!(ask(port, &[loopback(free_port())], b"").1, 7, "nobody there");
    assert_eq!(ask(port, &[name("no.such.host.invalid", 80)], b"").1, 7);
    assert_eq!(ask(port, &[loopback(0)], b"").1, 7, "port 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_with_a_forwarder_chooses_itself() {
    let web = backend::http("web").await;
    let (_relay, port) = relay(&format!("  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{web}' }}] }}\n"));
    for features in [vec![], vec![loopback(1)], vec![name("elsewhere.example", 80)]] {
        let (stream, status) = ask(port, &features, REQUEST);
        assert_eq!(status, 0);
        answered(stream);
    }
    let (_relay, port) =
        relay(&format!("  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{}' }}] }}\n", free_port()));
    assert_eq!(ask(port, &[], b"").1, 6);
    let filtered = format!("  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{web}', host: a.example }}] }}\n");
    let (_relay, port) = relay(&filtered);
    assert_eq!(ask(port, &[name("b.example", 80)], b"").1, 5);
    assert_eq!(ask(port, &[name("a.example", 80)], b"").1, 0);
}

/// `connector` behind its type, and what the dialer speaks.
fn relay_node(name: &str, port: u16, auth: &str, dialer: &str) -> String {
    let connector = format!("{{ type: relay{auth} }}");
    format!(
        "{{ name: {name}, addr: '127.0.0.1:{port}', connector: {connector}, dialer: {{ type: {dialer} }} }}"
    )
}

const RIGHT: &str = ", auth: { username: u, password: right }";
const WRONG: &str = ", auth: { username: u, password: wrong }";

/// Its answer comes too late for the connection that meets it, and counts for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_is_passed_over_by_the_next_connection() {
    let web = backend::http("web").await;
    let (_good, good) = relay("");
    let down = format!("  forwarder: {{ nodes: [{{ addr: '127.0.0.1:{}' }}] }}\n", free_port());
    let (here, there) = (", metadata: { path: /here }", ", metadata: { path: /there }");
    for (auth, listener, more, wrong, dialer, reason) in [
        (RIGHT, "tcp", "", WRONG, "tcp", "mend connector.auth"),
        ("", "tcp", &*down, "", "tcp", "HostUnreachable"),
        ("", "tls", "", "", "tcp", "compare dialer.type"),
        ("", "mtls", "", "", "mtcp", ""),
        ("", "h2", "", "", "h2c", ""),
        ("", &format!("h2{here}"), "", "", &format!("h2{there}"), ""),
        ("", &format!("grpc{here}"), "", "", &format!("grpc{there}"), ""),
    ] {
        let (_bad, bad) = relay_on(auth, listener, more);
        let nodes = vec![relay_node("bad", bad, wrong, dialer), relay_node("good", good, "", "tcp")];
        let (visitor, visit) = visitor(Ours, &chain(&[nodes]), "", Some(&format!("127.0.0.1:{web}")));
        curl("h", visit, "/x", &[]);
        let log = visitor.wait_for(&["cannot connect", "node=\"bad\"", reason]);
        for _ in 0..2 {
            assert_eq!(curl("h", visit, "/x", &[]).0, 200, "{listener}: {log}");
        }
    }
}

/// The relay does its work; the next connection may be for another target.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_a_relay_refuses_marks_nobody() {
    let (_first, first) = relay("");
    let (_second, second) = relay("");
    let nodes = [("first", first), ("second", second)].map(|(name, port)| relay_node(name, port, "", "tcp"));
    let nobody = format!("127.0.0.1:{}", free_port());
    let (visitor, visit) = visitor(Ours, &chain(&[nodes.to_vec()]), "", Some(&nobody));
    for _ in 0..3 {
        assert_eq!(curl("h", visit, "/x", &[]).0, 0);
    }
    visitor.wait_for(&["cannot connect", "NetworkUnreachable"]);
    let log = visitor.log();
    assert!(!log.contains("node=\"second\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_does_is_not_charged_to_the_server_behind_it() {
    let web = backend::http("web").await;
    let (_bad, bad) = relay_on(RIGHT, "tcp", "");
    for channel in ["tcp", "wss", "mtcp", "h2"] {
        let (_server, port, _) = server(Ours, Channel::new(channel));
        let (connector, dialer) = (tunnel(TUNNEL), Channel::new(channel).yaml());
        let srv =
            format!("{{ name: srv, addr: '127.0.0.1:{port}', connector: {connector}, dialer: {dialer} }}");
        let direct = "{ name: direct, connector: { type: direct } }".to_owned();
        let hops = chain(&[vec![relay_node("bad", bad, WRONG, "tcp"), direct], vec![srv]]);
        let client = client(Ours, &hops, web, web);
        client.wait_for(&["connected", "connector="]);
        assert_charged(&client.log());
        let (visitor, visit) = visitor(Ours, &hops, "", Some("srv-0.local"));
        curl("srv-0.local", visit, "/x", &[]);
        assert_eq!(curl("srv-0.local", visit, "/x", &[]).0, 200, "{channel}: {}", visitor.log());
        assert_charged(&visitor.log());
    }
}

/// The relay `bad`, and nobody else.
fn assert_charged(log: &str) {
    let failures: Vec<_> = log.lines().filter(|line| line.contains("cannot connect")).collect();
    assert!(!failures.is_empty() && failures.iter().all(|line| line.contains("node=\"bad\"")), "{log}");
}
