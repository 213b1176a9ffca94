//! `chains[]` and `hops[]`: the way out to a server, its connector and its dialer.

use super::reader::{Field, nearest};
use super::settings::{read_mux, tunnel_id, word};
use crate::mux;
use crate::tunnel::client::{Auth, Connector, Server};
use std::time::Duration;
use uuid::Uuid;

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

/// A new time-based ID, for a client that names no tunnel (section 4.1).
fn new_tunnel_id() -> Uuid {
    let mut node = [0; 6];
    fastrand::fill(&mut node);
    Uuid::now_v1(&node)
}
