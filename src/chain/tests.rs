//! Chains through scripted servers on loopback sockets.

use super::*;
use crate::addr::Host;
use crate::net::BoxStream;
use crate::route::hop::{NodeSettings, Strategy};
use crate::route::{Extra, Protocol};
use crate::wire::relay::{self, Feature, Status};
use bytes::BytesMut;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that plays one script for each connection.
struct Fake(HostPort);

impl Fake {
    async fn new<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(script(socket));
            }
        });
        Self(addr)
    }

    /// Answers the first bytes that it reads, whatever they are, then echoes.
    async fn saying(answer: &'static [u8]) -> Self {
        Self::new(move |mut socket| async move {
            let mut asked = [0; 1024];
            let _ = socket.read(&mut asked).await;
            let _ = socket.write_all(answer).await;
            echo(socket).await;
        })
        .await
    }

    fn node(&self, connector: Connector) -> Node {
        node(self.0.clone(), connector, None)
    }
}

async fn echo(socket: TcpStream) {
    let (mut read, mut write) = socket.into_split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// An address at which nothing listens.
async fn nobody() -> HostPort {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into()
}

fn node(addr: HostPort, connector: Connector, auth: Option<Auth>) -> Node {
    let (kind, layer) = (channel::Kind::TCP, channel::Layer::Bare);
    let channel = channel::ClientSettings { kind, tls: None, layer, mux: None, handshake_timeout: PATIENCE };
    let mux = mux::Settings::tunnel();
    let server =
        Server { addr, connector, auth, mux, connect_timeout: PATIENCE, channel, proxy_protocol: None };
    Node { name: "n".to_owned(), server: Some(server) }
}

fn http() -> Connector {
    Connector::Http { fields: vec![("x-way".to_owned(), "out".to_owned())] }
}

fn direct() -> Node {
    Node { name: "direct".to_owned(), server: None }
}

fn chain(hops: &[&[Node]]) -> Chain {
    let hop = |nodes: &&[Node]| {
        let settings = |node: &Node| NodeSettings::new(node.name.clone(), PATIENCE);
        let choice = nodes.iter().map(settings).collect();
        let choice = hop::HopSettings { nodes: choice, strategy: Strategy::Fifo };
        HopSettings { nodes: nodes.to_vec(), choice }
    };
    let hops: Vec<_> = hops.iter().map(hop).collect();
    Chain::new(hops.iter().map(|hop| (hop, None)), &Shutdown::default()).unwrap()
}

async fn reach(chain: &Chain, target: &HostPort) -> Result<BoxStream, ChainError> {
    let request = Request {
        hostname: Host::empty(),
        protocol: Protocol::Tcp,
        client: SocketAddr::from(([192, 0, 2, 7], 7)),
        service: "test",
        http: None,
        extra: Extra::default(),
    };
    let ask = Ask { request: &request, connect_timeout: PATIENCE, visitor: None };
    Ok(chain.connect(target, ask).await?.stream)
}

fn target() -> HostPort {
    HostPort::parse("far.example:7000", 0).unwrap()
}

/// What a failure says, and whether the target is to blame.
async fn failure(chain: &Chain) -> (bool, String) {
    let error = reach(chain, &target()).await.unwrap_err();
    (matches!(error, ChainError::Target(_)), error.to_string())
}

async fn echoes(stream: &mut BoxStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut got = vec![0; text.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, text);
}

#[tokio::test]
async fn an_http_proxy_is_asked_and_loses_no_byte_behind_its_answer() {
    let proxy = Fake::new(|mut socket| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let expected = "CONNECT far.example:7000 HTTP/1.1\r\nHost: far.example:7000\r\n\
            Proxy-Authorization: Basic dXNlcjpwYXNz\r\nx-way: out\r\n\r\n";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
        socket.write_all(b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\nhello").await.unwrap();
        echo(socket).await;
    });
    let auth = Auth { username: "user".to_owned(), password: "pass".to_owned() };
    let chain = chain(&[&[node(proxy.await.0, http(), Some(auth))]]);
    let mut stream = reach(&chain, &target()).await.unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
    echoes(&mut stream, b"on").await;
}

#[tokio::test]
async fn what_proxies_say_no_with_is_told() {
    for (answer, connector, targets, text) in [
        (&b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"[..], http(), true, "the proxy answers 403"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", http(), true, "502"),
        (b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n", http(), false, "mend connector.auth"),
        (b"SSH-2.0-x\r\n\r\n", http(), false, "no answer of an HTTP proxy"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            http(),
            false,
            "no answer of an HTTP proxy",
        ),
        (b"\x05\xff", Connector::Socks5, false, "mend connector.auth"),
        (b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0", Connector::Socks5, true, "refused"),
        (b"\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0", Connector::Socks5, true, "not allowed"),
        (b"HTTP/1.1 400 Bad\r\n\r\n", Connector::Socks5, false, "SOCKS5"),
        (b"\x01\x02\0\0", tunnel(), false, "wrong user name or password"),
        (b"\x01\x05\0\0", tunnel(), true, "no connector of the tunnel"),
        (b"\x01\x06\0\0", tunnel(), true, "does not lead this host"),
        (b"\x02\x00\0\0", tunnel(), false, "malformed"),
    ] {
        let fake = Fake::saying(answer).await;
        let (is_target, error) = failure(&chain(&[&[fake.node(connector)]])).await;
        assert!(error.contains(text) && is_target == targets, "{answer:?}: {error}");
    }
}

fn tunnel() -> Connector {
    Connector::Tunnel { id: Uuid::from_u128(7), weight: 0 }
}

#[tokio::test]
async fn a_visitor_says_which_tunnel_and_who_it_is() {
    let server = Fake::new(|mut socket| async move {
        let mut buf = BytesMut::new();
        let request = loop {
            socket.read_buf(&mut buf).await.unwrap();
            if let Some((request, _)) = relay::Request::decode(&buf).unwrap() {
                break request;
            }
        };
        let addr = |text| Feature::addr(&HostPort::parse(text, 0).unwrap());
        let id = relay::TunnelFeature { id: Uuid::from_u128(7), flags: 0, weight: 0 };
        let features = vec![addr("192.0.2.7:7"), addr("far.example:7000"), Feature::Tunnel(id)];
        assert_eq!(request, relay::Request { command: relay::Command::Connect, udp: false, features });
        socket.write_all(b"\x01\0\0\0first").await.unwrap();
        echo(socket).await;
    });
    let chain = chain(&[&[server.await.node(tunnel())]]);
    let mut stream = reach(&chain, &target()).await.unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"first");
    echoes(&mut stream, b"on").await;
}

/// A relay server may keep its answer until the target speaks; a client that waited for it would wait for ever.
#[tokio::test]
async fn a_relay_servers_answer_may_come_with_the_targets_first_bytes() {
    let server = Fake::new(|mut socket| async move {
        let mut buf = BytesMut::new();
        while !buf.ends_with(b"ask") {
            socket.read_buf(&mut buf).await.unwrap();
        }
        for byte in b"\x01\0\0\0answer" {
            socket.write_all(&[*byte]).await.unwrap();
            socket.flush().await.unwrap();
        }
        echo(socket).await;
    });
    let chain = chain(&[&[server.await.node(Connector::Relay)]]);
    let mut stream = reach(&chain, &target()).await.unwrap();
    stream.write_all(b"ask").await.unwrap();
    assert!(stream.tcp().is_none(), "its bytes are not the stream's yet");
    let mut got = [0; 6];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"answer");
    assert!(stream.tcp().is_some());
    echoes(&mut stream, b"on").await;
}

#[tokio::test]
async fn a_relay_servers_refusal_is_an_error_of_the_stream() {
    for (answer, text) in [
        (&b"\x01\x03\0\0"[..], "the server refuses: Forbidden"),
        (b"\x01\x02\0\0", "wrong user name or password"),
        (b"HTTP/1.1 400 Bad\r\n\r\n", "version"),
        (b"\x01\0", ""),
    ] {
        let server = Fake::new(move |mut socket| async move {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(answer).await;
        });
        let chain = chain(&[&[server.await.node(Connector::Relay)]]);
        let mut stream = reach(&chain, &target()).await.unwrap();
        let error = stream.read(&mut [0; 1]).await.unwrap_err().to_string();
        assert!(error.contains(text), "{answer:?}: {error}");
    }
}

/// The connection to the second proxy goes through the first.
#[tokio::test]
async fn hops_come_one_after_the_other() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    // It echoes what comes behind its answer: the request to the second proxy, which is no answer of one.
    let first = Fake::saying(OK).await;
    let second = nobody().await;
    let chain = chain(&[&[first.node(http())], &[node(second, http(), None)]]);
    let (is_target, error) = failure(&chain).await;
    assert!(!is_target && error.contains("no answer of an HTTP proxy"), "{error}");
}

