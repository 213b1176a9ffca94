//! `dialer` of a chain's node and the data channel of a `listener`: type, `tls` and what the channel's layers read.

use super::reader::{Bare, Field, Map};
use super::settings::{HANDSHAKE_TIMEOUT, flag, read_mux, read_wait, word};
use crate::addr::Host;
use crate::channel::tls::{self, Generated, Options, Pair, Versions};
use crate::channel::{ClientSettings, Framing, KINDS, Kind, Layer, ServerSettings, http2, quic, websocket};
use crate::mux;
use http::{HeaderName, HeaderValue};
use std::path::PathBuf;
use std::time::Duration;

/// A client finds a dead server within this time; real servers send something every 10 s.
const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// A server that speaks HTTP/2 finds a dead client within this time, as with the mux.
const SERVER_SILENCE: Duration = Duration::from_secs(30);
/// `ttl`: how often `keepalive: true` pings.
const WEBSOCKET_TTL: Duration = Duration::from_secs(15);
const HTTP2_TTL: Duration = Duration::from_secs(30);
const QUIC_TTL: Duration = Duration::from_secs(10);
/// `maxIdleTimeout` of a client that asks whether its server is there. Neither side is told by anybody else when a process dies.
const QUIC_CLIENT_IDLE: Duration = Duration::from_secs(5);
/// `maxIdleTimeout`, unless the other side is asked whether it is there.
const QUIC_IDLE: Duration = Duration::from_secs(90);
/// `maxStreams`.
const QUIC_STREAMS: u32 = 100;
/// A connection has room for all of them from the first moment on.
const MAX_QUIC_STREAMS: i64 = 10_000;

/// Keys that one channel or another reads.
const OTHERS_METADATA: &[&str] = &[
    "path",
    "ws.path",
    "grpc.path",
    "host",
    "ws.host",
    "grpc.host",
    "header",
    "ws.header",
    "keepalive",
    "ws.keepalive",
    "grpc.keepalive",
    "ttl",
    "ws.ttl",
    "grpc.keepalive.time",
    "maxIdleTimeout",
    "maxStreams",
    "grpc.insecure",
    "grpcInsecure",
    "insecure",
    "mux.type",
    "mux.version",
    "mux.keepaliveInterval",
    "mux.keepaliveDisabled",
    "mux.keepaliveTimeout",
    "mux.maxFrameSize",
    "mux.maxReceiveBuffer",
    "mux.maxStreamBuffer",
    "mux.maxStreamWindow",
    "mux.stallTimeout",
    "mux.maxStreams",
];

/// What GOST has and speed or size alone depend on.
pub(crate) const LATER_METADATA: &[&str] = &[
    "ws.enableCompression",
    "enableCompression",
    "ws.readBufferSize",
    "ws.writeBufferSize",
    "readBufferSize",
    "writeBufferSize",
    "ws.readHeaderTimeout",
    "readHeaderTimeout",
    "backlog",
    "mptcp",
    "grpc.keepalive.timeout",
    "grpc.keepalive.permitWithoutStream",
    "grpc.keepalive.minTime",
    "quic.enableDatagram",
    "enableDatagram",
];

/// What would change who can read along, or whom a server takes its visitors for.
pub(crate) const NEEDED_METADATA: &[&str] = &["proxyProtocol", "cipherKey"];

/// The names of all data channels, for [`word`].
pub(crate) fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).collect()
}

/// `dialer`, with type `tcp` where nothing is said.
pub(crate) fn dialer(node: &Map<'_>) -> Option<ClientSettings> {
    let map = node.section("dialer")?;
    let kind = map.filled(&["type"]).map_or(Some("tcp"), |field| word(&field, &names()));
    let metadata = map.section("metadata")?;
    let Some(kind) = kind.and_then(Kind::of) else {
        map.get(&["tls"]);
        map.finish(&["metadata"], &["auth"]);
        return None;
    };
    let (kind, layer, mut mux, handshake_timeout) = channel(kind, &metadata, "dialer");
    if let Some(mux) = &mut mux
        && metadata.filled(&["mux.keepaliveTimeout"]).is_none()
    {
        mux.keepalive_timeout = CLIENT_KEEPALIVE_TIMEOUT;
    }
    metadata.finish(LATER_METADATA, NEEDED_METADATA);
    let tls = section(&map, kind, "dialer").map(|field| field.map().and_then(|map| client(map, &field)));
    let tls = match tls {
        Some(read) => Some(read?),
        None => kind.tls.then(tls::ClientSettings::default),
    };
    needs_tls13(kind, tls.as_ref().map(|tls| &tls.options), &map);
    map.finish(&[], &["auth"]);
    Some(ClientSettings { kind, tls, layer, mux, handshake_timeout })
}

