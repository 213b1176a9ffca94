//! Chains, hops and nodes: the way out to a server, and the forwarder's targets.

use super::check::{new_tunnel_id, read_size, read_wait, word};
use super::reader::{Bare, Field, Map, nearest};
use crate::mux;
use crate::route::hop::{HopSettings, NodeSettings, Strategy};
use crate::route::hosts::HostPattern;
use crate::route::rule::Rule;
use crate::tunnel::client::{Auth, Connector, Server};
use std::time::Duration;
use uuid::Uuid;

const FAIL_TIMEOUT: Duration = Duration::from_secs(10);
/// A client finds a dead server within this time; real servers send something every 10 s.
const CLIENT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// The named chains and hops of all files.
#[derive(Debug)]
pub(crate) struct Chains<'a> {
    chains: Vec<(String, Field<'a>, Option<Vec<Server>>)>,
}

impl<'a> Chains<'a> {
    pub(crate) fn new(chains: Vec<Field<'a>>, hops: Vec<Field<'a>>) -> Self {
        let named = |field: Field<'a>| Some((field.map()?.text(&["name"])?.to_owned(), field));
        let hops: Vec<_> = hops.into_iter().filter_map(named).collect();
        let chains = chains.into_iter().filter_map(named);
        Self {
            chains: chains
                .map(|(name, field)| {
                    let servers = chain(&field, &hops);
                    (name, field, servers)
                })
                .collect(),
        }
    }

    /// The servers of the chain that a listener names.
    pub(crate) fn resolve(&self, name: &Field<'_>) -> Option<Vec<Server>> {
        let text = name.text()?;
        if let Some((.., servers)) = self.chains.iter().find(|(n, ..)| n == text) {
            return servers.clone();
        }
        name.error(
            format!("there is no chain {text:?}"),
            nearest(text, self.chains.iter().map(|(n, ..)| n.as_str())),
        );
        None
    }
}

fn chain(field: &Field<'_>, named: &[(String, Field<'_>)]) -> Option<Vec<Server>> {
    let map = field.map()?;
    map.text(&["name"]);
    let hops = map.get(&["hops"]).map(|f| f.list()).unwrap_or_default();
    map.finish(&["metadata"], &[]);
    match &hops[..] {
        [hop] => servers(hop, named),
        [] => {
            field.error("chain without a hop".to_owned(), "expected hops: [{ nodes: [...] }]");
            None
        }
        [_, second, ..] => {
            second.error("chains of several hops are not supported yet".to_owned(), "expected one hop");
            None
        }
    }
}

fn servers(field: &Field<'_>, named: &[(String, Field<'_>)]) -> Option<Vec<Server>> {
    let map = field.map()?;
    let name = map.text(&["name"]);
    let Some(nodes) = map.get(&["nodes"]) else {
        let known = || named.iter().map(|(n, _)| n.as_str());
        return match named.iter().find(|(n, _)| Some(n.as_str()) == name) {
            Some((_, hop)) if hop.tree.at != field.tree.at => servers(hop, &[]),
            _ => {
                map.error("hop without nodes".to_owned(), nearest(name.unwrap_or_default(), known()));
                None
            }
        };
    };
    let servers: Vec<_> = nodes.list().iter().map(server).collect();
    // Servers are tried one after the other, each time from the first.
    map.finish(
        &["selector", "reload", "metadata"],
        &[
            "plugin",
            "file",
            "redis",
            "http",
            "bypass",
            "bypasses",
            "resolver",
            "hosts",
            "interface",
            "sockopts",
        ],
    );
    if servers.is_empty() {
        nodes.error("hop without nodes".to_owned(), "expected at least one node");
    }
    servers.into_iter().collect()
}

fn server(field: &Field<'_>) -> Option<Server> {
    let map = field.map()?;
    let name = map.text(&["name"]).unwrap_or_default().to_owned();
    let addr = map.get(&["addr"]);
    if addr.is_none() {
        map.error("node without an address".to_owned(), "expected addr: SERVER:8443");
    }
    let addr = addr.and_then(|f| f.address(None));
    let connector = map.get(&["connector"]);
    if connector.is_none() {
        map.error("node without a connector".to_owned(), "expected connector: { type: tunnel }");
    }
    let connector = connector.and_then(|f| self::connector(&f));
    if let Some(dialer) = map.get(&["dialer"]).and_then(|f| f.map()) {
        dialer.get(&["type"]).and_then(|f| word(&f, &["tcp"]));
        dialer.finish(&["metadata"], &["tls", "auth"]);
    }
    map.finish(
        &["metadata", "probe", "network"],
        &[
            "tls",
            "http",
            "filter",
            "matcher",
            "bypass",
            "bypasses",
            "resolver",
            "hosts",
            "interface",
            "sockopts",
        ],
    );
    let (connector, auth, mux) = connector?;
    Some(Server { name, addr: addr?, connector, auth, mux })
}

