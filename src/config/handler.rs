//! `handler` of a service: `tcp`, `rtcp`, `udp`, `rudp`, `relay` and `whoami` here, `tunnel` in its own module.

use super::chain::{self, Purpose};
use super::check::Scope;
use super::forwarder::{Nodes, Terms};
use super::reader::{Field, Map};
use super::service::Bounds;
use super::settings::{
    CONNECT_TIMEOUT, HALF_CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, flag, is_of_gost, proxy_protocol, read_http,
    read_http_forwarding, read_idle, read_mux, read_sniff, read_wait, word,
};
use super::{Handler, Listener, Targets, auth, forwarder, termination, tunnel};
use crate::addr::{Host, HostPort};
use crate::net::udp::flows;
use crate::route::hop::{HopSettings, NodeSettings, Strategy};
use crate::route::rule::Known;
use crate::{forward, http, mux, terminate, tunnel::relay};
use std::time::Duration;

pub(crate) const HANDLERS: &str =
    "expected handler: { type: tcp | rtcp | udp | rudp | tunnel | relay | whoami }";

const LATER_METADATA: &[&str] = &[
    "sniffing.websocket",
    "sniffing.websocket.sampleRate",
    "nodelay",
    "readBufferSize",
    "udpBufferSize",
    "udp.bufferSize",
    "hash",
    "observePeriod",
    "observer.period",
    "observer.observePeriod",
    "observer.resetTraffic",
    "limiter.refreshInterval",
    "limiter.cleanupInterval",
    "mitm.alpn",
    "mitm.bypass",
];
const NEEDED_METADATA: &[&str] =
    &["sd", "entrypoint.compression", "mitm.certFile", "mitm.keyFile", "mitm.caCertFile", "mitm.caKeyFile"];
/// Keys that handlers other than the one at hand read, beside those of sniffing and of requests.
const OTHERS_METADATA: &[&str] = &[
    "proxyProtocol",
    "entrypoint.ProxyProtocol",
    "sniffing",
    "connectTimeout",
    "halfCloseTimeout",
    "idleTimeout",
];
/// Keys that say how it is looked.
const OF_SNIFFING: &[&str] = &["sniffing.timeout", "sniffing.clientHelloTimeout"];
/// Keys that are about requests, which are found by looking.
const OF_REQUESTS: &[&str] = &[
    "http.keepalive",
    "http.routeHeader",
    "http.shareUpstreams",
    "http.forwarded",
    "http.trustedProxies",
    "http.headTimeout",
    "http.idleTimeout",
    "http.stallTimeout",
    "http.maxHeadSize",
    "http.maxHeadFields",
    "readTimeout",
];
const WITHOUT_SNIFFING: (&str, &str) =
    ("without sniffing", "expected handler: { metadata: { sniffing: true } }, or remove this");

/// How long the handler `relay` knows a peer of a UDP port that it opened for a client.
const PEER_TTL: Duration = Duration::from_secs(60);

/// What a handler needs of its service.
pub(crate) struct Part<'s, 'a> {
    pub(crate) service: &'s Map<'a>,
    pub(crate) forwarder: Option<&'s Field<'a>>,
    pub(crate) bounds: &'s Bounds,
    pub(crate) scope: &'s Scope<'a>,
    /// Absent when it could not be read.
    pub(crate) listener: Option<&'s Listener>,
}

pub(crate) fn read(map: Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let written = map.filled(&["type"]);
    let kind = match &written {
        Some(field) => word(field, &["tcp", "rtcp", "udp", "rudp", "tunnel", "relay", "whoami"]),
        None => {
            map.error("handler without a type".to_owned(), HANDLERS);
            None
        }
    };
    let metadata = map.section("metadata")?;
    let handler = match kind {
        Some("tcp" | "rtcp") => forward(&map, &metadata, part),
        Some("udp" | "rudp") => datagrams(&map, &metadata, part),
        Some("tunnel") => tunnel::read(&map, &metadata, part),
        Some("relay") => relay(&map, &metadata, part),
        Some("whoami") => Some(Handler::Whoami(read_http(&metadata, &["http.keepalive"]))),
        _ => None,
    };
    if let Some(Handler::Relay { auth, fixed: false, .. }) = &handler
        && auth.is_empty()
        && !is_guarded(part)
    {
        let message =
            "relay without users: whoever reaches this port can connect to whatever this machine reaches";
        let help = "expected auth: { username: NAME, password: SECRET }, auther, authers, or a forwarder";
        map.warn(message.to_owned(), help);
    }
    if let Some(kind) = kind {
        if matches!(kind, "tunnel" | "whoami") {
            no_forwarder(kind, part.forwarder);
        }
        if matches!((kind, part.listener), ("tunnel" | "relay", Some(l @ Listener::Rtcp { .. })) if !l.is_udp())
        {
            map.error(
                format!("handler {kind} on a listener of type rtcp"),
                "expected listener: { type: tcp }, or another that opens a port",
            );
        }
        check_network(&map, kind, part.listener);
        for names in [OTHERS_METADATA, OF_SNIFFING, OF_REQUESTS] {
            metadata.without_effect(names, &format!("with handler {kind}"));
        }
        map.without_effect(&["chain"], &format!("with handler {kind}"));
        metadata.finish(LATER_METADATA, NEEDED_METADATA);
    } else if written.is_some_and(|field| is_of_gost(&field)) {
        // What GOST's other handlers have in their metadata, and their forwarders, is not known here.
    } else {
        read_as_any(&map, &metadata, part);
        metadata.finish(LATER_METADATA, NEEDED_METADATA);
    }
    map.finish(
        &["retries", "observer"],
        &["auth", "auther", "authers", "plugin", "limiter", "tls", "chainGroup"],
    );
    handler
}

