//! UDP between programs of any make: a name server and a QUIC server as targets, and the ways to them.

pub(crate) mod quic;

use super::matrix::{Channel, TUNNEL};
use super::{Proc, Program, eventually, free_port, now};
use std::net::UdpSocket;
use std::time::Duration;

/// The name that visitors of the tunnel ask for, and the tunnel's port of it.
pub(crate) const NAME: &str = "udp.local";

/// How long is waited for one answer before the question is repeated, as resolvers do.
pub(crate) const RETRY: Duration = Duration::from_millis(500);

/// The longest datagram that the reference's own port takes.
pub(crate) const LARGE: usize = 4000;

/// A name server: each question is answered with an address record that holds the last octet of its name server.
pub(crate) fn name_server(octet: u8) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buf = [0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&answer(&buf[..len], octet), from);
        }
    });
    port
}

/// The answer to a question: a reply that holds it and one address record, 192.0.2.`octet`.
fn answer(question: &[u8], octet: u8) -> Vec<u8> {
    let mut reply = question.to_vec();
    reply[2] |= 0x80;
    reply[7] = 1;
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, octet]);
    reply
}

/// A question for the address of `a.b`, with that many bytes of padding (RFC 7830) behind it.
fn question(id: u16, padding: usize) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(padding > 0)]);
    question.extend(b"\x01a\x01b\0\0\x01\0\x01");
    if padding > 0 {
        let len = u16::try_from(padding).unwrap();
        question.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0]);
        question.extend((len + 4).to_be_bytes());
        question.extend([0, 12]);
        question.extend(len.to_be_bytes());
        question.extend(super::backend::pattern(0, padding));
    }
    question
}

/// A resolver with a port of its own.
pub(crate) struct Resolver {
    socket: UdpSocket,
    id: u16,
}

impl Resolver {
    /// It asks at that port.
    pub(crate) fn new(port: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(RETRY)).unwrap();
        Self { socket, id: fastrand::u16(..) }
    }

    /// Asks once; the last octet of the answer, if one comes in time.
    pub(crate) fn try_ask(&mut self, padding: usize) -> Option<u8> {
        self.id = self.id.wrapping_add(1);
        let question = question(self.id, padding);
        // A port that is closed says so.
        self.socket.send(&question).ok()?;
        let until = now() + RETRY;
        let mut buf = [0; 65_535];
        while now() < until {
            let Ok(len) = self.socket.recv(&mut buf) else { return None };
            // An answer to an earlier try may come late.
            if buf[..2] == self.id.to_be_bytes() {
                let octet = buf[len - 1];
                assert_eq!(buf[..len], answer(&question, octet), "the answer is whole");
                return Some(octet);
            }
        }
        None
    }

    /// Asks until there is an answer; its last octet.
    pub(crate) fn ask(&mut self, padding: usize) -> u8 {
        eventually("a name is resolved", || self.try_ask(padding))
    }
}

/// What any way for datagrams must do: answer, with datagrams of any size, each to who has asked.
pub(crate) fn resolves(port: u16, octet: u8) {
    let mut one = Resolver::new(port);
    for padding in [0, 1, 1200, LARGE, 0] {
        assert_eq!(one.ask(padding), octet);
    }
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut resolver = Resolver::new(port);
                (0..5).for_each(|padding| assert_eq!(resolver.ask(padding * 100), octet));
            });
        }
    });
}

/// A server for both kinds of `rudp`; its port.
pub(crate) fn server(program: Program, channel: Channel, handler: &str) -> (Proc, u16) {
    let port = free_port();
    (server_at(port, program, channel, handler), port)
}

fn server_at(port: u16, program: Program, channel: Channel, handler: &str) -> Proc {
    let server = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {handler}
  listener: {}
ingresses:
- name: ingress-0
  rules: [{{ hostname: {NAME}, endpoint: {TUNNEL} }}]
",
        channel.yaml()
    ));
    channel.wait_for(port);
    server
}

pub(crate) const TUNNEL_SERVER: &str = "{ type: tunnel, metadata: { ingress: ingress-0 } }";
pub(crate) const RELAY_SERVER: &str = "{ type: relay, metadata: { bind: true } }";

/// The connector of [`TUNNEL_SERVER`]'s clients and visitors.
pub(crate) fn tunnel() -> String {
    format!("{{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }}")
}

pub(crate) fn chain(port: u16, channel: Channel, connector: &str) -> String {
    format!(
        "chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes: [{{ name: node-0, addr: '127.0.0.1:{port}', connector: {connector}, dialer: {} }}]
",
        channel.yaml()
    )
}

