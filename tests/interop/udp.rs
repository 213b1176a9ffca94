//! Datagrams through a tunnel with a visitor of another make than the client; those of one make are rows of each channel.

use super::support::Program::{Gost, Ours};
use super::support::matrix::Channel;
use super::support::udp;

#[tokio::test(flavor = "multi_thread")]
async fn visitors_of_another_make() {
    for (server, client, visitor) in [(Ours, Gost, Ours), (Ours, Ours, Gost), (Gost, Gost, Ours)] {
        eprintln!("visitor {visitor:?} of client {client:?} at {server:?}");
        udp::through_a_tunnel(Channel::TCP, server, client, visitor).await;
    }
}
