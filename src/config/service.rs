//! `services[]`, and the listener of each.

use super::chain::{self, Purpose};
use super::check::Scope;
use super::reader::{Field, Map};
use super::settings::{
    CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, flag, is_of_gost, proxy_protocol, read_size, read_wait, word,
};
use super::{Listener, Service, channels, handler};
use crate::addr::HostPort;
use crate::channel::{Framing, Kind};
use crate::net::listen;
use crate::net::udp::flows;
use crate::tunnel::client::Settings;
use std::time::Duration;

/// What a service leaves aside with a warning.
const LATER: &[&str] = &["logger", "loggers", "observer", "recorders", "cache", "rewriter", "status"];
/// What it would be unsafe to leave aside.
const NEEDED: &[&str] =
    &["bypass", "bypasses", "limiter", "climiter", "rlimiter", "resolver", "hosts", "interface", "sockopts"];
const LATER_METADATA: &[&str] = &[
    "enableStats",
    "observePeriod",
    "observer.period",
    "observer.resetTraffic",
    "limiter.refreshInterval",
    "limiter.cleanupInterval",
    "limiter.scope",
    "ignoreChain",
    "hash",
];
const NEEDED_METADATA: &[&str] =
    &["preUp", "postUp", "preDown", "postDown", "netns", "netns.out", "interface", "so_mark"];

const NEEDED_LISTENER: &[&str] = &["tls", "auth", "auther", "authers", "chainGroup"];
const PORT: &str = "with a listener that opens a port";
/// What only listeners of datagrams read.
const FLOWS: &[&str] = &["keepalive.ttl", "readQueueSize", "recvQueueSize"];
/// What GOST's listeners of datagrams have, and the size of a buffer alone depends on: here datagrams have any size.
const LATER_LISTENER: &[&str] = &["udp.bufferSize"];

/// The bounds that a service sets for each of its ports.
#[derive(Debug)]
pub(crate) struct Bounds(listen::Settings);

impl Bounds {
    fn read(metadata: &Map<'_>) -> Self {
        let mut settings = listen::Settings::new(HostPort::new(crate::addr::Host::empty(), 0));
        read_size(metadata, &["maxConnections"], 1, &mut settings.max_connections);
        read_size(metadata, &["maxHandshakes"], 1, &mut settings.max_handshakes);
        settings.proxy_protocol = proxy_protocol(metadata, "proxyProtocol").is_some();
        Self(settings)
    }

    /// The flows of a port with these bounds.
    pub(crate) fn flows(&self) -> flows::Settings {
        flows::Settings { max_flows: self.0.max_connections, ..flows::Settings::default() }
    }

    /// A port with these bounds.
    pub(crate) fn of(&self, addr: HostPort) -> listen::Settings {
        listen::Settings { addr, ..self.0.clone() }
    }
}

pub(crate) fn read(index: usize, field: &Field<'_>, scope: &Scope<'_>) -> Option<Service> {
    let map = field.map()?;
    let name = map.text(&["name"]).map_or_else(|| format!("service-{index}"), str::to_owned);
    let metadata = map.section("metadata")?;
    let bounds = Bounds::read(&metadata);
    let listener = listener(&map, scope, &bounds, &metadata);
    let forwarder = map.filled(&["forwarder"]);
    let part = handler::Part {
        service: &map,
        forwarder: forwarder.as_ref(),
        bounds: &bounds,
        scope,
        listener: listener.as_ref(),
    };
    let handler = match map.filled(&["handler"]) {
        Some(field) => field.map().and_then(|handler| handler::read(handler, &part)),
        None => {
            map.error("service without a handler".to_owned(), handler::HANDLERS);
            None
        }
    };
    let labels = metadata.filled(&["labels"]).and_then(|f| f.map()).map(Map::into_texts);
    let pairs = labels.into_iter().flatten().chain(metadata.texts()).collect();
    metadata.finish(LATER_METADATA, NEEDED_METADATA);
    if matches!(listener, Some(Listener::Rtcp { .. })) {
        map.without_effect(&["admission", "admissions"], "with a listener that opens no port");
    }
    let admissions = scope.admissions.find_all(map.filled(&["admission"]), map.filled(&["admissions"]));
    map.finish(LATER, NEEDED);
    Some(Service { name, listener: listener?, handler: handler?, admissions, metadata: pairs })
}

