//! `handler` of a service: `tcp`, `rtcp`, `relay` and `whoami` here, `tunnel` in its own module.

use super::check::Scope;
use super::reader::{Field, Map};
use super::service::Bounds;
use super::settings::{
    CONNECT_TIMEOUT, HALF_CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, flag, read_http, read_idle, read_mux, read_sniff,
    read_wait, word,
};
use super::{Handler, forwarder, tunnel};
use crate::addr::{Host, HostPort};
use crate::{forward, mux, tunnel::relay};

pub(crate) const HANDLERS: &str = "expected handler: { type: tcp | rtcp | tunnel | relay | whoami }";

const LATER_METADATA: &[&str] =
    &["sniffing.websocket", "sniffing.websocket.sampleRate", "nodelay", "readBufferSize"];
const NEEDED_METADATA: &[&str] = &[
    "sd",
    "proxyProtocol",
    "entrypoint.ProxyProtocol",
    "entrypoint.compression",
    "mitm.certFile",
    "mitm.keyFile",
    "skipauth",
];

/// What a handler needs of its service.
pub(crate) struct Part<'s, 'a> {
    pub(crate) service: &'s Map<'a>,
    pub(crate) forwarder: Option<Field<'a>>,
    pub(crate) bounds: Option<&'s Bounds>,
    pub(crate) scope: &'s Scope<'a>,
}

pub(crate) fn read(map: Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let kind = match map.get(&["type"]) {
        Some(field) => word(&field, &["tcp", "rtcp", "tunnel", "relay", "whoami"]),
        None => {
            map.error("handler without a type".to_owned(), HANDLERS);
            None
        }
    };
    let metadata = map.section("metadata")?;
    let handler = match kind {
        Some("tcp" | "rtcp") => forward(&metadata, part),
        Some("tunnel") => tunnel::read(&metadata, part),
        Some("relay") => relay(&metadata, part),
        Some("whoami") => Some(Handler::Whoami),
        _ => None,
    };
    if let (Some(kind), Some(forwarder)) = (kind, &part.forwarder)
        && !matches!(kind, "tcp" | "rtcp")
    {
        forwarder.error("this handler takes no forwarder".to_owned(), "expected handler type tcp or rtcp");
    }
    // Which keys there are depends on the type.
    if kind.is_some() {
        metadata.finish(LATER_METADATA, NEEDED_METADATA);
    }
    map.finish(
        &["retries", "observer"],
        &["auth", "auther", "authers", "limiter", "tls", "chain", "chainGroup"],
    );
    handler
}

fn forward(metadata: &Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let sniffing = flag(metadata, &["sniffing"]).unwrap_or(false);
    let sniff = read_sniff(metadata);
    let mut settings = forward::Settings {
        sniff: sniffing.then_some(sniff),
        http: read_http(metadata, &["http.keepalive"], &["readTimeout"]),
        connect_timeout: CONNECT_TIMEOUT,
        half_close_timeout: HALF_CLOSE_TIMEOUT,
        idle_timeout: read_idle(metadata),
    };
    read_wait(metadata, &["connectTimeout"], &mut settings.connect_timeout);
    read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
    let Some(field) = &part.forwarder else {
        let help = "expected forwarder: { nodes: [...] }";
        part.service.error("handler without a forwarder".to_owned(), help);
        return None;
    };
    let (hop, plugin) = forwarder::read(field, part.scope.folder)?;
    Some(Handler::Forward { settings, hop, plugin })
}

fn relay(metadata: &Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let mut settings = relay::Settings {
        bind: flag(metadata, &["bind"]).unwrap_or(false),
        handshake_timeout: HANDSHAKE_TIMEOUT,
        listen: part.bounds?.of(HostPort::new(Host::empty(), 0)),
        half_close_timeout: HALF_CLOSE_TIMEOUT,
        idle_timeout: read_idle(metadata),
        mux: read_mux(metadata, mux::Settings::relay()),
    };
    read_wait(metadata, &["handshakeTimeout", "readTimeout"], &mut settings.handshake_timeout);
    read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
    Some(Handler::Relay(settings))
}
