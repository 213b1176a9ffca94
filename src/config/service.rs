//! `services[]`, and the listener of each.

use super::check::Scope;
use super::reader::{Field, Map};
use super::settings::{CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, read_size, read_wait, word};
use super::{Listener, Service, handler};
use crate::addr::HostPort;
use crate::net::listen;
use crate::tunnel;

/// What a service leaves aside with a warning.
const LATER: &[&str] = &["logger", "loggers", "observer", "recorders", "cache", "rewriter", "status"];
/// What it would be unsafe to leave aside.
const NEEDED: &[&str] = &[
    "admission",
    "admissions",
    "bypass",
    "bypasses",
    "limiter",
    "climiter",
    "rlimiter",
    "resolver",
    "hosts",
    "interface",
    "sockopts",
];
const LATER_METADATA: &[&str] = &["labels", "enableStats", "observer.period", "observer.resetTraffic"];
const NEEDED_METADATA: &[&str] = &["proxyProtocol", "preUp", "postUp", "preDown", "postDown", "netns"];

/// The bounds that a service sets for each of its ports.
#[derive(Debug)]
pub(crate) struct Bounds(listen::Settings);

impl Bounds {
    fn read(metadata: &Map<'_>) -> Self {
        let mut settings = listen::Settings::new(HostPort::new(crate::addr::Host::empty(), 0));
        read_size(metadata, &["maxConnections"], 1, &mut settings.max_connections);
        read_size(metadata, &["maxHandshakes"], 1, &mut settings.max_handshakes);
        Self(settings)
    }

    /// A port with these bounds.
    pub(crate) fn of(&self, addr: HostPort) -> listen::Settings {
        listen::Settings { addr, ..self.0.clone() }
    }
}

pub(crate) fn read(index: usize, field: &Field<'_>, scope: &Scope<'_>) -> Option<Service> {
    let map = field.map()?;
    let name = map.text(&["name"]).map_or_else(|| format!("service-{index}"), str::to_owned);
    let metadata = map.section("metadata");
    let bounds = metadata.as_ref().map(Bounds::read);
    let listener = listener(&map, scope, bounds.as_ref());
    let forwarder = map.get(&["forwarder"]);
    let handler = match map.get(&["handler"]).map(|f| f.map()) {
        Some(Some(handler)) => {
            let part = handler::Part { service: &map, forwarder, bounds: bounds.as_ref(), scope };
            handler::read(handler, &part)
        }
        _ => {
            map.error("service without a handler".to_owned(), handler::HANDLERS);
            None
        }
    };
    if let Some(metadata) = metadata {
        metadata.finish(LATER_METADATA, NEEDED_METADATA);
    }
    map.finish(LATER, NEEDED);
    Some(Service { name, listener: listener?, handler: handler? })
}

fn listener(service: &Map<'_>, scope: &Scope<'_>, bounds: Option<&Bounds>) -> Option<Listener> {
    let addr = match service.get(&["addr"]) {
        Some(addr) => addr.address(None),
        None => {
            service.error("service without an address".to_owned(), "expected addr: :80");
            None
        }
    };
    let map = service.section("listener")?;
    let kind = map.get(&["type"]).map_or(Some("tcp"), |f| word(&f, &["tcp", "rtcp"]));
    let chain = map.get(&["chain"]);
    let metadata = map.section("metadata");
    let listener = match (kind, chain) {
        (Some("rtcp"), Some(chain)) => rtcp(addr, &chain, scope, metadata.as_ref()),
        (Some("rtcp"), None) => {
            let help = "expected listener: { type: rtcp, chain: NAME }";
            service.error("listener rtcp without a chain".to_owned(), help);
            None
        }
        (Some(_), Some(chain)) => {
            chain.error("a chain on a listener of type tcp".to_owned(), "expected listener type rtcp");
            None
        }
        (Some(_), None) => addr.zip(bounds).map(|(addr, bounds)| Listener::Tcp(bounds.of(addr))),
        (None, _) => None,
    };
    if let Some(metadata) = metadata {
        metadata.finish(&["backlog", "mptcp"], &["proxyProtocol"]);
    }
    map.finish(&[], &["tls", "auth", "auther", "authers", "chainGroup"]);
    listener
}

fn rtcp(
    addr: Option<HostPort>,
    chain: &Field<'_>,
    scope: &Scope<'_>,
    metadata: Option<&Map<'_>>,
) -> Option<Listener> {
    let mut settings = tunnel::client::Settings {
        servers: scope.chains.resolve(chain)?,
        bind: addr?,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        connect_timeout: CONNECT_TIMEOUT,
    };
    if let Some(metadata) = metadata {
        read_wait(metadata, &["handshakeTimeout"], &mut settings.handshake_timeout);
        read_wait(metadata, &["connectTimeout", "dialTimeout"], &mut settings.connect_timeout);
    }
    Some(Listener::Rtcp(settings))
}
