//! Every channel between a dialer and an acceptor on loopback sockets.

mod silence;
mod strangers;
mod valve;

use super::tls::{self, Pair};
use super::{
    Acceptor, ChannelError, ClientSettings, Dialed, Dialer, Failed, Framing, KINDS, Kind, Layer,
    ServerSettings, http2, quic, websocket,
};
use crate::addr::HostPort;
use crate::net::BoxStream;
use crate::net::dial::{DialError, dial};
use crate::net::listen::{self, Listener, Permit};
use crate::shutdown::Shutdown;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

fn layer(kind: Kind) -> Layer {
    match kind.framing {
        Framing::Bare => Layer::Bare,
        Framing::WebSocket => Layer::WebSocket(websocket::Settings::default()),
        Framing::Http2 => Layer::Http2(http2::Settings::default()),
        Framing::Grpc => Layer::Http2(http2::Settings { grpc: true, ..http2::Settings::default() }),
        Framing::Quic => {
            Layer::Quic(quic::Settings { keepalive: None, idle_timeout: PATIENCE, max_streams: 100 })
        }
    }
}

pub(super) fn client(kind: Kind) -> ClientSettings {
    ClientSettings {
        kind,
        tls: kind.tls.then(tls::ClientSettings::default),
        layer: layer(kind),
        mux: kind.mux_settings(),
        handshake_timeout: PATIENCE,
    }
}

pub(super) fn server(kind: Kind) -> ServerSettings {
    ServerSettings {
        kind,
        tls: kind.tls.then(tls::ServerSettings::default),
        layer: layer(kind),
        mux: kind.mux_settings(),
        handshake_timeout: PATIENCE,
    }
}

/// A port that takes a channel's connections.
pub(super) struct Port {
    pub(super) addr: HostPort,
    accepted: mpsc::Receiver<BoxStream>,
    ended: mpsc::Receiver<Result<(), ChannelError>>,
    pub(super) shutdown: Shutdown,
}

/// Where a port hands what it takes.
#[derive(Clone)]
struct Takers {
    give: mpsc::Sender<BoxStream>,
    tell: mpsc::Sender<Result<(), ChannelError>>,
    /// Whether streams are good for the connection below them.
    let_in: bool,
}

impl Takers {
    fn serve(&self) -> impl Fn(BoxStream, Permit) -> BoxFuture<'static, ()> + use<> {
        let (give, let_in) = (self.give.clone(), self.let_in);
        move |stream, mut permit| {
            let give = give.clone();
            Box::pin(async move {
                // The test holds the stream; its permit may go.
                if let_in {
                    permit.established();
                }
                drop(permit);
                give.send(stream).await.unwrap();
            })
        }
    }
}

impl Port {
    pub(super) async fn open(settings: ServerSettings) -> Self {
        let listen = listen::Settings::new(HostPort::parse("127.0.0.1:0", 0).unwrap());
        Self::open_with(settings, &listen).await
    }

    pub(super) async fn open_with(settings: ServerSettings, listen: &listen::Settings) -> Self {
        Self::start(settings, listen, true).await
    }

    /// One that lets nobody in.
    async fn open_to_nobody(settings: ServerSettings) -> Self {
        let listen = listen::Settings::new(HostPort::parse("127.0.0.1:0", 0).unwrap());
        Self::start(settings, &listen, false).await
    }

    async fn start(settings: ServerSettings, listen: &listen::Settings, let_in: bool) -> Self {
        let shutdown = Shutdown::default();
        let ((give, accepted), (tell, ended)) = (mpsc::channel(256), mpsc::channel(16));
        let takers = Takers { give, tell, let_in };
        let port = match &settings.layer {
            Layer::Quic(quic) => {
                let port = quic::Port::bind(listen, &settings, quic, "test", &shutdown).await.unwrap();
                Self::take_quic(port, takers)
            }
            _ => Self::take(Listener::bind(listen).await.unwrap(), &settings, takers, &shutdown),
        };
        let addr = HostPort::parse(&format!("localhost:{port}"), 0).unwrap();
        Self { addr, accepted, ended, shutdown }
    }

