//! The interoperability matrix: each case, for a server and a client of any make.

use super::backend::{self, pattern, pattern_sum};
use super::{Proc, Program, curl, eventually, free_port, wait_for_port, wait_for_udp_port};
use futures_util::{SinkExt, StreamExt};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

pub(crate) const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const WEB: &str = "srv-0.local";
const TLS: &str = "srv-tls.local";
const WS: &str = "srv-ws.local";
const BULK: usize = 200 << 20;

/// How the two ends are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Handler and connector `tunnel`, visitors at the entrypoint.
    Tunnel,
    /// Handler and connector `relay`: the server opens a port for the client.
    Relay,
}

/// What lies between the two ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) kind: Kind,
    /// More metadata (`, key: value`) at both the handler and the connector.
    pub(crate) mux: &'a str,
    /// The data channel, and metadata (`key: value`) at both the listener and the dialer.
    pub(crate) channel: (&'a str, &'a str),
}

/// So many bytes from a host at a local port, with a length or chunked, and their checksum.
pub(crate) fn download(host: &str, port: u16, count: usize, length: bool) {
    let output = Command::new("curl")
        .args(["-sS", "--no-progress-meter", "--max-time", "120", "--resolve"])
        .arg(format!("{host}:{port}:127.0.0.1"))
        .arg(format!("http://{host}:{port}/bytes/{count}{}", if length { "?length" } else { "" }))
        .output()
        .unwrap();
    assert_eq!(output.stdout.len(), count);
    assert_eq!(crc32fast::hash(&output.stdout), pattern_sum(count));
}

impl Way<'_> {
    fn tcp(kind: Kind) -> Self {
        Self { kind, mux: "", channel: ("tcp", "") }
    }
}

/// Both ends running, targets behind them.
pub(crate) struct Setup {
    kind: Kind,
    pub(crate) visit: u16,
    client_program: Program,
    client_yaml: String,
    client: Proc,
    _server: Proc,
    ca: String,
    _dir: tempfile::TempDir,
}

impl Setup {
    pub(crate) async fn new(way: Way<'_>, server: Program, client: Program) -> Self {
        let kind = way.kind;
        let web = backend::http("web").await;
        let ws = backend::websocket().await;
        let (tls, ca, dir) = backend::https("tls", TLS).await;
        let (port, visit) = (free_port(), free_port());
        let server = server.start(&server_yaml(way, port, visit));
        if way.channel.0 == "quic" {
            wait_for_udp_port(port)
        } else {
            wait_for_port(port)
        }
        let client_yaml = client_yaml(way, port, visit, &[(WEB, web), (TLS, tls), (WS, ws)]);
        let running = client.start(&client_yaml);
        let ca = ca.to_str().unwrap().to_owned();
        let setup = Self {
            kind,
            visit,
            client_program: client,
            client_yaml,
            client: running,
            _server: server,
            ca,
            _dir: dir,
        };
        setup.up();
        setup
    }

    fn up(&self) {
        eventually("the tunnel works", || (curl(WEB, self.visit, "/up", &[]).0 == 200).then_some(()));
    }

    pub(crate) fn http(&self) {
        let (status, body) = curl(WEB, self.visit, "/a/b?c=d", &[]);
        assert_eq!((status, body), (200, format!("web {WEB}:{} /a/b GET", self.visit)));
    }

    pub(crate) fn tls(&self) {
        let (status, body) = curl(TLS, self.visit, "/secret", &["--cacert", &self.ca]);
        assert_eq!((status, body), (200, format!("tls {TLS}:{} /secret GET", self.visit)));
    }

    pub(crate) async fn websocket(&self) {
        let stream = TcpStream::connect(("127.0.0.1", self.visit)).await.unwrap();
        let (mut socket, _) =
            tokio_tungstenite::client_async(format!("ws://{WS}/echo"), stream).await.unwrap();
        for message in [Message::text("hello"), Message::binary(pattern(0, 1 << 20)), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.close(None).await.unwrap();
    }

    /// So many bytes down, with a length or chunked.
    pub(crate) fn download(&self, count: usize, length: bool) {
        download(WEB, self.visit, count, length);
    }

    /// So many bytes up, with a length or chunked.
    pub(crate) fn upload(&self, count: usize, length: bool) {
        let mut command = Command::new("curl");
        command.args(["-s", "--max-time", "120", "-T", if length { "." } else { "-" }, "-X", "POST"]);
        command.args(["-H", "Expect:", "--resolve", &format!("{WEB}:{}:127.0.0.1", self.visit)]);
        if length {
            command.args(["-H", &format!("Content-Length: {count}"), "-H", "Transfer-Encoding:"]);
        }
        let mut upload = command
            .arg(format!("http://{WEB}:{}/sum", self.visit))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = upload.stdin.take().unwrap();
        std::thread::spawn(move || {
            for at in (0..count).step_by(1 << 16) {
                if stdin.write_all(&pattern(at, (1 << 16).min(count - at))).is_err() {
                    break;
                }
            }
        });
        let output = upload.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{count} {:08x}", pattern_sum(count)));
    }

    fn bulk(&self) {
        for length in [true, false] {
            self.download(BULK, length);
            self.upload(BULK, length);
        }
    }

    /// Many at once, each of which must get its own answer.
    pub(crate) async fn concurrent(&self, count: usize) {
        let visit = self.visit;
        let ask = |i: usize| async move {
            let mut stream = TcpStream::connect(("127.0.0.1", visit)).await.unwrap();
            let request = format!("GET /id/{i} HTTP/1.1\r\nHost: {WEB}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            let read = timeout(super::PATIENCE, async {
                let mut buf = [0; 4096];
                // The reference does not close: the end of the answer is known by what it says.
                while !reply.contains(&format!("/id/{i} GET")) {
                    let n = stream.read(&mut buf).await.unwrap();
                    assert!(n > 0, "ended early: {reply:?}");
                    reply += std::str::from_utf8(&buf[..n]).unwrap();
                }
            });
            read.await.unwrap();
            assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        };
        let asked: Vec<_> = (0..count).map(|i| tokio::spawn(ask(i))).collect();
        for asked in asked {
            asked.await.unwrap();
        }
    }

