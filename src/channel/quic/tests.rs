//! What QUIC has of its own: halves that end, resets, room for streams, and peers that are not who they seem.

use super::Settings;
use crate::addr::HostPort;
use crate::channel::tests::{PATIENCE, Port, client, kind, server};
use crate::channel::{ClientSettings, Layer, ServerSettings};
use crate::net::listen;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;

fn settings() -> Settings {
    Settings { keepalive: None, idle_timeout: PATIENCE, max_streams: 100 }
}

fn ours(quic: Settings) -> ServerSettings {
    ServerSettings { layer: Layer::Quic(quic), ..server(kind("quic")) }
}

fn theirs(quic: Settings) -> ClientSettings {
    ClientSettings { layer: Layer::Quic(quic), ..client(kind("quic")) }
}

#[tokio::test]
async fn a_half_ends_alone_and_a_reset_is_an_error() {
    let mut port = Port::open(ours(settings())).await;
    let dialer = port.dialer(&theirs(settings()));
    let mut near = port.connect(&dialer).await.unwrap();
    near.write_all(b"all there is").await.unwrap();
    near.shutdown().await.unwrap();
    let mut far = port.accept().await;
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"all there is");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    got.clear();
    near.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"answer");

    let mut near = port.connect(&dialer).await.unwrap();
    near.write_all(b"part of it").await.unwrap();
    let mut far = port.accept().await;
    far.read_exact(&mut [0; 10]).await.unwrap();
    near.abort();
    drop(near);
    assert_eq!(far.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let broken = async { while far.write_all(b"for nobody").await.is_ok() {} };
    timeout(PATIENCE, broken).await.unwrap();
}

/// What was written last arrives although its writer is gone, and with it the whole client.
#[tokio::test]
async fn nothing_is_lost_when_the_last_stream_and_its_dialer_go() {
    let mut port = Port::open(ours(settings())).await;
    let dialer = port.dialer(&theirs(settings()));
    let mut near = port.connect(&dialer).await.unwrap();
    let sent = vec![7; 900_000];
    near.write_all(&sent).await.unwrap();
    drop((near, dialer));
    let (mut far, mut got) = (port.accept().await, Vec::new());
    timeout(PATIENCE, far.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    drop(far);
    port.shutdown.tasks.close();
    timeout(PATIENCE, port.shutdown.tasks.wait()).await.unwrap();
}

#[tokio::test]
async fn more_streams_than_a_connection_takes_go_on_another() {
    let mut port = Port::open(ours(Settings { max_streams: 2, ..settings() })).await;
    let dialer = port.dialer(&theirs(settings()));
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut dialed = port.dial(&dialer).await.unwrap();
        dialed.stream.write_all(b"x").await.unwrap();
        held.push((dialed, port.accept().await));
    }
    let locals: Vec<_> = held.iter().map(|(dialed, _)| dialed.local).collect();
    assert!(
        locals[0] == locals[1] && locals[1] != locals[2] && locals[2] == locals[3] && locals[3] != locals[4]
    );
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_says_so_at_once() {
    let mut port = Port::open(ours(settings())).await;
    port.addr = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
    let error = port.connect(&port.dialer(&theirs(settings()))).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}

/// The first datagram of a client that nothing is answered to, and the socket that it came from.
async fn first_of_a_handshake() -> (UdpSocket, Vec<u8>) {
    let between = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut port = Port::open(ours(settings())).await;
    port.addr = between.local_addr().unwrap().into();
    let dialer =
        port.dialer(&ClientSettings { handshake_timeout: Duration::from_secs(2), ..theirs(settings()) });
    let mut first = vec![0; 2048];
    let read = async { between.recv(&mut first).await.unwrap() };
    let len = tokio::select! { len = read => len, failed = port.connect(&dialer) => panic!("{failed:?}") };
    first.truncate(len);
    (between, first)
}

fn at(port: &Port) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port.addr.port))
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_is_left() {
    let limit = Duration::from_millis(50);
    let mut port = Port::open(ServerSettings { handshake_timeout: limit, ..ours(settings()) }).await;
    let (stranger, first) = first_of_a_handshake().await;
    stranger.send_to(&first, at(&port)).await.unwrap();
    assert!(port.failure().await.contains("handshakeTimeout"));
    // Nor is a connection kept on which nothing is opened.
    let mut port = Port::open(ServerSettings { handshake_timeout: limit, ..ours(settings()) }).await;
    let _silent = port.connect(&port.dialer(&theirs(settings()))).await.unwrap();
    assert!(port.failure().await.contains("handshakeTimeout"));
}

/// While many handshakes are unfinished, a stranger has to show that its address is not made up; who does so is served.
#[tokio::test]
async fn under_load_addresses_are_validated() {
    let any = HostPort::parse("127.0.0.1:0", 0).unwrap();
    let listen = listen::Settings { max_handshakes: 3, ..listen::Settings::new(any) };
    let mut port = Port::open_with(ours(settings()), &listen).await;
    let mut strangers = Vec::new();
    for retried in [false, false, true, true] {
        let (stranger, first) = first_of_a_handshake().await;
        stranger.send_to(&first, at(&port)).await.unwrap();
        let mut answer = [0; 2048];
        // The client has sent more, which nobody wants.
        let answered = async { while stranger.recv_from(&mut answer).await.unwrap().1 != at(&port) {} };
        timeout(PATIENCE, answered).await.unwrap();
        // The type of a packet with a long header (RFC 9000, section 17.2): 3 is a Retry.
        assert_eq!(answer[0] >> 4 & 3 == 3, retried);
        strangers.push(stranger);
    }
    let dialer = port.dialer(&theirs(settings()));
    let mut near = port.connect(&dialer).await.unwrap();
    near.write_all(b"x").await.unwrap();
    assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found_by_either_side() {
    let quick = Settings {
        keepalive: Some(Duration::from_millis(100)),
        idle_timeout: Duration::from_millis(400),
        max_streams: 100,
    };
    let mut port = Port::open(ours(quick.clone())).await;
    // A link that stands until it is cut.
    let between = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (addr, to) = (between.local_addr().unwrap(), at(&port));
    let link = tokio::spawn(async move {
        let (mut buf, mut client) = (vec![0; 65_536], None);
        loop {
            let (len, from) = between.recv_from(&mut buf).await.unwrap();
            let target = if from == to { client.unwrap_or(to) } else { to };
            client = if from == to { client } else { Some(from) };
            between.send_to(&buf[..len], target).await.unwrap();
        }
    });
    let dialer = port.dialer(&theirs(quick));
    let straight = std::mem::replace(&mut port.addr, addr.into());
    let mut near = port.connect(&dialer).await.unwrap();
    near.write_all(b"x").await.unwrap();
    let mut far = port.accept().await;
    assert_eq!(far.read_u8().await.unwrap(), b'x');
    // Silence is not death while both can hear each other.
    assert!(timeout(Duration::from_millis(1200), near.read_u8()).await.is_err());
    link.abort();
    for stream in [&mut near, &mut far] {
        let error = timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("maxIdleTimeout"), "{error}");
    }
    // The next connection is a new one.
    port.addr = straight;
    let mut near = port.connect(&dialer).await.unwrap();
    near.write_all(b"y").await.unwrap();
    assert_eq!(port.accept().await.read_u8().await.unwrap(), b'y');
}
