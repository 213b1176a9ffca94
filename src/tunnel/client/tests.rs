//! A client and scripted servers over real sockets. The clock is paused, and moves only when a test moves it.

use super::*;
use crate::chain::{self, HopSettings};
use crate::channel;
use crate::mux::{Incoming, Session};
use crate::route::hop::{self, NodeSettings, Strategy};
use crate::wire::smux;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{advance, timeout};

/// Lets the virtual clock run in steps, each with time enough for what happens on sockets.
fn clock(step: u64) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            for _ in 0..100 {
                yield_now().await;
            }
            advance(Duration::from_millis(step)).await;
        }
    })
}

/// Runs a test in which the clock stands still but for its own steps: whoever waits for it fails the test.
async fn at_once(test: impl Future<Output = ()>) {
    let patience = async {
        for _ in 0..500_000 {
            yield_now().await;
        }
    };
    tokio::select! {
        () = test => {}
        () = patience => panic!("something waits for the clock"),
    }
}

struct Fake(TcpListener);

impl Fake {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn server(&self) -> Server {
        Server {
            addr: self.0.local_addr().unwrap().into(),
            connector: Connector::Tunnel { id: Uuid::from_u128(7), weight: 1 },
            auth: None,
            mux: mux::Settings::tunnel(),
            connect_timeout: Duration::from_secs(10),
            proxy_protocol: None,
            channel: tcp(),
        }
    }

    /// Takes a client, reads its request and answers with a status.
    async fn answer(&self, status: Status) -> (TcpStream, relay::Request) {
        let mut socket = self.0.accept().await.unwrap().0;
        let mut buf = BytesMut::new();
        let request = loop {
            socket.read_buf(&mut buf).await.unwrap();
            if let Some((request, _)) = relay::Request::decode(&buf).unwrap() {
                break request;
            }
        };
        let mut reply = BytesMut::new();
        let features = vec![Feature::addr(&self.server().addr)];
        relay::Response { status, features }.encode(&mut reply).unwrap();
        socket.write_all(&reply).await.unwrap();
        (socket, request)
    }

    /// The same, and the session that follows.
    async fn bound(&self) -> (Session, Incoming) {
        let (socket, _) = self.answer(Status::Ok).await;
        let settings = mux::Settings::tunnel();
        let (session, incoming, driver) =
            mux::start(Box::new(socket), Bytes::new(), mux::Role::Client, &settings);
        tokio::spawn(driver);
        (session, incoming)
    }
}

fn tcp() -> channel::ClientSettings {
    let (kind, layer) = (channel::Kind::TCP, channel::Layer::Bare);
    let handshake_timeout = Duration::from_secs(10);
    channel::ClientSettings { kind, tls: None, layer, mux: None, handshake_timeout }
}

fn node(server: &Server) -> NodeSettings {
    NodeSettings {
        addr: Some(server.addr.clone()),
        ..NodeSettings::new("fake".to_owned(), Duration::from_secs(10))
    }
}

/// A client of these servers whose connections echo what they read.
fn client(servers: Vec<Server>) -> (JoinHandle<()>, Shutdown) {
    let settings = Settings {
        bind: HostPort::new(Host::empty(), 0),
        handshake_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        udp: None,
    };
    let choice = hop::HopSettings { nodes: servers.iter().map(node).collect(), strategy: Strategy::Fifo };
    let node = |server| chain::Node { name: "fake".to_owned(), server: Some(server) };
    let hop = HopSettings { nodes: servers.into_iter().map(node).collect(), choice };
    let shutdown = Shutdown::default();
    let chain = Arc::new(Chain::new([(&hop, None)], &shutdown).unwrap());
    let client = Client { service: "test".to_owned(), settings, chain, shutdown: shutdown.clone() };
    let task = tokio::spawn(async move { client.run(echo).await });
    (task, shutdown)
}

