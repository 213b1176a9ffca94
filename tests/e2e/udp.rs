//! Datagrams with all ends ours.

use crate::support::Program::Ours;
use crate::support::udp;

#[tokio::test(flavor = "multi_thread")]
async fn through_a_tunnel() {
    udp::through_a_tunnel(Ours, Ours, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_port_of_a_relay() {
    udp::through_a_relay(Ours, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_from_a_relay() {
    udp::on_from_a_relay(Ours, Ours).await;
}
