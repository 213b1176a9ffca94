//! `chains[]`: the way out to a server, its connector and its dialer.

use super::hop::{Choice, Hops};
use super::named::Named;
use super::reader::{Field, Map};
use super::settings::{HANDSHAKE_TIMEOUT, is_of_gost, read_mux, read_wait, tunnel_id, word};
use super::{Chain, ChainHop, channels, plugins};
use crate::chain::{Auth, Connector, HopSettings, Node, Server};
use crate::channel::{ClientSettings, Framing};
use crate::mux;
use crate::route::hop::{self, NodeSettings};
use http::{HeaderName, HeaderValue};
use std::time::Duration;
use uuid::Uuid;

/// A client finds a dead server within this time; real servers send something every 10 s.
const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Most that the relay protocol holds of a user name or a password.
const MAX_CREDENTIAL: usize = 255;

/// More would be a mistake in the file.
const MAX_HOPS: usize = 16;
/// Keys that connectors other than the one at hand read.
const OTHERS_METADATA: &[&str] = &[
    "tunnel.id",
    "tunnelID",
    "tunnel.weight",
    "header",
    "mux.type",
    "mux.version",
    "mux.keepaliveDisabled",
    "mux.keepaliveInterval",
    "mux.keepaliveTimeout",
    "mux.stallTimeout",
    "mux.maxFrameSize",
    "mux.maxReceiveBuffer",
    "mux.maxStreamBuffer",
    "mux.maxStreamWindow",
    "mux.maxStreams",
];

const NEEDED_HOP: &[&str] =
    &["file", "redis", "http", "bypass", "bypasses", "resolver", "hosts", "interface", "sockopts"];
const NEEDED_NODE: &[&str] = &[
    "tls",
    "http",
    "filter",
    "matcher",
    "host",
    "protocol",
    "path",
    "bypass",
    "bypasses",
    "resolver",
    "hosts",
    "interface",
    "sockopts",
    "netns",
];

/// What a chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be reached from its end: `listener.chain`.
    Bind,
    /// To connect from its end: `handler.chain`.
    Connect,
    /// To send datagrams from its end: `handler.chain` of `udp` and `rudp`.
    Datagrams,
}

/// The name of the chain that a listener or a handler names.
pub(crate) fn resolve(chains: &Named<'_, Chain>, field: &Field<'_>, purpose: Purpose) -> Option<String> {
    let (name, chain) = chains.find(field)?;
    let mut last = chain.hops.last().into_iter().flat_map(|hop| &hop.settings.nodes);
    if purpose == Purpose::Datagrams
        && let Some(node) = proxy(chain)
    {
        let message = format!("node {:?} at the end of chain {name:?} is a proxy for connections", node.name);
        let help = "datagrams take connector: { type: tunnel } or { type: relay }";
        field.error(message, help);
        return None;
    }
    if purpose == Purpose::Bind
        && let Some(node) = last.find(|node| !can_bind(node))
    {
        let message =
            format!("node {:?} at the end of chain {name:?} is no server to be reached from", node.name);
        let help = "expected connector: { type: tunnel } or { type: relay } at each node of its last hop";
        field.error(message, help);
        return None;
    }
    Some(name.to_owned())
}

fn can_bind(node: &Node) -> bool {
    let connector = node.server.as_ref().map(|server| &server.connector);
    matches!(connector, Some(Connector::Tunnel { .. } | Connector::Relay))
}

/// A node that datagrams would be sent from and cannot be. Where nobody is at a node, the hop before it is the end.
fn proxy(chain: &Chain) -> Option<&Node> {
    for hop in chain.hops.iter().rev() {
        let nodes = &hop.settings.nodes;
        let proxy = nodes.iter().find(|node| node.server.is_some() && !can_bind(node));
        if proxy.is_some() || nodes.iter().all(|node| node.server.is_some()) {
            return proxy;
        }
    }
    None
}

/// `folder`: whether plugins can be taken from a folder by name.
pub(crate) fn read(field: &Field<'_>, named: &Hops<'_>, folder: bool) -> Option<Chain> {
    let map = field.map()?;
    map.get(&["name"]);
    let hops = map.get(&["hops"]).map(|f| f.list()).unwrap_or_default();
    map.finish(&["metadata"], &[]);
    if hops.is_empty() {
        field.error("chain without a hop".to_owned(), "expected hops: [{ nodes: [...] }]");
    }
    let read: Vec<_> = hops.iter().map(|field| hop(field, Some(named), folder)).collect();
    let hops = read.into_iter().collect::<Option<Vec<_>>>()?;
    if hops.len() > MAX_HOPS {
        field.error(format!("chain of {} hops", hops.len()), format!("expected at most {MAX_HOPS}"));
    }
    if let Some(node) = quic_behind_a_hop(&hops) {
        let help = "expected it in the first hop: its datagrams go through no other server";
        field.error(format!("node {:?} with dialer quic behind another hop", node.name), help);
    }
    (!hops.is_empty()).then_some(Chain { hops })
}

