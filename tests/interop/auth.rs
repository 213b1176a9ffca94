//! Passwords between ours and the reference.

use super::support::Program::{Gost, Ours};
use super::support::auth::{owners, passwords, revocation};
use super::support::matrix::Kind;

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_needs_a_password_at_our_server() {
    for kind in [Kind::Tunnel, Kind::Relay] {
        passwords(kind, Ours, Gost, ["user name", "unauthorized"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_shows_its_password_to_the_reference() {
    for kind in [Kind::Tunnel, Kind::Relay] {
        passwords(kind, Gost, Ours, ["unauthorized", "mend connector.auth"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_served_and_visited_by_the_references_owners_only() {
    owners(Gost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_is_cut_when_its_user_is_gone() {
    for kind in [Kind::Tunnel, Kind::Relay] {
        revocation(kind, Gost).await;
    }
}
