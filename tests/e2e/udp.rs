//! Datagrams with all ends ours, and with ends that are written byte by byte.

mod recorded;
mod relay_port;

use crate::support::Program::Ours;
use crate::support::command_line::Way;
use crate::support::matrix::Channel;
use crate::support::udp::{self, Resolver, free_udp_port, name_server, quic, resolves};
use crate::support::{PATIENCE, Proc, eventually, now};
use std::net::UdpSocket;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn through_a_tunnel() {
    udp::through_a_tunnel(Channel::TCP, Ours, Ours, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_port_of_a_relay() {
    udp::through_a_relay(Channel::TCP, Ours, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_from_a_relay() {
    udp::on_from_a_relay(Channel::TCP, Ours, Ours).await;
}

/// A UDP port with these nodes.
fn port(listener: &str, handler: &str, forwarder: &str, more: &str) -> (Proc, u16) {
    let port = free_udp_port();
    let service = Ours.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  listener: {{ type: udp, metadata: {{ {listener} }} }}
  handler: {{ type: udp, metadata: {{ {handler} }} }}
  forwarder: {{ {forwarder} }}
{more}"
    ));
    service.wait_for(&["listening"]);
    (service, port)
}

fn node(name: &str, port: u16, more: &str) -> String {
    format!("{{ name: {name}, addr: '127.0.0.1:{port}'{more} }}")
}

/// Hellos with post-quantum key shares, which take more than one datagram; what names no host, and what is no QUIC, goes to the
/// node for the rest.
#[tokio::test(flavor = "multi_thread")]
async fn quic_goes_by_its_server_name() {
    let (a, b) =
        (quic::Server::new("a", &["a.example"]), quic::Server::new("b", &["b.example", "c.example"]));
    let rest = name_server(9);
    let nodes = [
        node("a", a.port, ", filter: { host: a.example, protocol: quic }"),
        node("b", b.port, ", matcher: { rule: 'Host(`b.example`) && Network(`udp`) && Proto(`quic`)' }"),
        node("rest", rest, ""),
    ];
    let (service, visit) =
        port("ttl: 1s", "sniffing: true, idleTimeout: 2s", &format!("nodes: [{}]", nodes.join(", ")), "");
    a.echoes(visit, "a.example").await.unwrap();
    b.echoes(visit, "b.example").await.unwrap();
    tokio::task::block_in_place(|| resolves(visit, 9));
    b.is_not_reached(visit, "c.example").await;
    service.wait_for(&["host=\"a.example\"", "protocol=\"quic\"", "node=\"a\"", "outcome=\"ok\""]);
}

/// The samples of RFC 9001 and 9369: the datagram goes on as it came, in either version.
#[test]
fn both_versions_of_quic_go_by_their_server_name() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = target.local_addr().unwrap().port();
    let nodes = [node("n", at, ", filter: { host: example.com }"), node("rest", name_server(9), "")];
    let (_service, visit) = port("", "sniffing: true", &format!("nodes: [{}]", nodes.join(", ")), "");
    for sample in ["rfc9001-a2", "rfc9369-a2"] {
        let datagram = std::fs::read(format!("tests/fuzz/corpus/quic/{sample}")).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&datagram, ("127.0.0.1", visit)).unwrap();
        target.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buf = [0; 2000];
        let (len, from) = target.recv_from(&mut buf).unwrap();
        assert_eq!(&buf[..len], datagram);
        target.send_to(b"answer", from).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let len = client.recv(&mut buf).unwrap();
        assert_eq!(&buf[..len], b"answer");
    }
}

/// The server behind the tunnel chooses by what is inside, too.
#[tokio::test(flavor = "multi_thread")]
async fn quic_through_a_tunnel_goes_by_its_server_name() {
    let (a, b) = (quic::Server::new("a", &["a.example"]), quic::Server::new("b", &["b.example"]));
    let (_server, port) = udp::server(Ours, Channel::TCP, udp::TUNNEL_SERVER);
    let chain = udp::chain(port, Channel::TCP, &udp::tunnel());
    let nodes = [node("a", a.port, ", host: a.example"), node("b", b.port, ", host: b.example")].join(", ");
    let _client = Ours.start(&format!(
        "services:
- name: service-0
  addr: :0
  handler: {{ type: rudp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rudp, chain: chain-0 }}
  forwarder: {{ nodes: [{nodes}] }}
{chain}"
    ));
    let (_visitor, visit) = udp::visitor(Ours, &chain, &format!("{}:443", udp::NAME));
    a.is_reached(visit, "a.example").await;
    b.is_reached(visit, "b.example").await;
}

/// A system that says that nobody listens at a port is believed, and another node takes the flow's place.
#[test]
fn a_node_that_is_down_is_left_for_the_next() {
    let nodes = format!(
        "nodes: [{}, {}], selector: {{ strategy: fifo, maxFails: 1, failTimeout: 60s }}",
        node("down", free_udp_port(), ""),
        node("up", name_server(4), "")
    );
    let (service, visit) = port("", "", &nodes, "");
    let mut resolver = Resolver::new(visit);
    assert_eq!(resolver.ask(0), 4);
    service.wait_for(&["node=\"down\"", "target_failed", "nobody listens there"]);
    resolves(visit, 4);
    assert_eq!(service.log().matches("nobody listens").count(), 1);
}

#[test]
fn silence_ends_a_flow_and_no_more_live_than_may() {
    let nodes = format!("nodes: [{}]", node("n", name_server(5), ""));
    let (service, visit) = port("ttl: 2s", "", &nodes, "  metadata: { maxConnections: 2 }\n");
    let [mut one, mut other, mut third] = [(); 3].map(|()| Resolver::new(visit));
    let since = now();
    assert_eq!((one.ask(0), other.ask(0)), (5, 5));
    // Until one of the two has been silent for its time there is no room.
    assert_eq!(third.ask(0), 5);
    assert!(since.elapsed() > Duration::from_millis(1900));
    service.wait_for(&["maxConnections reached"]);
    eventually("all flows have a line", || {
        (service.log().matches("outcome=\"ok\"").count() == 3).then_some(())
    });
}

#[test]
fn whom_an_admission_refuses_gets_no_flow() {
    let nodes = format!("nodes: [{}]", node("n", name_server(6), ""));
    let more = "  admission: others\nadmissions: [{ name: others, matchers: [127.0.0.0/8] }]\n";
    let (service, visit) = port("", "", &nodes, more);
    udp::is_silent(visit);
    service.wait_for(&["not_admitted", "others"]);
}

/// With the command line's short form, whose keys GOST gives to all objects of a side.
#[test]
fn a_name_server_by_the_command_line() {
    let visit = free_udp_port();
    let service = format!("udp://127.0.0.1:{visit}/127.0.0.1:{}?keepalive=false&ttl=5s", name_server(7));
    let process = Way::Printed("yaml").start(&["-L", &service]);
    process.wait_for(&["listening"]);
    resolves(visit, 7);
}