    fn take(mut listener: Listener, settings: &ServerSettings, takers: Takers, shutdown: &Shutdown) -> u16 {
        let port = listener.local_addr().port();
        let acceptor = Acceptor::new(settings, "test", listener.permits().clone(), shutdown).unwrap();
        let acceptor = Arc::new(acceptor);
        tokio::spawn(async move {
            loop {
                let (socket, _, permit) = listener.accept().await;
                let (acceptor, takers) = (Arc::clone(&acceptor), takers.clone());
                tokio::spawn(async move {
                    let ended = acceptor.accept(Box::new(socket), permit, takers.serve()).await;
                    // The test may be over.
                    let _ = takers.tell.send(ended).await;
                });
            }
        });
        port
    }

    fn take_quic(port: quic::Port, takers: Takers) -> u16 {
        let (addr, port) = (port.local_addr(), Arc::new(port));
        tokio::spawn(async move {
            while let Some(arrival) = port.accept().await {
                let (port, takers) = (Arc::clone(&port), takers.clone());
                tokio::spawn(async move {
                    let ended = port.serve(arrival, takers.serve()).await;
                    let _ = takers.tell.send(ended).await;
                });
            }
        });
        addr.port()
    }

    pub(super) async fn accept(&mut self) -> BoxStream {
        tokio::time::timeout(PATIENCE, self.accepted.recv()).await.unwrap().unwrap()
    }

    pub(super) async fn failure(&mut self) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.ended.recv()).await.unwrap().unwrap();
        ended.unwrap_err().to_string()
    }

    pub(super) fn dialer(&self, settings: &ClientSettings) -> Dialer {
        Dialer::new(settings, "node-0", &self.shutdown).unwrap()
    }

    pub(super) async fn dial(&self, dialer: &Dialer) -> Result<Dialed, ChannelError> {
        let below = async { Ok::<_, DialError>(dial(&self.addr, PATIENCE).await?.into()) };
        dialer.connect(&self.addr, below).await.map_err(|failed| match failed {
            Failed::Below(error) => panic!("{error}"),
            Failed::Shared(error) => panic!("{error}"),
            Failed::Channel(error) => error,
        })
    }

    pub(super) async fn connect(&self, dialer: &Dialer) -> Result<BoxStream, ChannelError> {
        Ok(self.dial(dialer).await?.stream)
    }
}

/// Those that carry many streams on a connection.
fn carriers() -> impl Iterator<Item = Kind> {
    KINDS.into_iter().filter(|kind| {
        kind.mux.is_some() || matches!(kind.framing, Framing::Http2 | Framing::Grpc | Framing::Quic)
    })
}

fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len).map(|i| (i % 251) as u8 ^ seed).collect()
}

/// Sends all of it, then ends if `ends`, while what the other side sends is read.
async fn exchange(stream: BoxStream, ours: Bytes, theirs: Bytes, ends: bool) {
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write.write_all(&ours).await.unwrap();
        write.flush().await.unwrap();
        if ends {
            write.shutdown().await.unwrap();
        }
    };
    let receive = async {
        let mut got = vec![0; theirs.len()];
        read.read_exact(&mut got).await.unwrap();
        assert!(got == theirs, "other bytes than were sent");
        if ends {
            assert_eq!(read.read(&mut [0; 1]).await.unwrap(), 0);
        }
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn every_channel_carries_bytes_both_ways_to_the_last() {
    for kind in KINDS {
        let mut port = Port::open(server(kind)).await;
        let dialer = port.dialer(&client(kind));
        // Several at once, of which those of some kinds share a connection.
        for n in 0..3_u8 {
            let (up, down) = (pattern(700_000, n), pattern(900_001, n + 100));
            let mut near = port.connect(&dialer).await.unwrap();
            // GOST's side speaks first, and some protocols tell of a stream by its first bytes.
            near.write_all(b"hello").await.unwrap();
            near.flush().await.unwrap();
            let mut far = port.accept().await;
            far.read_exact(&mut [0; 5]).await.unwrap();
            let ends = near.half_close() && far.half_close();
            let both = async {
                tokio::join!(exchange(near, up.clone(), down.clone(), ends), exchange(far, down, up, ends));
            };
            tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("{}", kind.name));
        }
    }
}

#[tokio::test]
async fn channels_with_streams_have_one_connection_and_a_new_one_once_it_is_forgotten() {
    for kind in carriers() {
        let mut port = Port::open(server(kind)).await;
        let dialer = port.dialer(&client(kind));
        let mut locals = Vec::new();
        for n in 0..3 {
            if n == 2 {
                dialer.forget().await;
            }
            let dialed = port.dial(&dialer).await.unwrap();
            locals.push((dialed.local, dialed.stream));
            let (_, near) = locals.last_mut().unwrap();
            near.write_all(b"x").await.unwrap();
            near.flush().await.unwrap();
            assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x', "{}", kind.name);
        }
        assert!(locals[0].0 == locals[1].0 && locals[1].0 != locals[2].0, "{}", kind.name);
    }
}

