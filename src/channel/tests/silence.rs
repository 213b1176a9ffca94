//! Connections that neither end hears anything on any more, nor of their end.

use super::valve::Valve;
use super::{PATIENCE, Port, carriers, client, kind, server};
use crate::addr::HostPort;
use crate::channel::{ClientSettings, Dialed, Dialer, Framing, Kind, Layer, ServerSettings, http2};
use crate::shutdown::Shutdown;
use futures_util::future::join_all;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Puts a valve in front of a port.
async fn valve(port: &mut Port, kind: Kind) -> Valve {
    let (valve, to) = (Valve::default(), SocketAddr::from(([127, 0, 0, 1], port.addr.port)));
    let addr = if kind.framing == Framing::Quic { valve.udp(to).await } else { valve.tcp(to).await };
    port.addr = addr.into();
    valve
}

async fn stream_on_a_new_connection(kind: Kind) {
    let mut port = Port::open(server(kind)).await;
    let valve = valve(&mut port, kind).await;
    let dialer = port.dialer(&client(kind));
    let mut first = port.dial(&dialer).await.unwrap();
    first.stream.write_all(b"x").await.unwrap();
    first.stream.flush().await.unwrap();
    assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x', "{}", kind.name);

    valve.forget();
    let begun = Instant::now();
    let mut dialed = loop {
        let mut dialed = port.dial(&dialer).await.unwrap();
        if dialed.local != first.local {
            break dialed;
        }
        dialed.stream.write_all(b"lost").await.unwrap();
        dialed.stream.flush().await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "{}: nobody finds that the connection is dead", kind.name);
        sleep(Duration::from_millis(100)).await;
    };
    dialed.stream.write_all(b"y").await.unwrap();
    dialed.stream.flush().await.unwrap();
    assert_eq!(port.accept().await.read_u8().await.unwrap(), b'y', "{}", kind.name);
}

#[tokio::test]
async fn a_connection_that_answers_nothing_gets_no_more_streams() {
    join_all(carriers().map(stream_on_a_new_connection)).await;
}

/// A server that has nothing to say for longer than that is served on.
#[tokio::test]
async fn a_connection_of_http2_is_kept_while_its_peer_is_there() {
    for kind in ["h2c", "grpc"].map(kind) {
        let mut port = Port::open(server(kind)).await;
        let dialer = port.dialer(&silent_for(kind, Duration::from_secs(6)));
        let mut first = port.dial(&dialer).await.unwrap();
        first.stream.write_all(b"x").await.unwrap();
        let mut far = port.accept().await;
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        sleep(super::super::dialer::SILENCE).await;
        assert_eq!(port.dial(&dialer).await.unwrap().local, first.local);
    }
}

fn layer(kind: Kind, limit: Duration) -> Layer {
    let grpc = kind.framing == Framing::Grpc;
    Layer::Http2(http2::Settings { grpc, silence: Some(limit), ..http2::Settings::default() })
}

fn silent_for(kind: Kind, limit: Duration) -> ClientSettings {
    ClientSettings { layer: layer(kind, limit), ..client(kind) }
}

#[tokio::test]
async fn a_peer_of_http2_that_falls_silent_is_found_by_either_side() {
    const LIMIT: Duration = Duration::from_millis(900);
    let found = |kind| async move {
        let mut port = Port::open(ServerSettings { layer: layer(kind, LIMIT), ..server(kind) }).await;
        let valve = valve(&mut port, kind).await;
        let mut near = port.connect(&port.dialer(&silent_for(kind, LIMIT))).await.unwrap();
        near.write_all(b"x").await.unwrap();
        let mut far = port.accept().await;
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        // Silence is not death while both can hear each other.
        assert!(timeout(2 * LIMIT, near.read_u8()).await.is_err(), "{}", kind.name);
        valve.forget();
        for stream in [&mut near, &mut far] {
            let error = timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap_err().to_string();
            assert!(error.contains("nothing came from the peer for 900ms"), "{}: {error}", kind.name);
        }
        let failure = port.failure().await;
        assert!(failure.contains("nothing came from the peer"), "{}: {failure}", kind.name);
    };
    join_all(["h2", "h2c", "grpc"].map(|name| found(kind(name)))).await;
}

/// However many wait for a server that is not there, each is told in the time of two tries.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_connection_share_its_failure() {
    const TRY: Duration = Duration::from_secs(5);
    let (addr, shutdown) = (HostPort::parse("server.example:1", 0).unwrap(), Shutdown::default());
    for kind in carriers().filter(|kind| kind.framing != Framing::Quic) {
        let dialer = Dialer::new(&client(kind), "node-0", &shutdown).unwrap();
        let (dialer, addr, tries) = (&dialer, &addr, &AtomicUsize::new(0));
        let visit = |n: u64| async move {
            sleep(Duration::from_millis(10 * n)).await;
            let came = Instant::now();
            let nobody = async {
                tries.fetch_add(1, Ordering::Relaxed);
                sleep(TRY).await;
                Err::<Dialed, _>("nobody is there")
            };
            let failed = dialer.connect(addr, nobody).await.unwrap_err().to_string();
            assert!(failed.contains("nobody is there") && came.elapsed() <= 2 * TRY, "{failed}");
        };
        join_all((0..100).map(visit)).await;
        assert_eq!(tries.load(Ordering::Relaxed), 2, "{}", kind.name);
    }
}