/// The channel of a `listener` of that type; `global` is what stands in for its `tls`.
pub(crate) fn listener(
    kind: Kind,
    map: &Map<'_>,
    metadata: &Map<'_>,
    global: Option<&tls::ServerSettings>,
) -> Option<ServerSettings> {
    let (kind, layer, mux, handshake_timeout) = channel(kind, metadata, "listener");
    let tls = match section(map, kind, "listener") {
        Some(field) => Some(server(&field)?),
        None => kind.tls.then(|| global.cloned().unwrap_or_default()),
    };
    needs_tls13(kind, tls.as_ref().map(|tls| &tls.options), map);
    Some(ServerSettings { kind, tls, layer, mux, handshake_timeout })
}

/// What both ends read in `metadata`.
fn channel(mut kind: Kind, metadata: &Map<'_>, end: &str) -> (Kind, Layer, Option<mux::Settings>, Duration) {
    let layer = match kind.framing {
        Framing::Bare => Layer::Bare,
        Framing::WebSocket => Layer::WebSocket(websocket(metadata)),
        Framing::Http2 => Layer::Http2(http2(metadata, end)),
        Framing::Grpc => {
            if flag(metadata, &["grpc.insecure", "grpcInsecure", "insecure"]) == Some(true) {
                kind.tls = false;
            }
            Layer::Http2(grpc(metadata, end))
        }
        Framing::Quic => Layer::Quic(quic(metadata, end)),
    };
    let mux = kind.mux_settings().map(|settings| read_mux(metadata, settings));
    let mut handshake_timeout = HANDSHAKE_TIMEOUT;
    read_wait(metadata, &["handshakeTimeout"], &mut handshake_timeout);
    metadata.without_effect(OTHERS_METADATA, &format!("with {end} {}", kind.name));
    (kind, layer, mux, handshake_timeout)
}

fn websocket(map: &Map<'_>) -> websocket::Settings {
    let mut settings = websocket::Settings::default();
    settings.path = map.filled(&["path", "ws.path"]).and_then(|f| path(&f)).unwrap_or(settings.path);
    settings.host = map.text(&["host", "ws.host"]).map(str::to_owned);
    settings.headers = headers(map, &["header", "ws.header"]);
    settings.keepalive = keepalive(map, &["keepalive", "ws.keepalive"], &["ttl", "ws.ttl"], WEBSOCKET_TTL);
    settings
}

fn http2(map: &Map<'_>, end: &str) -> http2::Settings {
    http2::Settings {
        grpc: false,
        path: map.filled(&["path"]).and_then(|f| path(&f)),
        host: map.text(&["host"]).map(str::to_owned),
        headers: headers(map, &["header"]),
        keepalive: keepalive(map, &["keepalive"], &["ttl"], HTTP2_TTL),
        silence: silence(map, &["keepalive"], end),
    }
}

fn grpc(map: &Map<'_>, end: &str) -> http2::Settings {
    let asked = map.filled(&["grpc.path", "path"]).and_then(|f| path(&f));
    http2::Settings {
        grpc: true,
        path: asked.map(|path| http2::Settings::grpc_path(&path)),
        host: map.text(&["grpc.host", "host"]).map(str::to_owned),
        headers: Vec::new(),
        keepalive: keepalive(
            map,
            &["grpc.keepalive", "keepalive"],
            &["grpc.keepalive.time", "ttl"],
            HTTP2_TTL,
        ),
        silence: silence(map, &["grpc.keepalive", "keepalive"], end),
    }
}

/// Unless that is not wanted, a peer is noticed that is not there any more.
fn silence(map: &Map<'_>, keepalive: &[&'static str], end: &str) -> Option<Duration> {
    let limit = if end == "dialer" { CLIENT_KEEPALIVE_TIMEOUT } else { SERVER_SILENCE };
    (flag(map, keepalive) != Some(false)).then_some(limit)
}

/// A client asks whether its server is there unless it is told not to, a server only when it is told to.
fn quic(map: &Map<'_>, end: &str) -> quic::Settings {
    let (mut ttl, mut max_streams) = (QUIC_TTL, QUIC_STREAMS);
    let dials = end == "dialer";
    let on = flag(map, &["keepalive"]).unwrap_or(dials);
    let mut idle_timeout = if dials && on { QUIC_CLIENT_IDLE } else { QUIC_IDLE };
    read_wait(map, &["ttl"], &mut ttl);
    read_wait(map, &["maxIdleTimeout"], &mut idle_timeout);
    if !dials {
        let written = map.filled(&["maxStreams"]).and_then(|f| f.number(1..=MAX_QUIC_STREAMS));
        max_streams = written.and_then(|n| u32::try_from(n).ok()).unwrap_or(max_streams);
    }
    quic::Settings { keepalive: on.then_some(ttl), idle_timeout, max_streams }
}