/// A reader who has not begun must not need a buffer: the pipe waits with this.
#[tokio::test]
async fn a_stream_tells_when_there_is_something_to_read() {
    for kind in KINDS {
        let mut port = Port::open(server(kind)).await;
        let dialer = port.dialer(&client(kind));
        let mut near = port.connect(&dialer).await.unwrap();
        near.write_all(b"hello").await.unwrap();
        near.flush().await.unwrap();
        let mut far = port.accept().await;
        let told = std::future::poll_fn(|cx| far.poll_readable(cx));
        tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        assert_eq!(far.read(&mut [0; 9]).await.unwrap(), 5, "{}", kind.name);
        let quiet = std::future::poll_fn(|cx| std::task::Poll::Ready(far.poll_readable(cx).is_pending()));
        // A plain socket is taken for readable until it is tried.
        assert!(kind == Kind::TCP || quiet.await, "{}", kind.name);
    }
}

/// What both sides say when they do not speak the same: the client's error, the server's.
async fn mismatch(client: &ClientSettings, server: ServerSettings) -> (String, String) {
    let mut port = Port::open(server).await;
    let dialer = port.dialer(client);
    let near = async {
        let mut stream = port.connect(&dialer).await.map_err(|error| error.to_string())?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        match stream.read(&mut [0; 1]).await {
            Ok(n) => Err(format!("read {n}")),
            Err(error) => Err::<(), _>(error.to_string()),
        }
    };
    let told = tokio::time::timeout(PATIENCE, near).await.unwrap().unwrap_err();
    drop(dialer);
    (told, port.failure().await)
}

pub(super) fn kind(name: &str) -> Kind {
    Kind::of(name).unwrap()
}

fn files() -> (tempfile::TempDir, Pair) {
    files_of(|_| {})
}

