//! The interoperability matrix: each case, for a server and a client of any make, over any data channel.

mod channel;
mod yaml;

pub(crate) use channel::Channel;

use super::backend::{self, pattern, pattern_sum};
use super::{Proc, Program, curl, eventually, free_port};
use futures_util::{SinkExt, StreamExt};
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::{self, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

pub(crate) const TUNNEL: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
const WEB: &str = "srv-0.local";
const TLS: &str = "srv-tls.local";
const WS: &str = "srv-ws.local";
const BULK: usize = 100 << 20;
/// Visitors at once.
const MANY: usize = 200;

/// How the two ends are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Handler and connector `tunnel`, visitors at the entrypoint.
    Tunnel,
    /// Handler and connector `relay`: the server opens a port for the client.
    Relay,
    /// Handler `tcp`: the server passes on what the client sends, which takes the visitors.
    Forward,
}

/// One row of the matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) channel: Channel,
    /// More metadata (`, key: value`) at both the handler and the connector.
    pub(crate) mux: &'static str,
    pub(crate) server: Program,
    pub(crate) client: Program,
}

impl Row {
    /// With the mux session that a handler has by itself.
    pub(crate) fn new(kind: Kind, channel: Channel, (server, client): (Program, Program)) -> Self {
        Self { kind, channel, mux: "", server, client }
    }

    fn mux(&self) -> String {
        self.channel.inner_keepalive() + self.mux
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, channel, mux, server, client } = self;
        write!(f, "{} {kind:?}{mux}, client {client:?} at {server:?}", channel.word)
    }
}

/// Runs a row at the same time as others: in a thread that is named after it, and a runtime of its own.
pub(crate) fn spawn<'scope, F: Future>(
    scope: &'scope Scope<'scope, '_>,
    name: impl fmt::Display,
    row: impl FnOnce() -> F + Send + 'scope,
) {
    let run = move || {
        Runtime::new().unwrap().block_on(row());
    };
    thread::Builder::new().name(name.to_string()).spawn_scoped(scope, run).unwrap();
}

/// Who may have the processors for the cases that need them whole: what waits for a keepalive meanwhile must not starve.
static TURNS: Semaphore = Semaphore::const_new(2);

/// Every case of a row.
pub(crate) async fn every_case(row: Row) {
    let mut setup = Setup::new(row).await;
    setup.http();
    setup.tls();
    setup.websocket().await;
    let turn = TURNS.acquire().await.unwrap();
    setup.concurrent(MANY).await;
    setup.bulk();
    drop(turn);
    setup.idle().await;
    setup.restart_client();
    setup.restart_server();
    setup.http();
    setup.tls();
}

/// Server and client of a row that does not work, with no target.
pub(crate) fn ends(row: &Row) -> [Proc; 2] {
    let (port, visit) = (free_port(), free_port());
    let targets = [WEB, TLS, WS].map(|host| (host, free_port()));
    let server = row.server.start(&yaml::server(row, port, visit, &targets));
    row.channel.wait_for(port);
    [server, row.client.start(&yaml::client(row, port, visit, &targets))]
}

