//! Datagrams between ours and GOST's, by tunnels and relays.

use super::support::Program::{Gost, Ours};
use super::support::udp;

#[tokio::test(flavor = "multi_thread")]
async fn through_a_tunnel() {
    for (server, client, visitor) in
        [(Ours, Gost, Gost), (Gost, Ours, Ours), (Ours, Gost, Ours), (Ours, Ours, Gost), (Gost, Gost, Ours)]
    {
        eprintln!("visitor {visitor:?} of client {client:?} at {server:?}");
        udp::through_a_tunnel(server, client, visitor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_port_of_a_relay() {
    for (server, client) in [(Ours, Gost), (Gost, Ours)] {
        eprintln!("client {client:?} at {server:?}");
        udp::through_a_relay(server, client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_from_a_relay() {
    for (server, visitor) in [(Ours, Gost), (Gost, Ours)] {
        eprintln!("visitor {visitor:?} at {server:?}");
        udp::on_from_a_relay(server, visitor).await;
    }
}