/// A client whose address at the server is `bind`; the target is that port.
pub(crate) fn client(program: Program, bind: &str, chain: &str, target: u16) -> Proc {
    program.start(&format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rudp }}
  listener: {{ type: rudp, chain: chain-0, metadata: {{ ttl: 10s }} }}
  forwarder: {{ nodes: [{{ name: target, addr: '127.0.0.1:{target}' }}] }}
{chain}"
    ))
}

/// A UDP port whose flows go through the chain to `target`; the port.
pub(crate) fn visitor(program: Program, chain: &str, target: &str) -> (Proc, u16) {
    let visit = free_udp_port();
    let visitor = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{visit}
  handler: {{ type: udp, chain: chain-0 }}
  listener: {{ type: udp, metadata: {{ keepalive: true, ttl: 10s }} }}
  forwarder: {{ nodes: [{{ name: n, addr: '{target}' }}] }}
{chain}"
    ));
    (visitor, visit)
}

/// The same as [`free_port`] for UDP.
pub(crate) fn free_udp_port() -> u16 {
    eventually("a free port", || {
        let port = fastrand::u16(10_000..32_000);
        UdpSocket::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
}

/// A name server and a QUIC server behind a tunnel, their visitors at UDP ports of their own; then again when the server has
/// died and come back, and when the client has.
pub(crate) async fn through_a_tunnel(
    channel: Channel,
    server_program: Program,
    client_program: Program,
    visitor_program: Program,
) {
    let target = name_server(1);
    let (mut server, port) = server(server_program, channel, TUNNEL_SERVER);
    let chain = chain(port, channel, &tunnel());
    let start = |target| client(client_program, ":0", &chain, target);
    let mut served = start(target);
    let (_visitor, visit) = visitor(visitor_program, &chain, &format!("{NAME}:53"));
    tokio::task::block_in_place(|| resolves(visit, 1));
    server.kill();
    let _server = server_at(port, server_program, channel, TUNNEL_SERVER);
    tokio::task::block_in_place(|| resolves(visit, 1));
    served.kill();
    // It has a flow for each answer, which the interoperability tests show, and QUIC needs one for all.
    if client_program == Program::Gost {
        let _served = start(target);
        return tokio::task::block_in_place(|| resolves(visit, 1));
    }
    let quic = quic::Server::new("quic", &["a.example"]);
    let _served = start(quic.port);
    quic.is_reached(visit, "a.example").await;
}

/// The same behind a port that the server opens for the client.
pub(crate) async fn through_a_relay(channel: Channel, server_program: Program, client_program: Program) {
    let target = name_server(2);
    let (mut server, port) = server(server_program, channel, RELAY_SERVER);
    let (chain, visit) = (chain(port, channel, "{ type: relay }"), free_udp_port());
    let start = |target| client(client_program, &format!("127.0.0.1:{visit}"), &chain, target);
    let mut served = start(target);
    tokio::task::block_in_place(|| resolves(visit, 2));
    server.kill();
    let _server = server_at(port, server_program, channel, RELAY_SERVER);
    tokio::task::block_in_place(|| resolves(visit, 2));
    served.kill();
    let quic = quic::Server::new("quic", &["a.example"]);
    let _served = start(quic.port);
    quic.is_reached(visit, "a.example").await;
}

/// A relay connects a visitor on to an address.
pub(crate) async fn on_from_a_relay(channel: Channel, server_program: Program, visitor_program: Program) {
    let target = name_server(3);
    let quic = quic::Server::new("quic", &["a.example"]);
    let (_server, port) = server(server_program, channel, "{ type: relay }");
    let chain = chain(port, channel, "{ type: relay }");
    let (_visitor, visit) = visitor(visitor_program, &chain, &format!("127.0.0.1:{target}"));
    tokio::task::block_in_place(|| resolves(visit, 3));
    let (_visitor, visit) = visitor(visitor_program, &chain, &format!("127.0.0.1:{}", quic.port));
    quic.is_reached(visit, "a.example").await;
}

/// All three for a channel; the visitors are of the client's make.
pub(crate) async fn every_way(channel: Channel, server_program: Program, client_program: Program) {
    through_a_tunnel(channel, server_program, client_program, client_program).await;
    through_a_relay(channel, server_program, client_program).await;
    on_from_a_relay(channel, server_program, client_program).await;
}

/// Nothing answers there for as long as a resolver waits.
pub(crate) fn is_silent(port: u16) {
    assert_eq!(Resolver::new(port).try_ask(0), None);
}
