//! The reference in its other roles at our server: with a name of its own, beside our client, as a visitor, as an entrypoint
//! elsewhere, with its known defects, and with another mux.

use crate::support::Program::{self, Gost, Ours};
use crate::support::matrix::{self, Channel, Kind, Row, TUNNEL};
use crate::support::{Proc, backend, curl, eventually, free_port, wait_for_port};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The tunnel behind a private rule.
const PRIVATE: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";
/// What a public entrypoint elsewhere calls itself.
const ELSEWHERE: &str = "9fd6c586-86f9-49c1-a03a-d4876851695a";

/// A tunnel server; its tunnel port and its entrypoint.
fn server(program: Program) -> (Proc, u16, u16) {
    let (port, visit) = (free_port(), free_port());
    let server = program.start(&format!(
        "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: ingress-0, entrypoint.id: {ELSEWHERE} }}
  listener: {{ type: tcp }}
ingresses:
- name: ingress-0
  rules:
  - {{ hostname: srv-0.local, endpoint: {TUNNEL} }}
  - {{ hostname: dash, endpoint: {TUNNEL} }}
  - {{ hostname: srv-1.local, endpoint: ${PRIVATE} }}
"
    ));
    wait_for_port(port);
    wait_for_port(visit);
    (server, port, visit)
}

/// A client that asks for the address `bind` and serves the target by HTTP.
fn client(program: Program, port: u16, bind: &str, connector: &str, target: u16) -> Proc {
    program.start(&format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: chain-0 }}
  forwarder:
    nodes:
    - {{ name: target, addr: 127.0.0.1:{target} }}
{}",
        chain(port, connector)
    ))
}

fn tunnel(id: &str) -> String {
    format!("{{ type: tunnel, metadata: {{ tunnel.id: {id} }} }}")
}

fn chain(port: u16, connector: &str) -> String {
    format!(
        "chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - {{ name: node-0, addr: '127.0.0.1:{port}', connector: {connector}, dialer: {{ type: tcp }} }}
"
    )
}

fn answers(visit: u16, host: &str, server: &str) {
    eventually(&format!("{host} is answered by {server}"), || {
        let (status, body) = curl(host, visit, "/x", &[]);
        (status == 200 && body.starts_with(&format!("{server} "))).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_ask_for_a_host_of_its_own() {
    let web = backend::http("web").await;
    for (one, other) in [(Ours, Gost), (Gost, Ours)] {
        let (_server, port, visit) = server(one);
        let client = client(other, port, "dash:8081", &tunnel(TUNNEL), web);
        answers(visit, "dash", "web");
        // Either writes down the name that it was given.
        client.wait_for(&["dash:8081"]);
    }
}

/// Both serve one tunnel; whichever is killed, every request is answered, and the other one takes all.
#[tokio::test(flavor = "multi_thread")]
async fn both_clients_share_a_tunnel_and_neither_is_missed() {
    let (a, b) = (backend::http("a").await, backend::http("b").await);
    let (_server, port, visit) = server(Ours);
    let ours = || client(Ours, port, ":0", &tunnel(TUNNEL), a);
    let gosts = || client(Gost, port, ":0", &tunnel(TUNNEL), b);
    for killed in ["a", "b"] {
        let (mut first, mut second) = (ours(), gosts());
        answers(visit, "srv-0.local", "a");
        answers(visit, "srv-0.local", "b");
        let of = |server: &str| {
            let bodies = (0..60).map(|_| curl("srv-0.local", visit, "/x", &[]));
            bodies.filter(|(status, body)| *status == 200 && body.starts_with(server)).count()
        };
        let share = of("a ");
        assert!((10..50).contains(&share), "{share} of 60");
        let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let reply = curl("srv-0.local", visit, "/x", &[]);
                    assert_eq!(reply.0, 200, "{reply:?}");
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
            let go_on = |more| {
                let until = asked.load(Ordering::Relaxed) + more;
                eventually("requests are answered", || {
                    (asked.load(Ordering::Relaxed) >= until || asking.is_finished()).then_some(())
                });
            };
            go_on(10);
            let victim = if killed == "a" { &mut first } else { &mut second };
            victim.signal("KILL");
            victim.wait();
            go_on(20);
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(of(killed), 0);
    }
}

/// `addr: ":PORT"` is an empty name to this version of the reference's client; what a later one makes of it is a recording,
/// played by the end-to-end tests.
#[tokio::test(flavor = "multi_thread")]
async fn gost_may_bind_a_port_on_every_address() {
    let web = backend::http("web").await;
    for server in [Ours, Gost] {
        let (port, visit) = (free_port(), free_port());
        let _relay = server.start(&format!(
            "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ bind: true }} }}
  listener: {{ type: tcp }}
"
        ));
        wait_for_port(port);
        let _client = client(Gost, port, &format!("':{visit}'"), "{ type: relay }", web);
        answers(visit, "srv-0.local", "web");
    }
}

/// There is no negotiation: both ends are told. That the reference's version has no yamux is a row of what it cannot do.
#[test]
fn either_end_speaks_another_mux() {
    std::thread::scope(|scope| {
        for (kind, mux, pair) in [
            (Kind::Tunnel, ", mux.version: 1", (Ours, Gost)),
            (Kind::Tunnel, ", mux.version: 1", (Gost, Ours)),
            (Kind::Relay, ", mux.version: 2", (Ours, Gost)),
            (Kind::Relay, ", mux.version: 2", (Gost, Ours)),
            (Kind::Tunnel, ", mux.type: yamux", (Ours, Ours)),
            (Kind::Relay, ", mux.type: yamux", (Ours, Ours)),
        ] {
            let row = Row { mux, ..Row::new(kind, Channel::TCP, pair) };
            matrix::spawn(scope, row, move || matrix::every_case(row));
        }
    });
}
