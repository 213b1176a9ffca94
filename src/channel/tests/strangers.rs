//! Peers that hold a connection for many streams, and open none that is let in.

use super::{Port, carriers, client, kind, server};
use crate::channel::{ClientSettings, Framing, Kind, ServerSettings};
use crate::mux;
use crate::net::BoxStream;
use bytes::Bytes;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(10);

fn hasty(kind: Kind) -> ServerSettings {
    ServerSettings { handshake_timeout: LIMIT, ..server(kind) }
}

/// What lies below the streams of such a channel.
fn below(upper: Kind) -> ClientSettings {
    let lower = match (upper.tls, upper.framing) {
        (false, Framing::WebSocket) => "ws",
        (true, Framing::WebSocket) => "wss",
        (true, _) => "tls",
        (false, _) => "tcp",
    };
    client(kind(lower))
}

async fn is_sent_away(upper: Kind, what: &str, stranger: impl AsyncFnOnce(BoxStream)) {
    let mut port = Port::open(hasty(upper)).await;
    let stream = port.connect(&port.dialer(&below(upper))).await.unwrap();
    let failure = async {
        let failure = port.failure().await;
        assert!(failure.contains("handshakeTimeout"), "{} {what}: {failure}", upper.name);
    };
    tokio::select! {
        () = stranger(stream) => panic!("{} {what}: sent away without a word", upper.name),
        () = failure => {}
    }
}

#[tokio::test]
async fn a_session_without_a_stream_ends() {
    let muxed = carriers().filter(|kind| kind.mux.is_some());
    join_all(muxed.map(|upper| async move {
        let mux = mux::Settings { keepalive_interval: Some(STEP), ..upper.mux_settings().unwrap() };
        let nops = async |stream| {
            let (_session, _incoming, driver) = mux::start(stream, Bytes::new(), mux::Role::Client, &mux);
            driver.await;
            std::future::pending().await
        };
        is_sent_away(upper, "NOPs", nops).await;
        let version = if mux.kind == mux::Kind::SmuxV2 { 2 } else { 1 };
        let drip = async move |mut stream: BoxStream| {
            // A frame with data, of which one byte comes after the other.
            let mut bytes = [version, 2, 0xff, 0xff, 3, 0, 0, 0].into_iter().chain(std::iter::repeat(0));
            while stream.write_all(&[bytes.next().unwrap()]).await.is_ok() && stream.flush().await.is_ok() {
                sleep(STEP).await;
            }
            std::future::pending().await
        };
        is_sent_away(upper, "a slow frame", drip).await;
    }))
    .await;
    let http2 = carriers().filter(|kind| matches!(kind.framing, Framing::Http2 | Framing::Grpc));
    join_all(http2.map(|upper| async move {
        let pings = async |stream| {
            let (_requests, mut connection) = h2::client::handshake(stream).await.unwrap();
            let mut pings = connection.ping_pong().unwrap();
            tokio::spawn(connection);
            while pings.ping(h2::Ping::opaque()).await.is_ok() {
                sleep(STEP).await;
            }
            std::future::pending().await
        };
        is_sent_away(upper, "PINGs", pings).await;
    }))
    .await;
}

/// Whoever asks and is not let in may try again, but not for ever.
#[tokio::test]
async fn a_session_whose_streams_are_refused_ends() {
    join_all(carriers().map(|kind| async move {
        let mut port = Port::open_to_nobody(hasty(kind)).await;
        let dialer = port.dialer(&client(kind));
        for _ in 0..2 {
            let mut near = port.connect(&dialer).await.unwrap();
            near.write_all(b"x").await.unwrap();
            near.flush().await.unwrap();
            drop(port.accept().await);
        }
        let failure = port.failure().await;
        assert!(
            failure.contains("let in") && failure.contains("handshakeTimeout"),
            "{}: {failure}",
            kind.name
        );
    }))
    .await;
}

#[tokio::test]
async fn a_session_is_kept_once_a_stream_was_let_in() {
    join_all(carriers().map(|kind| async move {
        let mut port = Port::open(hasty(kind)).await;
        let dialer = port.dialer(&client(kind));
        let mut locals = Vec::new();
        for wait in [3 * LIMIT, Duration::ZERO] {
            let mut near = port.dial(&dialer).await.unwrap();
            near.stream.write_all(b"x").await.unwrap();
            near.stream.flush().await.unwrap();
            assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x');
            // Its stream is gone meanwhile, and nothing else is there.
            locals.push(near.local);
            drop(near);
            let failed = timeout(wait, port.failure()).await;
            assert!(failed.is_err(), "{}: {failed:?}", kind.name);
        }
        assert_eq!(locals[0], locals[1], "{}", kind.name);
    }))
    .await;
}