/// There is no older TLS in QUIC.
fn needs_tls13(kind: Kind, options: Option<&Options>, at: &Map<'_>) {
    if kind.framing == Framing::Quic && options.is_some_and(|options| !options.allow_tls13()) {
        let help = "expected maxVersion: VersionTLS13, and a suite of it among cipherSuites";
        at.error("type quic, and tls.options that leave out TLS 1.3".to_owned(), help);
    }
}

fn keepalive(
    map: &Map<'_>,
    on: &[&'static str],
    every: &[&'static str],
    default: Duration,
) -> Option<Duration> {
    let mut ttl = default;
    let on = flag(map, on) == Some(true);
    read_wait(map, every, &mut ttl);
    on.then_some(ttl)
}

fn path(field: &Field<'_>) -> Option<String> {
    let text = field.text()?.trim();
    let is_path =
        text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['?', '#']);
    if !is_path {
        field.error(format!("{text:?} is no path"), "expected a path such as /ws");
    }
    is_path.then(|| text.to_owned())
}

pub(crate) fn headers(map: &Map<'_>, names: &[&'static str]) -> Vec<(HeaderName, HeaderValue)> {
    let Some(field) = map.filled(names) else { return Vec::new() };
    let pairs = field.map().into_iter().flat_map(Map::into_texts);
    let read = |(name, value): (Box<str>, Box<str>)| {
        let pair = HeaderName::try_from(&*name).ok().zip(HeaderValue::try_from(&*value).ok());
        if pair.is_none() {
            field.error(
                format!("{name}: {value} is no header"),
                "expected NAME: VALUE of printable characters",
            );
        }
        pair
    };
    pairs.filter_map(read).collect()
}

/// The `tls` of a channel that has it.
fn section<'a>(map: &Map<'a>, kind: Kind, end: &str) -> Option<Field<'a>> {
    let field = map.filled(&["tls"])?;
    if kind.tls {
        return Some(field);
    }
    let with: Vec<_> = KINDS.iter().filter(|kind| kind.tls).map(|kind| kind.name).collect();
    let at_handlers = match end {
        "listener" => {
            "; for visitors who speak TLS expected handler: { tls: { certFile: FILE, keyFile: FILE } }, with handlers tcp, rtcp and tunnel"
        }
        _ => "",
    };
    field.error(
        format!("tls on a {end} of type {}, which has none", kind.name),
        format!("expected type {}{at_handlers}", with.join(", ")),
    );
    None
}

/// `tls` of whoever dials.
pub(crate) fn client(map: Map<'_>, at: &Field<'_>) -> Option<tls::ClientSettings> {
    let options = options(&map);
    let server_name = map.filled(&["serverName"]);
    let settings = tls::ClientSettings {
        secure: flag(&map, &["secure"]).unwrap_or(false),
        ca: file(&map, &["caFile"]),
        server_name: server_name.as_ref().and_then(Field::text).map(str::to_owned),
        fingerprint: map.filled(&["fingerprint"]).and_then(|f| fingerprint(&f)),
        pair: pair(&map),
        options: options.clone().unwrap_or_default(),
    };
    map.without_effect(&["validity", "commonName", "organization"], "with a dialer");
    map.finish(&[], &[]);
    options?;
    match (settings.check(), server_name) {
        (Err(error @ tls::TlsError::Name(_)), Some(field)) => {
            field.error(error.to_string(), "expected www.example.com, or an IP address");
            return None;
        }
        (checked, _) => self::checked(checked, at)?,
    }
    Some(settings)
}

/// `tls` of a listener, and that of the whole file.
pub(crate) fn server(field: &Field<'_>) -> Option<tls::ServerSettings> {
    let map = field.map()?;
    let mut generated = Generated::default();
    generated.common_name = map.text(&["commonName"]).map_or(generated.common_name, str::to_owned);
    generated.organization = map.text(&["organization"]).map_or(generated.organization, str::to_owned);
    if let Some(validity) = map.filled(&["validity"]).and_then(|f| f.wait(Bare::Nanoseconds)) {
        generated.validity = validity;
    }
    let options = options(&map);
    let settings = tls::ServerSettings {
        pair: pair(&map),
        generated,
        client_ca: file(&map, &["caFile"]),
        names: asked_names(&map),
        options: options.clone().unwrap_or_default(),
    };
    map.without_effect(&["secure", "serverName", "fingerprint"], "with a listener");
    map.finish(&[], &[]);
    options?;
    checked(settings.check(), field)?;
    Some(settings)
}