/// A server that can be reached by datagrams only, where there is another one on the way.
fn quic_behind_a_hop(hops: &[ChainHop]) -> Option<&Node> {
    let servers = |hop: &ChainHop| hop.settings.nodes.iter().any(|node| node.server.is_some());
    let first = hops.iter().position(servers)?;
    let quic = |node: &&Node| node.server.as_ref().is_some_and(|s| s.channel.kind.framing == Framing::Quic);
    hops[first + 1..].iter().flat_map(|hop| &hop.settings.nodes).find(quic)
}

/// A hop in a chain: its own nodes, or those of the hop in `hops` that it names.
fn hop(field: &Field<'_>, named: Option<&Hops<'_>>, folder: bool) -> Option<ChainHop> {
    let map = field.map()?;
    let name = map.filled(&["name"]);
    let nodes = map.get(&["nodes"]).map(|f| f.list()).unwrap_or_default();
    let plugin = map.filled(&["plugin"]).and_then(|field| {
        let plugin = plugins::binding(&field, folder, &["wasm"])?;
        if !plugin.allow.is_empty() {
            let help = "a server needs its connector and dialer: expected it among the nodes";
            field.error("allowAddresses at a hop of a chain".to_owned(), help);
        }
        Some(plugin)
    });
    let choice = Choice::read(&map);
    map.finish(&["reload", "metadata"], NEEDED_HOP);
    if !nodes.is_empty() {
        let read: Vec<_> = nodes.iter().map(|field| node(field, &choice)).collect();
        let (nodes, choices) = read.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let choice = hop::HopSettings { nodes: choices, strategy: choice.strategy };
        return Some(ChainHop { settings: HopSettings { nodes, choice }, plugin });
    }
    match (name, named) {
        (Some(name), Some(hops)) => {
            let text = name.text()?;
            if let Some(found) = hops.find(text) {
                return hop(found, None, folder);
            }
            name.error(format!("no nodes, and there is no hop {text:?}"), hops.nearest(text));
        }
        _ => field.error("hop without nodes".to_owned(), "expected nodes: [{ addr: SERVER:8443, ... }]"),
    }
    None
}

fn node(field: &Field<'_>, choice: &Choice) -> Option<(Node, NodeSettings)> {
    let map = field.map()?;
    let name = map.text(&["name"]).unwrap_or_default().to_owned();
    let (settings, proxy_protocol) = choice.node(name.clone(), map.section("metadata"));
    let connector = connector(map.section("connector")?);
    let direct = matches!(connector, Some(Read { connector: None, .. }));
    let addr = map.filled(&["addr"]);
    if addr.is_none() && !direct {
        map.error("node without an address".to_owned(), "expected addr: SERVER:8443");
    }
    let addr = addr.and_then(|f| f.address(None));
    if !direct && addr.as_ref().is_some_and(|addr| addr.host.is_empty()) {
        map.error("node without a host".to_owned(), "expected addr: SERVER:8443");
    }
    let channel = if direct { no_dialer(&map) } else { channels::dialer(&map) };
    if let Some(network) = map.filled(&["network"]) {
        word(&network, &["tcp"]);
    }
    let quic = channel.as_ref().is_some_and(|channel| channel.kind.framing == Framing::Quic);
    if proxy_protocol.is_some() && (quic || direct) {
        let help = "expected proxyProtocol at a node that is connected to by TCP";
        map.error("proxyProtocol at a node without a connection to begin with it".to_owned(), help);
    }
    map.finish(&["probe"], NEEDED_NODE);
    let Read { connector, auth, mux, connect_timeout } = connector?;
    let Some(connector) = connector else { return Some((Node { name, server: None }, settings)) };
    let channel = channel?;
    let server = Server { addr: addr?, connector, auth, mux, connect_timeout, channel, proxy_protocol };
    Some((Node { name, server: Some(server) }, settings))
}