fn connector(field: &Field<'_>) -> Option<(Connector, Option<Auth>, mux::Settings)> {
    let map = field.map()?;
    let kind = match map.get(&["type"]) {
        Some(kind) => word(&kind, &["tunnel", "relay"]),
        None => {
            map.error("connector without a type".to_owned(), "expected tunnel or relay");
            None
        }
    };
    let auth = map.get(&["auth"]).and_then(|f| credentials(&f));
    let metadata_field = map.get(&["metadata"]);
    let metadata = metadata_field.as_ref().and_then(Field::map);
    map.finish(&[], &["tls"]);
    let tunnel = kind? == "tunnel";
    let mut mux = if tunnel { mux::Settings::tunnel() } else { mux::Settings::relay() };
    mux.keepalive_timeout = CLIENT_KEEPALIVE_TIMEOUT;
    let (mut id, mut weight) = (None, 0);
    if let Some(metadata) = metadata {
        mux = read_mux(&metadata, mux);
        if tunnel {
            let field = metadata.get(&["tunnel.id", "tunnelID"]);
            id = match field {
                Some(field) => Some(tunnel_id(&field)?),
                None => None,
            };
            let number = metadata.get(&["tunnel.weight"]).and_then(|f| f.number(0..=255));
            weight = number.and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
        }
        metadata.finish(&["nodelay", "connectTimeout", "record.mode"], &[]);
    }
    let connector = if tunnel {
        Connector::Tunnel { id: id.unwrap_or_else(new_tunnel_id), weight }
    } else {
        Connector::Relay
    };
    Some((connector, auth, mux))
}

fn credentials(field: &Field<'_>) -> Option<Auth> {
    let map = field.map()?;
    let text = |names| map.text(names).unwrap_or_default().to_owned();
    let auth = Auth { username: text(&["username"]), password: text(&["password"]) };
    map.finish(&[], &["file"]);
    if auth.username.len() > 255 || auth.password.len() > 255 {
        field.error("user name or password over 255 bytes".to_owned(), "the relay protocol holds no more");
        return None;
    }
    (!auth.username.is_empty()).then_some(auth)
}

/// A UUID in one of its usual forms; `$` belongs to ingress rules only.
pub(crate) fn tunnel_id(field: &Field<'_>) -> Option<Uuid> {
    let text = field.text()?;
    let id = Uuid::parse_str(text).ok().filter(|id| !id.is_nil());
    if id.is_none() {
        field.error(
            format!("{text:?} is no tunnel ID"),
            "expected a UUID such as 4d21094e-b74c-4916-86c1-d9fa36ea677b",
        );
    }
    id
}

/// The `mux.*` keys, over the defaults of that handler or connector.
pub(crate) fn read_mux(map: &Map<'_>, mut mux: mux::Settings) -> mux::Settings {
    let version = map.get(&["mux.version"]).and_then(|f| f.number(1..=2));
    mux.kind = match (map.get(&["mux.type"]).and_then(|f| word(&f, &["smux", "yamux"])), version) {
        (Some("yamux"), _) => mux::Kind::Yamux,
        (_, Some(1)) => mux::Kind::SmuxV1,
        (_, Some(_)) => mux::Kind::SmuxV2,
        (_, None) => mux.kind,
    };
    if let Some(wait) = map.get(&["mux.keepaliveInterval"]).and_then(|f| f.wait(Bare::Seconds)) {
        mux.keepalive_interval = Some(wait);
    }
    if map.get(&["mux.keepaliveDisabled"]).and_then(|f| f.bool()) == Some(true) {
        mux.keepalive_interval = None;
    }
    read_wait(map, &["mux.keepaliveTimeout"], &mut mux.keepalive_timeout);
    if let Some(size) = map.get(&["mux.maxFrameSize"]).and_then(|f| f.number(512..=65_535)) {
        mux.max_frame_size = usize::try_from(size).unwrap_or(mux.max_frame_size);
    }
    read_size(map, &["mux.maxReceiveBuffer"], 65_536, &mut mux.max_receive_buffer);
    read_size(map, &["mux.maxStreamBuffer"], 4_096, &mut mux.max_stream_buffer);
    read_size(map, &["mux.maxStreamWindow"], 262_144, &mut mux.max_stream_window);
    read_size(map, &["mux.maxStreams"], 1, &mut mux.max_streams);
    mux
}