/// Whom clients may ask for, if that matters.
fn asked_names(map: &Map<'_>) -> Option<Vec<String>> {
    let field = map.filled(&["serverNames"]);
    if flag(map, &["rejectUnknownSNI"]) != Some(true) {
        if let Some(field) = field {
            field.warn("no effect without rejectUnknownSNI: true".to_owned(), "remove it, or add that");
        }
        return None;
    }
    let names = field.as_ref().map(texts).unwrap_or_default();
    for name in &names {
        let host = name.strip_prefix("*.").unwrap_or(name);
        let is_name = Host::parse(host).is_ok_and(|host| !host.is_empty() && host.ip().is_none());
        if let Some(field) = field.as_ref().filter(|_| !is_name) {
            let help = "expected www.example.com or *.example.com; for addresses clients ask by no name";
            field.error(format!("{name:?} is no name that a client asks for"), help);
        }
    }
    Some(names)
}

pub(crate) fn checked(checked: Result<(), tls::TlsError>, at: &Field<'_>) -> Option<()> {
    let help = "expected PEM files that this user may read; their paths start from the current folder";
    checked.map_err(|error| at.error(error.to_string(), help)).ok()
}

fn file(map: &Map<'_>, names: &[&'static str]) -> Option<PathBuf> {
    map.text(names).map(PathBuf::from)
}

pub(crate) fn pair(map: &Map<'_>) -> Option<Pair> {
    match (file(map, &["certFile"]), file(map, &["keyFile"])) {
        (Some(cert), Some(key)) => Some(Pair { cert, key }),
        (None, None) => None,
        _ => {
            map.error("certFile and keyFile belong together".to_owned(), "expected both or neither");
            None
        }
    }
}

fn fingerprint(field: &Field<'_>) -> Option<[u8; 32]> {
    let text = field.text()?.trim();
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let byte = |at: usize| digits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes: Option<Vec<_>> = (0..digits.len()).step_by(2).map(byte).collect();
    let read = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if read.is_none() {
        let help = "expected the 64 hexadecimal digits of the SHA-256 of the server's certificate";
        field.error(format!("{text:?} is no fingerprint"), help);
    }
    read
}

pub(crate) fn options(map: &Map<'_>) -> Option<Options> {
    let map = map.section("options")?;
    let texts = |name| map.filled(&[name]).map(|field| texts(&field));
    let cipher_suites = texts("cipherSuites").unwrap_or_default();
    let known: Vec<_> = tls::cipher_suites().collect();
    let unknown = cipher_suites.iter().find(|suite| !known.contains(suite));
    if let Some(unknown) = unknown {
        map.error(format!("cipher suite {unknown} is not spoken"), format!("expected {}", known.join(", ")));
    }
    let is_known = unknown.is_none();
    let options = Options { versions: versions(&map), alpn: texts("alpn"), cipher_suites };
    map.finish(&[], &[]);
    is_known.then_some(options)
}

/// A list, or one text with commas.
pub(crate) fn texts(field: &Field<'_>) -> Vec<String> {
    if field.is_list() {
        return field.list().iter().filter_map(Field::text).map(|text| text.trim().to_owned()).collect();
    }
    let text = field.text().unwrap_or_default();
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn versions(map: &Map<'_>) -> Versions {
    const NAMES: &[&str] = &["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"];
    let version = |name| {
        let field = map.filled(&[name])?;
        let word = word(&field, NAMES)?;
        Some((field, NAMES.iter().position(|known| *known == word)?))
    };
    let (least, most) = (version("minVersion"), version("maxVersion"));
    const TLS12: usize = 2;
    const TLS13: usize = 3;
    if let Some((field, _)) = least.as_ref().filter(|(_, least)| *least < TLS12) {
        field.warn(
            "versions of TLS before 1.2 are not spoken: the least is 1.2".to_owned(),
            "expected VersionTLS12 or VersionTLS13",
        );
    }
    if let Some((field, _)) = most.as_ref().filter(|(_, most)| *most < TLS12) {
        field.error(
            "versions of TLS before 1.2 are not spoken".to_owned(),
            "expected VersionTLS12 or VersionTLS13",
        );
    }
    match (least.map_or(TLS12, |(_, at)| at), most.map_or(TLS13, |(_, at)| at)) {
        (TLS13, TLS13) => Versions::Tls13,
        (TLS13, _) => {
            map.error("minVersion above maxVersion".to_owned(), "expected them the other way round");
            Versions::Both
        }
        (_, TLS12) => Versions::Tls12,
        _ => Versions::Both,
    }
}
