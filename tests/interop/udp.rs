//! Datagrams between ours and GOST's, by tunnels and relays.

use super::support::Program::{Gost, Ours};
use super::support::udp;

macro_rules! through_a_tunnel {
    ($($test:ident: $server:ident, $client:ident, $visitor:ident;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            udp::through_a_tunnel($server, $client, $visitor).await;
        })*
    };
}

// A server, its client and its visitor.
through_a_tunnel! {
    gosts_at_our_server: Ours, Gost, Gost;
    ours_at_a_gost_server: Gost, Ours, Ours;
    a_gost_client_at_our_server: Ours, Gost, Ours;
    a_gost_visitor_at_our_server: Ours, Ours, Gost;
    our_visitor_at_a_gost_server: Gost, Gost, Ours;
    gosts_at_a_gost_server: Gost, Gost, Gost;
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
