//! What is missing in the matrix, and why. Each row is run all the same and must fail in just that way: when it does not, its
//! reason is gone, and it belongs among the others.

use super::support::Program::{self, Gost, Ours};
use super::support::matrix::{self, Channel, Kind};
use super::support::{eventually, udp};
use std::io::Write;
use std::net::UdpSocket;

/// A row that one of the two cannot do.
struct Row {
    what: &'static str,
    server: Program,
    client: Program,
    reason: &'static str,
    /// Runs it, and panics unless it fails for that reason.
    fails: fn(Program, Program),
}

const KCP: &str = "no crate speaks KCP as GOST does, with its cipher, its parity shards and Snappy";
const YAMUX: &str = "this version of GOST has no yamux, and speaks smux whatever it is told";
const RUDP: &str = "this version of GOST ends each flow of its client with the first answer, which is enough for a name server";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { what: "kcp", server: Ours, client: Ours, reason: KCP, fails: kcp },
    Row { what: "kcp", server: Ours, client: Gost, reason: KCP, fails: kcp },
    Row { what: "kcp", server: Gost, client: Ours, reason: KCP, fails: kcp },
    Row { what: "tunnel with yamux", server: Ours, client: Gost, reason: YAMUX, fails: yamux_in_a_tunnel },
    Row { what: "tunnel with yamux", server: Gost, client: Ours, reason: YAMUX, fails: yamux_in_a_tunnel },
    Row { what: "relay with yamux", server: Ours, client: Gost, reason: YAMUX, fails: yamux_in_a_relay },
    Row { what: "relay with yamux", server: Gost, client: Ours, reason: YAMUX, fails: yamux_in_a_relay },
    Row { what: "QUIC to a client rudp", server: Ours, client: Gost, reason: RUDP, fails: flows },
    Row { what: "QUIC to a client rudp", server: Gost, client: Gost, reason: RUDP, fails: flows },
];

#[test]
fn what_is_left_out_has_a_reason() {
    std::thread::scope(|scope| {
        for Row { what, server, client, reason, fails } in ROWS {
            let name = format!("{what}, client {client:?} at {server:?}");
            // Not by the test's own output, which nobody sees when it passes.
            writeln!(std::io::stderr(), "left out: {name}: {reason}").unwrap();
            matrix::spawn(scope, name, move || async move { fails(*server, *client) });
        }
    });
}

fn kcp(server: Program, _client: Program) {
    let yaml = if server == Ours {
        "services: [{ addr: 127.0.0.1:0, handler: { type: relay }, listener: { type: kcp } }]".to_owned()
    } else {
        visitors("relay", "kcp")
    };
    is_refused(&yaml, "why not kcp");
}

/// A port whose visitors go out by that connector and that dialer.
fn visitors(connector: &str, dialer: &str) -> String {
    let node =
        format!("{{ addr: 127.0.0.1:1, connector: {{ type: {connector} }}, dialer: {{ type: {dialer} }} }}");
    format!(
        "services: [{{ addr: 127.0.0.1:0, handler: {{ type: tcp, chain: c }}, forwarder: {{ nodes: [{{ addr: 127.0.0.1:1 }}] }} }}]
chains: [{{ name: c, hops: [{{ nodes: [{node}] }}] }}]
"
    )
}

/// Our program does not start with it, and says this.
fn is_refused(yaml: &str, said: &str) {
    let mut process = Ours.start(yaml);
    process.wait_for(&[said]);
    assert_eq!(process.wait(), Some(1));
}

fn yamux_in_a_tunnel(server: Program, client: Program) {
    yamux(Kind::Tunnel, server, client);
}

fn yamux_in_a_relay(server: Program, client: Program) {
    yamux(Kind::Relay, server, client);
}

fn yamux(kind: Kind, server: Program, client: Program) {
    let row =
        matrix::Row { mux: ", mux.type: yamux", ..matrix::Row::new(kind, Channel::TCP, (server, client)) };
    let [server, client] = matrix::ends(&row);
    // Whoever hears the other one first.
    eventually("the two do not understand each other", || {
        let logs = server.log() + &client.log();
        (logs.contains("the peer broke the protocol") || logs.contains("invalid protocol")).then_some(())
    });
}

/// One visitor asks twice: the target sees two flows, where our client makes it one.
fn flows(server: Program, client: Program) {
    let [one, other] = flows_of_a_visitor(server, client);
    assert_ne!(one, other, "both questions came by the same flow");
    let [one, other] = flows_of_a_visitor(server, Ours);
    assert_eq!(one, other);
}

/// The ports by which two questions of one visitor of a tunnel come to the target.
fn flows_of_a_visitor(server: Program, client: Program) -> [u16; 2] {
    let target = tells_ports();
    let (_server, port) = udp::server(server, Channel::TCP, udp::TUNNEL_SERVER);
    let chain = udp::chain(port, Channel::TCP, &udp::tunnel());
    let _client = udp::client(client, ":0", &chain, target);
    let (_visitor, visit) = udp::visitor(Ours, &chain, &format!("{}:53", udp::NAME));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", visit)).unwrap();
    socket.set_read_timeout(Some(udp::RETRY)).unwrap();
    let ask = || {
        socket.send(b"?").ok()?;
        let mut port = [0; 2];
        socket.recv(&mut port).ok().map(|_| u16::from_be_bytes(port))
    };
    [0, 1].map(|_| eventually("an answer", ask))
}

/// A target that answers with the port that it was asked from.
fn tells_ports() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 10]) {
            let _ = socket.send_to(&from.port().to_be_bytes(), from);
        }
    });
    port
}