    /// The client dies without a word and comes back.
    pub(crate) fn restart(&mut self) {
        self.client.signal("KILL");
        self.client.wait();
        if self.kind == Kind::Tunnel {
            eventually("503 without a client", || (curl(WEB, self.visit, "/", &[]).0 == 503).then_some(()));
        }
        self.client = self.client_program.start(&self.client_yaml);
        self.up();
    }
}

/// A connection on which nothing happens for so long is there afterwards.
async fn idle(visit: u16, patience: Duration) {
    let stream = TcpStream::connect(("127.0.0.1", visit)).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{WS}/echo"), stream).await.unwrap();
    assert!(timeout(patience, socket.next()).await.is_err(), "nobody said anything");
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        timeout(super::PATIENCE, socket.next()).await.unwrap().unwrap().unwrap(),
        Message::text("hello")
    );
}

/// Every case over a data channel.
pub(crate) async fn channel(name: &str, metadata: &str, server: Program, client: Program) {
    // Two of these are waited for in silence.
    const INTERVAL: Duration = Duration::from_secs(1);
    let mux = ", mux.keepaliveInterval: 1s, mux.keepaliveTimeout: 3s";
    let way = Way { kind: Kind::Tunnel, mux, channel: (name, metadata) };
    let mut setup = Setup::new(way, server, client).await;
    setup.http();
    setup.tls();
    setup.websocket().await;
    let silent = tokio::spawn(idle(setup.visit, 2 * INTERVAL + INTERVAL / 2));
    setup.concurrent(200).await;
    tokio::task::block_in_place(|| {
        setup.download(100 << 20, true);
        setup.upload(100 << 20, false);
    });
    silent.await.unwrap();
    tokio::task::block_in_place(|| setup.restart());
    setup.http();
    let setup =
        Setup::new(Way { kind: Kind::Relay, mux: "", channel: (name, metadata) }, server, client).await;
    setup.http();
    setup.tls();
    setup.websocket().await;
}

/// All but the bulk for one pair, with another mux than the protocol's own.
pub(crate) async fn muxed(kind: Kind, server: Program, client: Program, mux: &str) {
    let mut setup = Setup::new(Way { mux, ..Way::tcp(kind) }, server, client).await;
    setup.http();
    setup.tls();
    setup.websocket().await;
    setup.concurrent(200).await;
    tokio::task::block_in_place(|| setup.restart());
    setup.http();
}

/// Every case for one pair.
pub(crate) async fn all(kind: Kind, server: Program, client: Program) {
    let mut setup = Setup::new(Way::tcp(kind), server, client).await;
    setup.http();
    setup.tls();
    setup.websocket().await;
    setup.concurrent(500).await;
    tokio::task::block_in_place(|| setup.bulk());
    tokio::task::block_in_place(|| setup.restart());
    setup.http();
}

fn server_yaml(way: Way<'_>, port: u16, visit: u16) -> String {
    let Way { kind, mux, channel: (channel, metadata) } = way;
    match kind {
        Kind::Tunnel => format!(
            "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler:
    type: tunnel
    metadata: {{ entrypoint: '127.0.0.1:{visit}', ingress: ingress-0{mux} }}
  listener:
    type: {channel}
    metadata: {{ {metadata} }}
ingresses:
- name: ingress-0
  rules:
  - {{ hostname: {WEB}, endpoint: {TUNNEL} }}
  - {{ hostname: {TLS}, endpoint: {TUNNEL} }}
  - {{ hostname: {WS}, endpoint: {TUNNEL} }}
"
        ),
        Kind::Relay => format!(
            "services:
- name: service-0
  addr: 127.0.0.1:{port}
  handler: {{ type: relay, metadata: {{ bind: true{mux} }} }}
  listener: {{ type: {channel}, metadata: {{ {metadata} }} }}
"
        ),
    }
}

fn client_yaml(way: Way<'_>, port: u16, visit: u16, nodes: &[(&str, u16)]) -> String {
    let Way { kind, mux, channel: (channel, metadata) } = way;
    let (bind, connector) = match kind {
        Kind::Tunnel => {
            (":0".to_owned(), format!("{{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL}{mux} }} }}"))
        }
        Kind::Relay => {
            let mux = mux.trim_start_matches(", ");
            (format!("127.0.0.1:{visit}"), format!("{{ type: relay, metadata: {{ {mux} }} }}"))
        }
    };
    let nodes: String = nodes
        .iter()
        .map(|(host, port)| format!("    - {{ name: {host}, addr: 127.0.0.1:{port}, host: {host} }}\n"))
        .collect();
    format!(
        "services:
- name: service-0
  addr: {bind}
  handler: {{ type: rtcp, metadata: {{ sniffing: true }} }}
  listener: {{ type: rtcp, chain: chain-0 }}
  forwarder:
    nodes:
{nodes}chains:
- name: chain-0
  hops:
  - name: hop-0
    nodes:
    - name: node-0
      addr: 127.0.0.1:{port}
      connector: {connector}
      dialer: {{ type: {channel}, metadata: {{ {metadata} }} }}
"
    )
}