#[tokio::test]
async fn a_dead_node_is_marked_and_the_next_one_taken() {
    let (dead, good) = (nobody().await, Fake::saying(b"HTTP/1.1 200 OK\r\n\r\n").await);
    let chain = chain(&[&[node(dead, http(), None), good.node(http())]]);
    for failures in [1, 1] {
        let mut stream = reach(&chain, &target()).await.unwrap();
        echoes(&mut stream, b"on").await;
        let nodes = chain.hops[0].choice.nodes();
        assert_eq!([nodes[0].health.failures(), nodes[1].health.failures()], [failures, 0]);
    }
}

/// The way is there; only what lies behind it is not.
#[tokio::test]
async fn a_target_that_is_refused_is_tried_through_the_others_and_marks_nobody() {
    let refusing = Fake::saying(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    let good = Fake::saying(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let both = chain(&[&[refusing.node(http()), good.node(http())]]);
    echoes(&mut reach(&both, &target()).await.unwrap(), b"on").await;
    assert_eq!(both.hops[0].choice.nodes()[0].health.failures(), 0);
    // That one of them is down as well does not hide it.
    let one = chain(&[&[refusing.node(http()), node(nobody().await, http(), None)]]);
    let (is_target, error) = failure(&one).await;
    assert!(is_target && error.contains("503"), "{error}");
}

/// When a hop is down, that is said at once: the nodes behind it are neither tried one by one nor marked.
#[tokio::test]
async fn a_hop_that_is_down_is_no_fault_of_the_next() {
    let (dead, behind) = (nobody().await, HostPort::parse("behind.example:1", 0).unwrap());
    let next = node(behind, http(), None);
    let chain = chain(&[&[node(dead.clone(), http(), None)], &[next.clone(), next]]);
    let (is_target, error) = failure(&chain).await;
    assert!(!is_target && error.contains(&dead.to_string()), "{error}");
    let failures = |hop: &Hop| hop.choice.nodes().iter().map(|n| n.health.failures()).collect::<Vec<_>>();
    assert_eq!(chain.hops.iter().map(failures).collect::<Vec<_>>(), [vec![1], vec![0, 0]]);
}

#[tokio::test]
async fn a_direct_node_is_as_if_it_were_not_there() {
    let target = Fake::saying(b"").await.0;
    let mut stream = reach(&chain(&[&[direct()]]), &target).await.unwrap();
    stream.write_all(b"dropped").await.unwrap();
    // As the second choice it is the way when the proxy is down.
    let chain = chain(&[&[node(nobody().await, http(), None), direct()]]);
    reach(&chain, &target).await.unwrap();
    let error = reach(&chain, &nobody().await).await.unwrap_err();
    assert!(matches!(error, ChainError::Target(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_says_nothing_is_left() {
    let silent = Fake::new(|mut socket| async move { while socket.read_u8().await.is_ok() {} }).await;
    for connector in [http(), Connector::Socks5, tunnel()] {
        let (is_target, error) = failure(&chain(&[&[silent.node(connector)]])).await;
        assert!(!is_target && error.contains("connectTimeout") || error.contains("in time"), "{error}");
    }
    assert_eq!(answer_text(Status::Forbidden), "the server refuses: Forbidden");
}

fn answer_text(status: Status) -> String {
    connect::answer(status, "").unwrap_err().to_string()
}