/// The dialer of a node that nobody is at.
fn no_dialer(node: &Map<'_>) -> Option<ClientSettings> {
    let map = node.section("dialer")?;
    if let Some(kind) = map.filled(&["type"]).filter(|kind| !matches!(kind.text(), Some("direct" | "tcp"))) {
        kind.warn("no effect with connector direct".to_owned(), "expected dialer: { type: direct }");
    }
    map.without_effect(&["tls", "auth", "metadata"], "with connector direct");
    map.finish(&[], &[]);
    None
}

/// What a `connector` says.
struct Read {
    /// `None`: `direct`.
    connector: Option<Connector>,
    auth: Option<Auth>,
    mux: mux::Settings,
    connect_timeout: Duration,
}

pub(crate) const CONNECTORS: &[&str] = &["http", "socks5", "socks", "relay", "tunnel", "forward", "direct"];

fn connector(map: Map<'_>) -> Option<Read> {
    let written = map.filled(&["type"]);
    // Without a type it is http, as in GOST.
    let kind = written.as_ref().map_or(Some("http"), |kind| word(kind, CONNECTORS));
    let auth = map.get(&["auth"]).and_then(|f| credentials(&f));
    let metadata = map.section("metadata")?;
    let needed: &[&str] = if kind == Some("direct") { &[] } else { &["tls"] };
    if kind == Some("forward") {
        map.without_effect(&["auth"], "with connector forward");
    }
    map.finish(&[], needed);
    // What GOST's other connectors have in their metadata is not known here.
    if kind.is_none() && written.is_some_and(|field| is_of_gost(&field)) {
        return None;
    }
    let mut connect_timeout = HANDSHAKE_TIMEOUT;
    read_wait(&metadata, &["connectTimeout"], &mut connect_timeout);
    // Without a type that is known, what any reads is read, so that one mistake does not hide the others.
    let relay = kind == Some("relay");
    let mut mux = if relay { mux::Settings::relay() } else { mux::Settings::tunnel() };
    mux.keepalive_timeout = CLIENT_KEEPALIVE_TIMEOUT;
    if matches!(kind, Some("tunnel" | "relay") | None) {
        mux = read_mux(&metadata, mux);
    }
    let connector = match kind {
        Some("tunnel") | None => tunnel(&metadata),
        Some("relay") => Some(Connector::Relay),
        Some("http") => Some(Connector::Http { fields: fields(&metadata) }),
        Some("forward") => Some(Connector::Forward),
        Some("direct") => None,
        Some(_) => Some(Connector::Socks5),
    };
    if let Some(kind) = kind {
        metadata.without_effect(OTHERS_METADATA, &format!("with connector {kind}"));
    }
    metadata.finish(&["nodelay", "record.mode"], &[]);
    let direct = kind? == "direct";
    Some(Read { connector: if direct { None } else { Some(connector?) }, auth, mux, connect_timeout })
}

/// `header`: what the request to a proxy has beside its own fields.
fn fields(metadata: &Map<'_>) -> Vec<(String, String)> {
    let fields = channels::headers(metadata, &["header"]);
    let text = |(name, value): (HeaderName, HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    fields.into_iter().map(text).collect()
}

fn tunnel(metadata: &Map<'_>) -> Option<Connector> {
    let id = metadata.filled(&["tunnel.id", "tunnelID"]);
    let id = id.map_or_else(|| Some(new_tunnel_id()), |field| tunnel_id(&field));
    let weight = metadata.filled(&["tunnel.weight"]).and_then(|f| f.number(0..=255));
    Some(Connector::Tunnel { id: id?, weight: weight.and_then(|n| u8::try_from(n).ok()).unwrap_or(0) })
}

fn credentials(field: &Field<'_>) -> Option<Auth> {
    let map = field.map()?;
    let text = |names| map.text(names).unwrap_or_default().to_owned();
    let auth = Auth { username: text(&["username"]), password: text(&["password"]) };
    map.finish(&[], &["file"]);
    if auth.username.len().max(auth.password.len()) > MAX_CREDENTIAL {
        let message = format!("user name or password over {MAX_CREDENTIAL} bytes");
        field.error(message, "the relay protocol holds no more");
        return None;
    }
    (!auth.username.is_empty()).then_some(auth)
}

/// A new time-based ID, for a client that names no tunnel (section 4.1).
fn new_tunnel_id() -> Uuid {
    let mut node = [0; 6];
    fastrand::fill(&mut node);
    Uuid::now_v1(&node)
}