/// Without a type that is known: what a handler of any type reads, so that one mistake does not hide the others.
fn read_as_any(map: &Map<'_>, metadata: &Map<'_>, part: &Part<'_, '_>) {
    forward_settings(metadata);
    relay(map, metadata, part);
    tunnel::read(map, metadata, part);
}

/// Whether the port itself lets in only who is known.
fn is_guarded(part: &Part<'_, '_>) -> bool {
    let certificates = match part.listener {
        Some(Listener::Port { channel, .. }) => {
            channel.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
        }
        _ => false,
    };
    certificates || part.service.get(&["admission"]).or_else(|| part.service.get(&["admissions"])).is_some()
}

/// Datagrams and connections do not go together.
fn check_network(map: &Map<'_>, kind: &str, listener: Option<&Listener>) {
    let Some(listener) = listener else { return };
    match (matches!(kind, "udp" | "rudp"), listener.is_udp()) {
        (true, false) => map.error(
            format!("handler {kind} on a listener for connections"),
            "expected listener: { type: udp }, or { type: rudp } with a chain",
        ),
        (false, true) => map.error(
            format!("handler {kind} on a listener for datagrams"),
            "expected handler: { type: udp } or { type: rudp }",
        ),
        _ => {}
    }
}

fn no_forwarder(kind: &str, forwarder: Option<&Field<'_>>) {
    if let Some(forwarder) = forwarder {
        let help = "remove it, or expected handler type tcp, rtcp or relay";
        forwarder.error(format!("handler {kind} takes no forwarder"), help);
    }
}

/// `sniffing`; one that says nothing that could be read hides no other mistake.
fn sniffing(metadata: &Map<'_>) -> bool {
    flag(metadata, &["sniffing"]).unwrap_or_else(|| metadata.filled(&["sniffing"]).is_some())
}

fn forward_settings(metadata: &Map<'_>) -> forward::Settings {
    let sniffing = sniffing(metadata);
    let sniff = read_sniff(metadata);
    let mut settings = forward::Settings {
        sniff: sniffing.then_some(sniff),
        http: read_http_forwarding(metadata, &["http.keepalive"], &["readTimeout"]),
        connect_timeout: CONNECT_TIMEOUT,
        half_close_timeout: HALF_CLOSE_TIMEOUT,
        idle_timeout: read_idle(metadata),
        proxy_protocol: proxy_protocol(metadata, "proxyProtocol"),
    };
    settings.http.share_upstreams = flag(metadata, &["http.shareUpstreams"]).unwrap_or(true);
    read_wait(metadata, &["connectTimeout"], &mut settings.connect_timeout);
    read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
    settings
}

/// `chain`: the way to the nodes.
fn way(map: &Map<'_>, part: &Part<'_, '_>, purpose: Purpose) -> Option<String> {
    chain::resolve(&part.scope.chains, &map.filled(&["chain"])?, purpose)
}

fn forward(map: &Map<'_>, metadata: &Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let settings = forward_settings(metadata);
    warn_without_sniffing(metadata, &settings, &[OF_SNIFFING, OF_REQUESTS]);
    let tls = termination::read(map);
    if tls.is_some() && settings.sniff.is_none() {
        let help = "expected metadata: { sniffing: true }, by which it is seen who is asked for";
        map.error("tls without sniffing".to_owned(), help);
    }
    let chain = way(map, part, Purpose::Connect);
    let Some(field) = part.forwarder else {
        return to_the_host_asked_for(map, part, settings, tls, chain);
    };
    let ended = tls.as_ref().map(terminate::Settings::names).unwrap_or_default();
    let sniffing = settings.sniff.is_some();
    let known = Known { host: sniffing || is_told(part), protocol: sniffing, http: sniffing };
    let terms =
        Terms { folder: part.scope.folder, udp: false, known, because: WITHOUT_SNIFFING, ended: &ended };
    let Nodes { hop, treatments, plugin } = forwarder::read(field, &part.scope.hops, terms)?;
    Some(Handler::Forward(Box::new(Targets { settings, tls, hop, nodes: treatments, plugin, chain })))
}

/// Whether whoever brings a connection says for which host it is; where the listener could not be read, it may be so.
fn is_told(part: &Part<'_, '_>) -> bool {
    !matches!(part.listener, Some(Listener::Port { .. } | Listener::Udp { .. }))
}