fn listener(
    service: &Map<'_>,
    scope: &Scope<'_>,
    bounds: &Bounds,
    service_metadata: &Map<'_>,
) -> Option<Listener> {
    let addr = service.filled(&["addr"]);
    if addr.is_none() {
        service.error(
            "service without an address".to_owned(),
            "expected addr: :80, or addr: :0 with listener rtcp",
        );
    }
    let map = service.section("listener")?;
    let written = map.filled(&["type"]);
    let known: Vec<_> = channels::names().into_iter().chain(["rtcp", "rudp", "udp"]).collect();
    let kind = written.as_ref().map_or(Some("tcp"), |f| word(f, &known));
    let chain = map.filled(&["chain"]);
    let metadata = map.section("metadata")?;
    let listener = match (kind, chain) {
        (Some(kind @ ("rtcp" | "rudp")), Some(chain)) => {
            let addr = addr.and_then(|addr| addr.address(None));
            let udp = (kind == "rudp").then(|| read_flows(&metadata, bounds.flows()));
            rtcp(addr, udp, &chain, scope, [&metadata, service_metadata])
        }
        (Some(kind @ ("rtcp" | "rudp")), None) => {
            let help = format!(
                "expected listener: {{ type: {kind}, chain: NAME }}, and under chains: one of that name"
            );
            map.error(format!("listener {kind} without a chain"), help);
            None
        }
        (Some(kind), Some(chain)) => {
            let help =
                if kind == "udp" { "expected listener type rudp" } else { "expected listener type rtcp" };
            chain.error("a chain on a listener that opens a port".to_owned(), help);
            None
        }
        (Some("udp"), None) => {
            if let Some(field) = service_metadata.get(&["proxyProtocol"]).filter(|_| bounds.0.proxy_protocol)
            {
                let help = "remove it: datagrams have nothing in front that says who their sender is";
                field.error("proxyProtocol with listener udp".to_owned(), help);
            }
            let flows = read_flows(&metadata, bounds.flows());
            addr.and_then(|a| scope.port_of("udp", &a)).map(|addr| Listener::Udp { addr, flows })
        }
        (Some(name), None) => {
            let kind = Kind::of(name);
            let datagrams = kind.is_some_and(|kind| kind.framing == Framing::Quic);
            let port =
                |addr: Field<'_>| if datagrams { scope.port_of("udp", &addr) } else { scope.port(&addr) };
            let listen = addr.and_then(port).map(|addr| bounds.of(addr));
            if datagrams && bounds.0.proxy_protocol {
                let help = "expected no proxyProtocol, or a listener on TCP";
                service_metadata.error("proxyProtocol with listener quic, which is no TCP".to_owned(), help);
            }
            let channel = kind.and_then(|kind| channels::listener(kind, &map, &metadata, scope.tls.as_ref()));
            listen.zip(channel).map(|(listen, channel)| Listener::Port { listen, channel: Box::new(channel) })
        }
        // What GOST's other listeners have in their metadata is not known here.
        (None, _) if written.is_some_and(|field| is_of_gost(&field)) => {
            service_metadata.get(&["dialTimeout"]);
            map.finish(&[], NEEDED_LISTENER);
            return None;
        }
        // What either listener reads, so that one mistake does not hide the others.
        (None, chain) => {
            addr.and_then(|addr| addr.address(None));
            chain.and_then(|chain| chain::resolve(&scope.chains, &chain, Purpose::Bind));
            waits([&metadata, service_metadata]);
            None
        }
    };
    metadata.without_effect(&["connectTimeout", "dialTimeout", "handshakeTimeout"], PORT);
    metadata.without_effect(FLOWS, "with a listener of this type");
    metadata.finish(&[channels::LATER_METADATA, LATER_LISTENER].concat(), channels::NEEDED_METADATA);
    service_metadata.without_effect(&["dialTimeout"], PORT);
    map.finish(&[], NEEDED_LISTENER);
    listener
}

/// `ttl`, `keepalive` and `readQueueSize`.
fn read_flows(metadata: &Map<'_>, mut flows: flows::Settings) -> flows::Settings {
    read_wait(metadata, &["ttl", "keepalive.ttl"], &mut flows.ttl);
    flows.keepalive = flag(metadata, &["keepalive"]).unwrap_or(flows.keepalive);
    read_size(metadata, &["readQueueSize", "recvQueueSize"], 1, &mut flows.queue);
    flows
}

fn rtcp(
    addr: Option<HostPort>,
    udp: Option<flows::Settings>,
    chain: &Field<'_>,
    scope: &Scope<'_>,
    metadata: [&Map<'_>; 2],
) -> Option<Listener> {
    let (handshake_timeout, connect_timeout) = waits(metadata);
    let chain = chain::resolve(&scope.chains, chain, Purpose::Bind)?;
    let client = Settings { bind: addr?, handshake_timeout, connect_timeout, udp };
    Some(Listener::Rtcp { client, chain })
}

/// For the header of a stream or the BIND reply, and for the connection to the server.
fn waits([listener, service]: [&Map<'_>; 2]) -> (Duration, Duration) {
    let (mut handshake_timeout, mut connect_timeout) = (HANDSHAKE_TIMEOUT, CONNECT_TIMEOUT);
    read_wait(service, &["dialTimeout"], &mut connect_timeout);
    read_wait(listener, &["connectTimeout", "dialTimeout"], &mut connect_timeout);
    read_wait(listener, &["handshakeTimeout"], &mut handshake_timeout);
    (handshake_timeout, connect_timeout)
}
