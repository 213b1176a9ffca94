//! `chains[]`: the way out to a server, its connector and its dialer.

use super::hop::{Choice, Hops};
use super::reader::{Field, Map, nearest};
use super::settings::{is_of_gost, read_mux, tunnel_id, word};
use super::{Plugin, channels, plugins};
use crate::mux;
use crate::route::hop::{HopSettings, NodeSettings};
use crate::tunnel::client::{Auth, Connector, Server};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// A client finds a dead server within this time; real servers send something every 10 s.
const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// Most that the relay protocol holds of a user name or a password.
const MAX_CREDENTIAL: usize = 255;

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

/// The servers that a chain leads to, and the choice among them.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) servers: Vec<Server>,
    /// One node for each, in the same order.
    pub(crate) choice: HopSettings,
    /// Asked first.
    pub(crate) plugin: Option<Plugin>,
}

/// The named chains of all files.
#[derive(Debug)]
pub(crate) struct Chains<'a> {
    named: HashMap<&'a str, Option<Servers>>,
}

impl<'a> Chains<'a> {
    /// `folder`: whether plugins can be taken from a folder by name.
    pub(crate) fn new(fields: Vec<Field<'a>>, hops: &Hops<'a>, folder: bool) -> Self {
        let mut named = HashMap::with_capacity(fields.len());
        for field in fields {
            match field.name() {
                Some(name) => drop(named.insert(name, chain(&field, hops, folder))),
                None => field.error("chain without a name".to_owned(), "expected name: chain-0"),
            }
        }
        Self { named }
    }

    /// The servers of the chain that a listener names.
    pub(crate) fn resolve(&self, name: &Field<'_>) -> Option<Servers> {
        let text = name.text()?;
        if let Some(servers) = self.named.get(text) {
            return servers.clone();
        }
        name.error(format!("there is no chain {text:?}"), nearest(text, self.named.keys().copied()));
        None
    }
}

fn chain(field: &Field<'_>, named: &Hops<'_>, folder: bool) -> Option<Servers> {
    let map = field.map()?;
    map.get(&["name"]);
    let hops = map.get(&["hops"]).map(|f| f.list()).unwrap_or_default();
    map.finish(&["metadata"], &[]);
    match &hops[..] {
        [hop] => servers(hop, Some(named), folder),
        [] => {
            field.error("chain without a hop".to_owned(), "expected hops: [{ nodes: [...] }]");
            None
        }
        [_, second, ..] => {
            let help = "expected one hop; several servers to choose from are several nodes of it";
            second.error("chains of several hops are not supported yet".to_owned(), help);
            None
        }
    }
}

/// A hop in a chain: its own nodes, or those of the hop in `hops` that it names.
fn servers(field: &Field<'_>, named: Option<&Hops<'_>>, folder: bool) -> Option<Servers> {
    let map = field.map()?;
    let name = map.filled(&["name"]);
    let nodes = map.get(&["nodes"]).map(|f| f.list()).unwrap_or_default();
    let plugin = map.filled(&["plugin"]).and_then(|field| {
        let plugin = plugins::binding(&field, folder)?;
        if !plugin.allow.is_empty() {
            let help = "a server needs its connector and dialer: expected it among the nodes";
            field.error("allowAddresses at a hop of a chain".to_owned(), help);
        }
        Some(plugin)
    });
    let choice = Choice::read(&map);
    map.finish(&["reload", "metadata"], NEEDED_HOP);
    if !nodes.is_empty() {
        let read: Vec<_> = nodes.iter().map(|node| server(node, &choice)).collect();
        let (servers, nodes) = read.into_iter().collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let choice = HopSettings { nodes, strategy: choice.strategy };
        return Some(Servers { servers, choice, plugin });
    }
    match (name, named) {
        (Some(name), Some(hops)) => {
            let text = name.text()?;
            if let Some(hop) = hops.find(text) {
                return servers(hop, None, folder);
            }
            name.error(format!("no nodes, and there is no hop {text:?}"), hops.nearest(text));
        }
        _ => field.error("hop without nodes".to_owned(), "expected nodes: [{ addr: SERVER:8443, ... }]"),
    }
    None
}

fn server(field: &Field<'_>, choice: &Choice) -> Option<(Server, NodeSettings)> {
    let map = field.map()?;
    let name = map.text(&["name"]).unwrap_or_default().to_owned();
    let node = choice.node(name.clone(), map.section("metadata"));
    let addr = map.filled(&["addr"]);
    if addr.is_none() {
        map.error("node without an address".to_owned(), "expected addr: SERVER:8443");
    }
    let addr = addr.and_then(|f| f.address(None));
    if addr.as_ref().is_some_and(|addr| addr.host.is_empty()) {
        map.error("node without a host".to_owned(), "expected addr: SERVER:8443");
    }
    let connector = map.filled(&["connector"]);
    if connector.is_none() {
        map.error("node without a connector".to_owned(), "expected connector: { type: tunnel }");
    }
    let connector = connector.and_then(|f| self::connector(&f));
    let channel = channels::dialer(&map);
    if let Some(network) = map.filled(&["network"]) {
        word(&network, &["tcp"]);
    }
    map.finish(&["probe"], NEEDED_NODE);
    let (connector, auth, mux) = connector?;
    Some((Server { name, addr: addr?, connector, auth, mux, channel: channel? }, node))
}

fn connector(field: &Field<'_>) -> Option<(Connector, Option<Auth>, mux::Settings)> {
    let map = field.map()?;
    let written = map.filled(&["type"]);
    let kind = match &written {
        Some(kind) => word(kind, &["tunnel", "relay"]),
        None => {
            map.error("connector without a type".to_owned(), "expected tunnel or relay");
            None
        }
    };
    let auth = map.get(&["auth"]).and_then(|f| credentials(&f));
    let metadata = map.section("metadata")?;
    map.finish(&[], &["tls"]);
    // What GOST's other connectors have in their metadata is not known here.
    if kind.is_none() && written.is_some_and(|field| is_of_gost(&field)) {
        return None;
    }
    // Without a type that is known, what either reads is read, so that one mistake does not hide the others.
    let relay = kind == Some("relay");
    let mut mux = if relay { mux::Settings::relay() } else { mux::Settings::tunnel() };
    mux.keepalive_timeout = CLIENT_KEEPALIVE_TIMEOUT;
    let mux = read_mux(&metadata, mux);
    let connector = if relay {
        metadata.without_effect(&["tunnel.id", "tunnelID", "tunnel.weight"], "with connector relay");
        Some(Connector::Relay)
    } else {
        tunnel(&metadata)
    };
    // `connectTimeout` is for connections that visitors open, which is not this connector's work here.
    metadata.finish(&["nodelay", "connectTimeout", "record.mode"], &[]);
    kind?;
    Some((connector?, auth, mux))
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
