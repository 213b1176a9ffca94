//! Chains in which the reference is one of the ends or of the hops.

use super::support::Program::{Gost, Ours};
use super::support::chains;

#[tokio::test(flavor = "multi_thread")]
async fn visitors_of_either_make() {
    for (server, client, visitor) in
        [(Ours, Ours, Gost), (Gost, Gost, Ours), (Gost, Ours, Ours), (Ours, Gost, Gost)]
    {
        eprintln!("visitor {visitor:?} of client {client:?} at {server:?}");
        chains::visitors(server, client, visitor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_relays_of_either_make() {
    for (relay, server, client) in
        [(Gost, Ours, Ours), (Ours, Gost, Ours), (Ours, Ours, Gost), (Gost, Gost, Ours)]
    {
        for channels in [["tcp", "tcp"], ["wss", "mtls"], ["quic", "mtls"]] {
            eprintln!("client {client:?} by relay {relay:?} to {server:?}, {channels:?}");
            chains::through_relays(relay, server, client, channels).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_an_http_proxy() {
    chains::through_a_proxy(Gost, Ours, Ours, "http").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_socks5_proxy() {
    chains::through_a_proxy(Gost, Gost, Ours, "socks5").await;
}