async fn echo(accepted: Accepted) {
    let Accepted::Conn(mut conn) = accepted else { panic!("{accepted:?}") };
    conn.stream.write_all(&conn.prefix).await.unwrap();
    let (mut read, mut write) = tokio::io::split(conn.stream);
    // The end of the stream may come as an error of either side.
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

fn header() -> Bytes {
    let addr: HostPort = SocketAddr::from(([127, 0, 0, 1], 9)).into();
    crate::tunnel::server::stream_header(&addr, &addr).unwrap()
}

async fn echoes(session: &Session) {
    let mut stream = session.open(header()).unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

/// When connections are accepted, counted from the first.
async fn gaps(count: usize, clients: impl AsyncFn() -> Instant) -> Vec<Duration> {
    let mut at = clients().await;
    let mut gaps = Vec::new();
    for _ in 0..count {
        let next = clients().await;
        gaps.push(next - at);
        at = next;
    }
    gaps
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_replaced_at_once() {
    at_once(async {
        let fake = Fake::new().await;
        let (_task, _) = client(vec![fake.server()]);
        let session = fake.bound().await;
        echoes(&session.0).await;
        drop(session);
        echoes(&fake.bound().await.0).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lasted_is_replaced_at_once_each_time() {
    at_once(async {
        let fake = Fake::new().await;
        let (_task, _) = client(vec![fake.server()]);
        let mut session = fake.bound().await;
        for _ in 0..5 {
            echoes(&session.0).await;
            advance(LASTED).await;
            drop(session);
            session = fake.bound().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_clients_and_drops_them_is_not_asked_without_a_pause() {
    let _clock = clock(1);
    let fake = Fake::new().await;
    let (_task, _) = client(vec![fake.server()]);
    let gaps = gaps(6, async || {
        let socket = fake.answer(Status::Ok).await;
        drop(socket);
        Instant::now()
    });
    let gaps = gaps.await;
    for (gap, wait) in gaps.iter().zip([0, 100, 115, 132, 152, 174]) {
        let bounds = Duration::from_millis(wait / 2)..Duration::from_millis(wait + 50);
        assert!(bounds.contains(gap), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_rarely() {
    let _clock = clock(100);
    let fake = Fake::new().await;
    let (_task, _) = client(vec![fake.server()]);
    let gaps = gaps(1, async || {
        fake.answer(Status::Unauthorized).await;
        Instant::now()
    });
    assert!(gaps.await[0] >= Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn the_next_server_is_tried_at_once() {
    at_once(async {
        let (gone, refusing, dropping, good) =
            (Fake::new().await, Fake::new().await, Fake::new().await, Fake::new().await);
        let servers = [&gone, &refusing, &dropping, &good].map(Fake::server);
        drop(gone);
        let (_task, _) = client(servers.to_vec());
        refusing.answer(Status::Unauthorized).await;
        drop(dropping.answer(Status::Ok).await);
        // The second time those that failed are known, and passed over.
        for _ in 0..2 {
            let session = good.bound().await;
            echoes(&session.0).await;
            advance(LASTED).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_left() {
    let _clock = clock(10);
    let (silent, good) = (Fake::new().await, Fake::new().await);
    let (_task, _) = client(vec![silent.server(), good.server()]);
    let began = Instant::now();
    let _held = silent.0.accept().await.unwrap();
    echoes(&good.bound().await.0).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_millis(10_500), "{took:?}");
}

/// The server's process stands still: the kernel takes what the client writes until its buffers are full.
#[tokio::test(start_paused = true)]
async fn a_dead_server_is_found_in_time_while_data_is_being_written() {
    let _clock = clock(10);
    let fake = Fake::new().await;
    let mut server = fake.server();
    server.mux.keepalive_timeout = Duration::from_secs(15);
    let (_task, _) = client(vec![server]);
    // Opens a stream whose echo is large, and reads nothing any more.
    let (mut dead, _) = fake.answer(Status::Ok).await;
    let payload = [&header()[..], &[1; 40_000]].concat();
    let frame = |command, length| smux::Header { command, length, id: 3 }.encode(smux::Version::V2);
    let length = u16::try_from(payload.len()).unwrap();
    let bytes = [&frame(smux::Command::Syn, 0)[..], &frame(smux::Command::Psh, length), &payload].concat();
    dead.write_all(&bytes).await.unwrap();
    let began = Instant::now();
    let _next = fake.bound().await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(14) && took < Duration::from_millis(15_500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_stream_ends_alone_and_holds_nobody_up() {
    at_once(async {
        let fake = Fake::new().await;
        let (_task, _) = client(vec![fake.server()]);
        let (session, _incoming) = fake.bound().await;
        let silent = session.open(Bytes::new()).unwrap();
        let half = session.open(header().slice(..5)).unwrap();
        for bad in
            [&b"\x02\0\0\0"[..], b"\x01\x05\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\x01\0\0\x04\x02\0\x01\x09"]
        {
            let mut stream = session.open(Bytes::from_static(bad)).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "{bad:?}");
        }
        echoes(&session).await;
        advance(Duration::from_secs(10)).await;
        for mut stream in [silent, half] {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "its time is up");
        }
        echoes(&session).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_open_streams_and_takes_no_new_ones() {
    let _clock = clock(1);
    let fake = Fake::new().await;
    let (task, shutdown) = client(vec![fake.server()]);
    let (session, _incoming) = fake.bound().await;
    let mut stream = session.open(header()).unwrap();
    stream.write_all(b"a").await.unwrap();
    stream.read_exact(&mut [0; 1]).await.unwrap();
    shutdown.stop.cancel();
    let mut late = session.open(header()).unwrap();
    assert_eq!(late.read(&mut [0; 1]).await.unwrap(), 0);
    stream.write_all(b"b").await.unwrap();
    stream.read_exact(&mut [0; 1]).await.unwrap();
    assert!(!task.is_finished());
    drop(stream);
    timeout(Duration::from_secs(1), task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopping_cuts_a_wait_and_a_handshake_short() {
    at_once(async {
        let fake = Fake::new().await;
        let (task, shutdown) = client(vec![fake.server()]);
        let _held = fake.0.accept().await.unwrap();
        shutdown.stop.cancel();
        task.await.unwrap();
        let (task, shutdown) = client(vec![fake.server()]);
        fake.answer(Status::Forbidden).await;
        shutdown.stop.cancel();
        task.await.unwrap();
    })
    .await;
}