/// So many bytes from a host at a local port, with a length or chunked, and their checksum.
pub(crate) fn download(host: &str, port: u16, count: usize, length: bool) {
    let output = Command::new("curl")
        .args(["-sS", "--no-progress-meter", "--max-time", "120", "--resolve"])
        .arg(format!("{host}:{port}:127.0.0.1"))
        .arg(format!("http://{host}:{port}/bytes/{count}{}", if length { "?length" } else { "" }))
        .output()
        .unwrap();
    assert_eq!(output.stdout.len(), count, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(crc32fast::hash(&output.stdout), pattern_sum(count));
}

/// Both ends running, targets behind them.
struct Setup {
    row: Row,
    visit: u16,
    yaml: [String; 2],
    server: Proc,
    client: Proc,
    ca: String,
    _dir: tempfile::TempDir,
}

impl Setup {
    async fn new(row: Row) -> Self {
        let (tls, ca, dir) = backend::https("tls", TLS).await;
        let targets = [(WEB, backend::http("web").await), (TLS, tls), (WS, backend::websocket().await)];
        let (port, visit) = (free_port(), free_port());
        let yaml = [yaml::server(&row, port, visit, &targets), yaml::client(&row, port, visit, &targets)];
        let server = row.server.start(&yaml[0]);
        row.channel.wait_for(port);
        let client = row.client.start(&yaml[1]);
        let ca = ca.to_str().unwrap().to_owned();
        let setup = Self { row, visit, yaml, server, client, ca, _dir: dir };
        setup.up();
        setup
    }

    fn up(&self) {
        eventually("the tunnel works", || {
            (curl(WEB, self.visit, "/up", &["--max-time", "5"]).0 == 200).then_some(())
        });
    }

    fn http(&self) {
        let (status, body) = curl(WEB, self.visit, "/a/b?c=d", &[]);
        assert_eq!((status, body), (200, format!("web {WEB}:{} /a/b GET", self.visit)));
    }

    fn tls(&self) {
        let (status, body) = curl(TLS, self.visit, "/secret", &["--cacert", &self.ca]);
        assert_eq!((status, body), (200, format!("tls {TLS}:{} /secret GET", self.visit)));
    }

    async fn websocket(&self) {
        let mut socket = self.echo().await;
        for message in [Message::text("hello"), Message::binary(pattern(0, 1 << 20)), Message::text("")] {
            echoes(&mut socket, message).await;
        }
        socket.close(None).await.unwrap();
    }

    async fn echo(&self) -> WebSocketStream<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.visit)).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{WS}/echo"), stream).await.unwrap().0
    }

    /// So many bytes down, with a length or chunked.
    fn download(&self, count: usize, length: bool) {
        download(WEB, self.visit, count, length);
    }

    /// So many bytes up, with a length or chunked.
    fn upload(&self, count: usize, length: bool) {
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
        thread::spawn(move || {
            for at in (0..count).step_by(1 << 16) {
                if stdin.write_all(&pattern(at, (1 << 16).min(count - at))).is_err() {
                    break;
                }
            }
        });
        let output = upload.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{count} {:08x}", pattern_sum(count)));
    }

    /// Much in either direction. With a length or chunked is the same to the channels, and is tried on the plain one.
    fn bulk(&self) {
        let forms: &[bool] = if self.row.channel == Channel::TCP { &[true, false] } else { &[true] };
        for &length in forms {
            self.download(BULK, length);
            self.upload(BULK, !length);
        }
    }

    /// Many at once, each of which must get its own answer.
    async fn concurrent(&self, count: usize) {
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

    /// Nothing at all happens for longer than the session lives without its keepalives: a stream from before is still there
    /// afterwards, and new ones are to be had.
    async fn idle(&self) {
        let mut socket = self.echo().await;
        echoes(&mut socket, Message::text("before")).await;
        let silence = self.row.channel.silence(self.row.client);
        assert!(timeout(silence, socket.next()).await.is_err(), "the silence is broken, or the stream lost");
        echoes(&mut socket, Message::text("after")).await;
        self.http();
        self.tls();
    }

    /// The client dies without a word and comes back.
    fn restart_client(&mut self) {
        self.client.kill();
        if self.row.kind == Kind::Tunnel {
            eventually("503 without a client", || (curl(WEB, self.visit, "/", &[]).0 == 503).then_some(()));
        }
        self.client = self.row.client.start(&self.yaml[1]);
        self.up();
    }

    /// The server dies without a word and comes back.
    fn restart_server(&mut self) {
        self.server.kill();
        self.server = self.row.server.start(&self.yaml[0]);
        self.up();
    }
}

async fn echoes(socket: &mut WebSocketStream<TcpStream>, message: Message) {
    socket.send(message.clone()).await.unwrap();
    let reply = timeout(super::PATIENCE, socket.next()).await.unwrap();
    assert_eq!(reply.unwrap().unwrap(), message);
}
