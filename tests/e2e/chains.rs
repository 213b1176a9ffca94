//! Chains with all ends ours, and what a relay server answers.

use crate::support::Program::Ours;
use crate::support::relay::{CONNECT, loopback, message, name, read_message};
use crate::support::{Proc, backend, chains, connect, free_port};
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
    let port = free_port();
    let yaml = format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: relay }}
  listener: {{ type: tcp }}
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