/// `forwarder`: the nodes and how to choose among them.
pub(crate) fn forwarder(field: &Field<'_>) -> Option<HopSettings> {
    let map = field.map()?;
    let mut defaults = Defaults { strategy: Strategy::Round, max_fails: 1, fail_timeout: FAIL_TIMEOUT };
    if let Some(selector) = map.get(&["selector"]).and_then(|f| f.map()) {
        defaults.read(selector);
    }
    let nodes = map.get(&["nodes"]);
    let list = nodes.as_ref().map(Field::list).unwrap_or_default();
    map.finish(&[], &["name", "hop", "hopGroup", "plugin"]);
    if list.is_empty() {
        field.error(
            "forwarder without nodes".to_owned(),
            "expected nodes: [{ name: node-0, addr: 127.0.0.1:8080 }]",
        );
    }
    let nodes: Vec<_> = list.iter().enumerate().map(|(i, f)| target(i, f, &defaults)).collect();
    let nodes = nodes.into_iter().collect::<Option<Vec<_>>>()?;
    Some(HopSettings { nodes, strategy: defaults.strategy })
}

struct Defaults {
    strategy: Strategy,
    max_fails: u32,
    fail_timeout: Duration,
}

impl Defaults {
    fn read(&mut self, map: Map<'_>) {
        let known = ["round", "rr", "random", "rand", "fifo", "ha", "hash"];
        self.strategy = match map.get(&["strategy"]).and_then(|f| word(&f, &known)) {
            Some("random" | "rand") => Strategy::Random,
            Some("fifo" | "ha") => Strategy::Fifo,
            Some("hash") => Strategy::Hash,
            _ => Strategy::Round,
        };
        self.marks(&map, Bare::Nanoseconds);
        map.finish(&["maxLatency"], &[]);
    }

    fn marks(&mut self, map: &Map<'_>, bare: Bare) {
        let fails = map.get(&["maxFails"]).and_then(|f| f.number(1..=i64::from(u32::MAX)));
        self.max_fails = fails.and_then(|n| u32::try_from(n).ok()).unwrap_or(self.max_fails);
        self.fail_timeout =
            map.get(&["failTimeout"]).and_then(|f| f.duration(bare)).unwrap_or(self.fail_timeout);
    }
}

fn target(index: usize, field: &Field<'_>, defaults: &Defaults) -> Option<NodeSettings> {
    let map = field.map()?;
    let mut node = NodeSettings {
        name: map.text(&["name"]).map_or_else(|| format!("node-{index}"), str::to_owned),
        addr: map.get(&["addr"]).filter(|f| f.text() != Some("")).and_then(|f| f.address(Some(0))),
        host: String::new(),
        protocol: String::new(),
        path: String::new(),
        rule: None,
        priority: 0,
        weight: 1,
        backup: false,
        max_fails: defaults.max_fails,
        fail_timeout: defaults.fail_timeout,
    };
    read_filter(&map, &mut node);
    if let Some(filter) = map.get(&["filter"]).and_then(|f| f.map()) {
        read_filter(&filter, &mut node);
        filter.finish(&[], &[]);
    }
    if let Some(matcher) = map.get(&["matcher"]).and_then(|f| f.map()) {
        node.rule = matcher.get(&["rule"]).filter(|f| f.text() != Some("")).and_then(|f| parse_rule(&f));
        node.priority = matcher.get(&["priority"]).and_then(|f| f.number(i64::MIN..=i64::MAX)).unwrap_or(0);
        matcher.finish(&[], &["bodySize"]);
    }
    if let Some(metadata) = map.get(&["metadata"]).and_then(|f| f.map()) {
        let weight = metadata.get(&["weight"]).and_then(|f| f.number(1..=i64::from(u32::MAX)));
        node.weight = weight.and_then(|n| u32::try_from(n).ok()).unwrap_or(1);
        node.backup = metadata.get(&["backup"]).and_then(|f| f.bool()).unwrap_or(false);
        let mut marks = Defaults { ..*defaults };
        marks.marks(&metadata, Bare::Seconds);
        (node.max_fails, node.fail_timeout) = (marks.max_fails, marks.fail_timeout);
        metadata.finish(&["labels"], &["proxyProtocol"]);
    }
    if let Some(network) = map.get(&["network"]) {
        word(&network, &["tcp"]);
    }
    map.finish(&["probe"], &["auth", "http", "tls", "bypass", "bypasses"]);
    Some(node)
}

fn read_filter(map: &Map<'_>, node: &mut NodeSettings) {
    if let Some(field) = map.get(&["host"])
        && let Some(host) = field.text()
    {
        host.clone_into(&mut node.host);
        if let Err(error) = HostPattern::from_filter(host) {
            field.error(format!("{host:?}: {error}"), "expected example.com, .example.com or *.example.com");
        }
    }
    if let Some(field) = map.get(&["protocol"]).filter(|f| f.text() != Some("")) {
        node.protocol = word(&field, &["http", "tls", "ssh"]).unwrap_or_default().to_owned();
    }
    if let Some(path) = map.text(&["path"]) {
        path.clone_into(&mut node.path);
    }
}

fn parse_rule(field: &Field<'_>) -> Option<Rule> {
    match Rule::parse(field.text()?) {
        Ok(rule) => Some(rule),
        Err(error) => {
            field.error(error.to_string(), "expected for example Host(`example.com`) && PathPrefix(`/api`)");
            None
        }
    }
}