fn warn_without_sniffing(metadata: &Map<'_>, settings: &forward::Settings, keys: &[&[&'static str]]) {
    let (because, help) = WITHOUT_SNIFFING;
    let keys = keys.iter().copied().flatten().filter(|_| settings.sniff.is_none());
    for field in keys.filter_map(|key| metadata.filled(&[*key])) {
        field.warn(format!("no effect {because}"), help);
    }
}

/// Handlers `udp` and `rudp`.
fn datagrams(map: &Map<'_>, metadata: &Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let sniffing = sniffing(metadata);
    let sniff = read_sniff(metadata);
    let mut settings = forward::Settings {
        sniff: sniffing.then_some(sniff),
        http: http::Settings::default(),
        connect_timeout: CONNECT_TIMEOUT,
        half_close_timeout: HALF_CLOSE_TIMEOUT,
        idle_timeout: read_idle(metadata),
        proxy_protocol: None,
    };
    read_wait(metadata, &["connectTimeout"], &mut settings.connect_timeout);
    warn_without_sniffing(metadata, &settings, &[OF_SNIFFING]);
    let chain = way(map, part, Purpose::Datagrams);
    let Some(field) = part.forwarder else {
        return to_the_host_asked_for(map, part, settings, None, chain);
    };
    let known = Known { host: sniffing || is_told(part), protocol: sniffing, http: false };
    let terms = Terms { folder: part.scope.folder, udp: true, known, because: WITHOUT_SNIFFING, ended: &[] };
    let Nodes { hop, treatments: nodes, plugin } = forwarder::read(field, &part.scope.hops, terms)?;
    Some(Handler::Forward(Box::new(Targets { settings, tls: None, hop, nodes, plugin, chain })))
}

/// A handler without a forwarder: with a chain, and where it is looked for who is asked for.
fn to_the_host_asked_for(
    map: &Map<'_>,
    part: &Part<'_, '_>,
    settings: forward::Settings,
    tls: Option<terminate::Settings>,
    chain: Option<String>,
) -> Option<Handler> {
    let chained = map.filled(&["chain"]).is_some();
    if chained && settings.sniff.is_some() {
        let hop = host_asked_for();
        let targets = Targets { settings, tls, hop, nodes: Vec::new(), plugin: None, chain };
        return Some(Handler::Forward(Box::new(targets)));
    }
    let help = if chained {
        "expected forwarder: { nodes: [{ addr: HOST }] }, or metadata: { sniffing: true } for the host that is asked for"
    } else {
        "expected forwarder: { nodes: [{ name: node-0, addr: 127.0.0.1:8080 }] }"
    };
    part.service.error("handler without a forwarder".to_owned(), help);
    None
}

/// Without a forwarder connections go to whatever host is asked for.
fn host_asked_for() -> HopSettings {
    let node = NodeSettings::new("*".to_owned(), Duration::ZERO);
    HopSettings { nodes: vec![node], strategy: Strategy::Round }
}

fn relay(map: &Map<'_>, metadata: &Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let mut settings = relay::Settings {
        bind: flag(metadata, &["bind"]).unwrap_or(false),
        handshake_timeout: HANDSHAKE_TIMEOUT,
        listen: part.bounds.of(HostPort::new(Host::empty(), 0)),
        flows: flows::Settings { ttl: PEER_TTL, ..part.bounds.flows() },
        half_close_timeout: HALF_CLOSE_TIMEOUT,
        idle_timeout: read_idle(metadata),
        mux: read_mux(metadata, mux::Settings::relay()),
    };
    read_wait(metadata, &["handshakeTimeout", "readTimeout"], &mut settings.handshake_timeout);
    read_wait(metadata, &["ttl"], &mut settings.flows.ttl);
    read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
    let mut forward = forward::Settings {
        sniff: None,
        http: http::Settings::default(),
        connect_timeout: CONNECT_TIMEOUT,
        half_close_timeout: settings.half_close_timeout,
        idle_timeout: settings.idle_timeout,
        proxy_protocol: proxy_protocol(metadata, "proxyProtocol"),
    };
    read_wait(metadata, &["connectTimeout"], &mut forward.connect_timeout);
    let chain = way(map, part, Purpose::Connect);
    let auth = auth::read(map, metadata, &part.scope.authers);
    let known = Known { host: true, protocol: false, http: false };
    let because =
        ("with handler relay", "expected a service with handler tcp and sniffing behind it, or remove this");
    let terms = Terms { folder: part.scope.folder, udp: false, known, because, ended: &[] };
    let Nodes { hop, treatments: nodes, plugin } = match part.forwarder {
        Some(field) => forwarder::read(field, &part.scope.hops, terms)?,
        None => Nodes { hop: host_asked_for(), treatments: Vec::new(), plugin: None },
    };
    let targets = Box::new(Targets { settings: forward, tls: None, hop, nodes, plugin, chain });
    Some(Handler::Relay { settings, auth, targets, fixed: part.forwarder.is_some() })
}
