//! `handler: { type: tunnel }`: the tunnel port and its entrypoints.

use super::handler::Part;
use super::ingress::inline_rules;
use super::reader::{Bare, Map};
use super::settings::{
    HALF_CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, flag, proxy_protocol, read_http_forwarding, read_idle, read_mux,
    read_size, read_sniff, read_wait, tunnel_id,
};
use super::{Handler, auth, plugins, termination};
use crate::addr::HostPort;
use crate::net::listen;
use crate::tunnel::server::Settings;
use crate::{entrypoint, mux};
use std::time::Duration;

const MAX_CONNECTORS: usize = 256;
const SILENCE: Duration = Duration::from_secs(1);

pub(crate) fn read(map: &Map<'_>, metadata: &Map<'_>, part: &Part<'_, '_>) -> Option<Handler> {
    let auth = auth::read(map, metadata, &part.scope.authers);
    let owned = auth::owned(metadata, !auth.is_empty());
    let rules = metadata.filled(&["tunnel"]).map(|f| inline_rules(&f)).unwrap_or_default();
    let settings = server(metadata, part);
    let entrypoints = entrypoints(metadata, part, &settings);
    if let Some(inline) = metadata.filled(&["tunnel"]).filter(|_| settings.ingress.is_some()) {
        let help = "remove one of the two; rules of several kinds go into one ingress";
        inline.warn("no effect beside ingress, whose rules alone count".to_owned(), help);
    }
    let tls = termination::read(map).map(Box::new);
    let plugin =
        map.filled(&["plugin"]).and_then(|f| plugins::admission(&f, part.scope.folder)).map(Box::new);
    Some(Handler::Tunnel { settings, entrypoints, tls, rules, auth, owned, plugin })
}

fn server(metadata: &Map<'_>, part: &Part<'_, '_>) -> Settings {
    let mut settings = Settings {
        ingress: ingress(metadata, part),
        entrypoint_id: metadata.filled(&["entrypoint.id"]).and_then(|f| tunnel_id(&f)),
        direct: flag(metadata, &["tunnel.direct"]).unwrap_or(false),
        handshake_timeout: HANDSHAKE_TIMEOUT,
        max_connectors: MAX_CONNECTORS,
        silence: SILENCE,
        half_close_timeout: HALF_CLOSE_TIMEOUT,
        idle_timeout: read_idle(metadata),
        mux: read_mux(metadata, mux::Settings::tunnel()),
    };
    // The reference drops dead connectors at this interval; here they leave at once.
    metadata.filled(&["tunnel.ttl"]).and_then(|f| f.duration(Bare::Seconds));
    read_wait(metadata, &["handshakeTimeout", "readTimeout"], &mut settings.handshake_timeout);
    read_wait(metadata, &["tunnel.silence"], &mut settings.silence);
    read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
    read_size(metadata, &["tunnel.maxConnectors"], 1, &mut settings.max_connectors);
    settings
}

/// `ingress: NAME`, of the handler or of one of its `entrypoints`.
fn ingress(map: &Map<'_>, part: &Part<'_, '_>) -> Option<String> {
    let field = map.filled(&["ingress"])?;
    let name = field.text()?;
    if let Err(hint) = part.scope.ingress(name) {
        field.error(format!("there is no ingress {name:?}"), hint);
    }
    Some(name.to_owned())
}

fn entrypoints(metadata: &Map<'_>, part: &Part<'_, '_>, server: &Settings) -> Vec<entrypoint::Settings> {
    let sniff = read_sniff(metadata);
    let keepalive = ["entrypoint.keepalive", "http.keepalive"];
    let http = read_http_forwarding(metadata, &keepalive, &["entrypoint.readTimeout"]);
    let forwarded_node = flag(metadata, &["entrypoint.forwardedNode"]).unwrap_or(false);
    let proxy_protocol = proxy_protocol(metadata, "entrypoint.ProxyProtocol").is_some();
    let admissions = part
        .scope
        .admissions
        .find_all(metadata.filled(&["entrypoint.admission"]), metadata.filled(&["entrypoint.admissions"]));
    let entrypoint = |addr: HostPort, ingress: Option<String>| entrypoint::Settings {
        admissions: admissions.clone(),
        listen: listen::Settings { proxy_protocol, ..part.bounds.of(addr) },
        ingress: ingress.or_else(|| server.ingress.clone()),
        sniff: sniff.clone(),
        http: http.clone(),
        half_close_timeout: server.half_close_timeout,
        idle_timeout: server.idle_timeout,
        forwarded_node,
    };
    let first = metadata.filled(&["entrypoint"]).and_then(|f| part.scope.port(&f));
    let mut entrypoints: Vec<_> = first.map(|addr| entrypoint(addr, None)).into_iter().collect();
    for field in metadata.get(&["entrypoints"]).map(|f| f.list()).unwrap_or_default() {
        let Some(map) = field.map() else { continue };
        let addr = map.filled(&["addr"]);
        if addr.is_none() {
            map.error("entrypoint without an address".to_owned(), "expected addr: :80");
        }
        let addr = addr.and_then(|f| part.scope.port(&f));
        let ingress = ingress(&map, part);
        entrypoints.extend(addr.map(|addr| entrypoint(addr, ingress)));
        map.finish(&["name"], &[]);
    }
    entrypoints
}
