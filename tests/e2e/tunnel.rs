use crate::support::Program::Ours;
use crate::support::matrix::{self, Kind};

#[tokio::test(flavor = "multi_thread")]
async fn our_client_at_our_tunnel_server() {
    matrix::all(Kind::Tunnel, Ours, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_at_our_relay_server() {
    matrix::all(Kind::Relay, Ours, Ours).await;
}
