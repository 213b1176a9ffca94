//! The binary against the real GOST, on either side, and in front of a real nginx. Run by `make test`, which builds and installs
//! them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on panics, and shows logs"
)]

#[allow(dead_code, reason = "shared by two test programs that use different parts of it")]
#[path = "../support/mod.rs"]
mod support;

mod acme;
mod admission;
mod auth;
mod chains;
mod channels;
mod command_line;
mod nginx;
mod peers;
mod rewriting;
mod udp;

use support::Program::{Gost, Ours};
use support::matrix::{self, Kind};

#[tokio::test(flavor = "multi_thread")]
async fn gost_client_at_our_tunnel_server() {
    matrix::all(Kind::Tunnel, Ours, Gost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_at_a_gost_tunnel_server() {
    matrix::all(Kind::Tunnel, Gost, Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gost_client_at_our_relay_server() {
    matrix::all(Kind::Relay, Ours, Gost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_at_a_gost_relay_server() {
    matrix::all(Kind::Relay, Gost, Ours).await;
}

/// The control: what two of the reference manage must be asked of ours, and they manage every case.
#[tokio::test(flavor = "multi_thread")]
async fn gost_client_at_a_gost_tunnel_server() {
    matrix::all(Kind::Tunnel, Gost, Gost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gost_client_at_a_gost_relay_server() {
    matrix::all(Kind::Relay, Gost, Gost).await;
}