/// A certificate that may sign others, as `openssl req -x509` makes it.
fn files_of_a_ca() -> (tempfile::TempDir, Pair) {
    files_of(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
}

fn files_of(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (tempfile::TempDir, Pair) {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
    write_with(&pair, "localhost", change);
    (dir, pair)
}

fn write(pair: &Pair, name: &str) {
    write_with(pair, name, |_| {});
}

fn write_with(pair: &Pair, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    // Of two with one name, one would seem to be badly signed by the other.
    params.distinguished_name.push(rcgen::DnType::CommonName, pair.cert.to_str().unwrap());
    change(&mut params);
    std::fs::write(&pair.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&pair.key, key.serialize_pem()).unwrap();
}

/// Those in which TLS is done in one way or the other.
const TLS_KINDS: [&str; 2] = ["tls", "quic"];

fn with_files(name: &str, pair: &Pair) -> ServerSettings {
    let tls = tls::ServerSettings { pair: Some(pair.clone()), ..tls::ServerSettings::default() };
    ServerSettings { tls: Some(tls), ..server(kind(name)) }
}

fn with_tls(name: &str, tls: tls::ClientSettings) -> ClientSettings {
    ClientSettings { tls: Some(tls), ..client(kind(name)) }
}

#[tokio::test]
async fn a_client_that_verifies_takes_only_who_it_should() {
    let ((_dir, pair), (_other_dir, other)) = (files(), files());
    let fingerprint = |pair: &Pair| {
        use rustls::pki_types::pem::PemObject;
        use sha2::{Digest, Sha256};
        let der = rustls::pki_types::CertificateDer::from_pem_file(&pair.cert).unwrap();
        Some(Sha256::digest(&der).into())
    };
    let secure = |pair: &Pair| tls::ClientSettings {
        secure: true,
        ca: Some(pair.cert.clone()),
        ..tls::ClientSettings::default()
    };
    let named = |name: &str, settings| tls::ClientSettings { server_name: Some(name.to_owned()), ..settings };
    let good = [
        secure(&pair),
        tls::ClientSettings { fingerprint: fingerprint(&pair), ..tls::ClientSettings::default() },
        // Without `secure` the name is not looked at.
        named("elsewhere.example", tls::ClientSettings { secure: false, ..secure(&pair) }),
    ];
    for (settings, name) in
        good.into_iter().flat_map(|settings| TLS_KINDS.map(|name| (settings.clone(), name)))
    {
        let mut port = Port::open(with_files(name, &pair)).await;
        let dialer = port.dialer(&with_tls(name, settings));
        let mut near = port.connect(&dialer).await.unwrap();
        near.write_all(b"x").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x');
    }
    let bad = [
        (secure(&other), "tls.caFile"),
        (tls::ClientSettings { secure: false, ..secure(&other) }, "tls.caFile"),
        (named("elsewhere.example", secure(&pair)), "tls.serverName"),
        (
            tls::ClientSettings { fingerprint: fingerprint(&other), ..tls::ClientSettings::default() },
            "tls.fingerprint",
        ),
        (tls::ClientSettings { secure: true, ..tls::ClientSettings::default() }, "tls.caFile"),
    ];
    for (settings, advice) in bad {
        for name in TLS_KINDS {
            let (told, _) = mismatch(&with_tls(name, settings.clone()), with_files(name, &pair)).await;
            assert!(told.contains(advice), "{name} {advice}: {told}");
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_certificates_takes_only_those_it_knows() {
    let ((_dir, pair), (_client_dir, own), (_other_dir, other)) = (files(), files(), files());
    for name in TLS_KINDS {
        let mut settings = with_files(name, &pair);
        settings.tls.as_mut().unwrap().client_ca = Some(own.cert.clone());
        let showing = |pair: Option<&Pair>| {
            with_tls(name, tls::ClientSettings { pair: pair.cloned(), ..tls::ClientSettings::default() })
        };
        let mut port = Port::open(settings.clone()).await;
        let dialer = port.dialer(&showing(Some(&own)));
        let mut near = port.connect(&dialer).await.unwrap();
        near.write_all(b"x").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x');
        for (shown, told) in [(None, "shows no certificate"), (Some(&other), "UnknownIssuer")] {
            let (client, server) = mismatch(&showing(shown), settings.clone()).await;
            assert!(server.contains(told), "{told}: {server}");
            assert!(client.contains("alert") || client.contains("QUIC"), "{client}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_may_sign_others_is_taken_where_it_is_the_ca_file() {
    let ((_dir, pair), (_client_dir, own), (_other_dir, other)) =
        (files_of_a_ca(), files_of_a_ca(), files_of_a_ca());
    let (_late_dir, late) = files_of(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = (std::time::SystemTime::now() - Duration::from_secs(24 * 3600)).into();
    });
    for name in TLS_KINDS {
        let server = |ca: &Pair| {
            let mut settings = with_files(name, &pair);
            settings.tls.as_mut().unwrap().client_ca = Some(ca.cert.clone());
            settings
        };
        let client = |ca: &Pair, shown: &Pair| {
            let (ca, pair) = (Some(ca.cert.clone()), Some(shown.clone()));
            with_tls(name, tls::ClientSettings { secure: true, ca, pair, ..tls::ClientSettings::default() })
        };
        let mut port = Port::open(server(&own)).await;
        let dialer = port.dialer(&client(&pair, &own));
        let mut near = port.connect(&dialer).await.unwrap();
        near.write_all(b"x").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x');

        let (told, _) = mismatch(&client(&other, &own), server(&own)).await;
        assert!(told.contains("give the server's certificate, or its CA, as tls.caFile"), "{name}: {told}");
        let (_, told) = mismatch(&client(&pair, &own), server(&other)).await;
        assert!(told.contains("none of them itself"), "{name}: {told}");
        assert!(!told.contains("CaUsedAsEndEntity"), "{name}: {told}");
        let (_, told) = mismatch(&client(&pair, &late), server(&late)).await;
        assert!(told.to_lowercase().contains("expired"), "{name}: {told}");
    }
}

#[tokio::test]
async fn a_server_that_rejects_unknown_names_takes_only_who_asks_for_one() {
    let (_dir, pair) = files();
    let named = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let cases = [
        // The certificate is for localhost.
        (named(&[]), "localhost", true),
        (named(&[]), "elsewhere.example", false),
        (named(&["a.example", "*.b.example"]), "A.example", true),
        (named(&["a.example", "*.b.example"]), "www.b.example", true),
        (named(&["a.example", "*.b.example"]), "b.example", false),
        (named(&["a.example", "*.b.example"]), "localhost", false),
        // Of an address no name is asked for.
        (named(&[]), "127.0.0.1", false),
        (None, "127.0.0.1", true),
    ];
    for ((names, asked, taken), name) in
        cases.into_iter().flat_map(|case| TLS_KINDS.map(|name| (case.clone(), name)))
    {
        let mut settings = with_files(name, &pair);
        settings.tls.as_mut().unwrap().names = names;
        let client = with_tls(
            name,
            tls::ClientSettings { server_name: Some(asked.to_owned()), ..tls::ClientSettings::default() },
        );
        if taken {
            let mut port = Port::open(settings).await;
            let dialer = port.dialer(&client);
            let mut near = port.connect(&dialer).await.unwrap();
            near.write_all(b"x").await.unwrap();
            near.flush().await.unwrap();
            assert_eq!(port.accept().await.read_u8().await.unwrap(), b'x', "{name} {asked}");
        } else {
            let (told, at_server) = mismatch(&client, settings).await;
            assert!(told.contains("tls.serverName"), "{name} {asked}: {told}");
            assert!(at_server.contains("rejectUnknownSNI"), "{name} {asked}: {at_server}");
        }
    }
}

/// The clock goes on by so much at once, and then by itself as before.
async fn later(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn certificates_are_read_anew_when_their_files_change() {
    for name in TLS_KINDS {
        let (_dir, pair) = files();
        let port = Port::open(with_files(name, &pair)).await;
        let pinned = tls::ClientSettings {
            secure: true,
            ca: Some(pair.cert.clone()),
            ..tls::ClientSettings::default()
        };
        let fresh = || port.dialer(&with_tls(name, pinned.clone()));
        port.connect(&fresh()).await.unwrap();
        // Half of a change is none: certificate and key do not go together.
        let before = std::fs::read(&pair.cert).unwrap();
        write(&pair, "localhost");
        let after = std::fs::read(&pair.cert).unwrap();
        std::fs::write(&pair.cert, &before).unwrap();
        later(Duration::from_secs(2)).await;
        port.connect(&fresh()).await.unwrap();
        std::fs::write(&pair.cert, after).unwrap();
        later(Duration::from_secs(2)).await;
        port.connect(&fresh()).await.unwrap();
    }
}

#[tokio::test]
async fn ends_that_do_not_go_together_say_so() {
    let (client_of, server_of) = (|name| client(kind(name)), |name| server(kind(name)));
    let (told, at_server) = mismatch(&client_of("tcp"), server_of("tls")).await;
    assert!(told.starts_with("read ") && at_server.contains("speaks no TLS"), "{told} / {at_server}");

    let websocket = |path: &str| {
        Layer::WebSocket(websocket::Settings { path: path.to_owned(), ..websocket::Settings::default() })
    };
    let other = ClientSettings { layer: websocket("/other"), ..client_of("ws") };
    let (told, at_server) = mismatch(&other, server_of("ws")).await;
    assert!(told.contains("404") && told.contains("path"), "{told}");
    assert!(at_server.contains("404") || at_server.contains("WebSocket"), "{at_server}");

    let with_path =
        |grpc| http2::Settings { grpc, path: Some("/other/Path".to_owned()), ..http2::Settings::default() };
    for (name, layer, status) in [("h2c", with_path(false), "405"), ("grpc", with_path(true), "400")] {
        let mut port = Port::open(server_of(name)).await;
        let dialer = port.dialer(&ClientSettings { layer: Layer::Http2(layer), ..client_of(name) });
        let mut stream = port.connect(&dialer).await.unwrap();
        let told = stream.read(&mut [0; 1]).await.unwrap_err().to_string();
        assert!(told.contains(status) && told.contains("path"), "{told}");
        assert!(port.accepted.try_recv().is_err());
    }
}

/// A peer that begins and does not go on is left after `handshakeTimeout`.
#[tokio::test]
async fn a_handshake_that_stops_half_way_is_left() {
    let limit = Duration::from_millis(50);
    for kind in KINDS
        .into_iter()
        .filter(|kind| kind.tls || matches!(kind.framing, Framing::WebSocket | Framing::Http2))
        .filter(|kind| kind.framing != Framing::Quic)
    {
        let settings = ServerSettings { handshake_timeout: limit, ..server(kind) };
        let mut port = Port::open(settings).await;
        let addr = (port.addr.host.as_str(), port.addr.port);
        let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
        socket.write_all(if kind.tls { b"\x16\x03\x01" } else { b"PRI" }).await.unwrap();
        let told = port.failure().await;
        assert!(told.contains("handshakeTimeout"), "{}: {told}", kind.name);
        // What it had to say, then the end.
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await.unwrap();
    }
}
