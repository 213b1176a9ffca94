//! Passwords between ours and the reference.

use super::support::Program::{Gost, Ours};
use super::support::auth::passwords;
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
