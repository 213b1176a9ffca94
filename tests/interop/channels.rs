//! Every data channel between ours and GOST's, in all three ways.

use super::support::Program::{Gost, Ours};
use super::support::matrix;

/// Ours at both ends, then with the reference at either.
async fn rows(channel: &str, metadata: &str) {
    for (server, client) in [(Ours, Ours), (Ours, Gost), (Gost, Ours)] {
        eprintln!("{channel}: {client:?} at {server:?}");
        matrix::channel(channel, metadata, server, client).await;
    }
}

macro_rules! rows {
    ($($test:ident: $channel:literal, $metadata:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            rows($channel, $metadata).await;
        })*
    };
}

rows! {
    tls: "tls", "";
    mtls: "mtls", "";
    mtcp: "mtcp", "";
    ws: "ws", "";
    wss: "wss", "path: /some/path, host: pointsman.example";
    mws: "mws", "";
    mwss: "mwss", "";
    h2: "h2", "";
    h2c: "h2c", "";
    h2c_with_a_path: "h2c", "path: /tunnel";
    grpc: "grpc", "";
    quic: "quic", "";
    grpc_without_tls: "grpc", "grpc.insecure: true, grpc.path: /svc/method";
}
