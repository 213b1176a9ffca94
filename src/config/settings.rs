//! Keys that several objects have: words, times, sizes, and the groups `http.*`, `sniffing.*` and `mux.*`.

use super::reader::{Bare, Field, Map, nearest};
use crate::addr::Network;
use crate::wire::proxy::Version;
use crate::{http, mux, sniff};
use std::time::Duration;
use uuid::Uuid;

pub(crate) const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// GOST's words for handlers, listeners, connectors and dialers that are not built in yet.
const GOST_WORDS: &[&str] = &[
    "auto", "direct", "dns", "dtls", "file", "ftcp", "grpc", "h2", "h2c", "http", "http2", "http3", "icmp",
    "kcp", "mtcp", "mtls", "mwss", "mws", "obfs", "ohttp", "otls", "pht", "phts", "quic", "redirect", "redu",
    "rudp", "runix", "serial", "sni", "socks", "socks4", "socks5", "ss", "ssh", "sshd", "ssu", "tap", "tls",
    "tun", "udp", "unix", "utls", "virtual", "ws", "wss", "wt",
];

/// One of a few words; anything else is an error that lists them.
pub(crate) fn word(field: &Field<'_>, known: &[&'static str]) -> Option<&'static str> {
    let text = field.text()?.trim();
    let found = known.iter().find(|k| k.eq_ignore_ascii_case(text)).copied();
    if found.is_none() {
        if is_of_gost(field) {
            let known = known.join(", ");
            let help = match text {
                "kcp" if known.contains("quic") => {
                    format!(
                        "expected {known}; quic is for the same lines, and docs/configuration.md says why not kcp"
                    )
                }
                _ => format!("expected {known}"),
            };
            field.error(format!("{text:?} is not supported yet"), help);
            return None;
        }
        let hint = nearest(text, known.iter().copied());
        let hint = if hint.starts_with("did") { format!("; {hint}") } else { String::new() };
        field.error(format!("{text:?} is not supported"), format!("expected {}{hint}", known.join(", ")));
    }
    found
}

/// Whether it names what GOST has and we have not: what belongs to it is not known here.
pub(crate) fn is_of_gost(field: &Field<'_>) -> bool {
    field.text().is_some_and(|text| GOST_WORDS.contains(&text.trim()))
}

pub(crate) fn flag(map: &Map<'_>, names: &[&'static str]) -> Option<bool> {
    map.filled(names).and_then(|f| f.bool())
}

pub(crate) fn read_wait(map: &Map<'_>, names: &[&'static str], setting: &mut Duration) {
    if let Some(wait) = map.filled(names).and_then(|f| f.wait(Bare::Seconds)) {
        *setting = wait;
    }
}

pub(crate) fn read_size(map: &Map<'_>, names: &[&'static str], least: i64, setting: &mut usize) {
    let size = map.filled(names).and_then(|f| f.number(least..=i64::from(i32::MAX)));
    if let Some(size) = size.and_then(|n| usize::try_from(n).ok()) {
        *setting = size;
    }
}

/// `idleTimeout`: 0 is no limit, as in GOST.
pub(crate) fn read_idle(map: &Map<'_>) -> Option<Duration> {
    map.filled(&["idleTimeout"]).and_then(|f| f.duration(Bare::Seconds)).filter(|d| !d.is_zero())
}

pub(crate) fn read_sniff(map: &Map<'_>) -> sniff::Settings {
    let mut settings = sniff::Settings::default();
    read_wait(map, &["sniffing.timeout"], &mut settings.timeout);
    read_wait(map, &["sniffing.clientHelloTimeout"], &mut settings.client_hello_timeout);
    settings
}

/// Networks, in a list or between commas.
pub(crate) fn networks(field: &Field<'_>) -> Vec<Network> {
    let network = |(item, text): (Field<'_>, &str)| {
        let read = text.parse::<Network>();
        if let Err(error) = &read {
            item.error(format!("{text:?} is {error}"), "expected 192.0.2.1 or 10.0.0.0/8");
        }
        read.ok()
    };
    parts(field).filter(|(_, text)| !text.is_empty()).filter_map(network).collect()
}

/// What stands in a list or between commas, each with the value that holds it.
pub(crate) fn parts<'a>(field: &Field<'a>) -> impl Iterator<Item = (Field<'a>, &'a str)> + use<'a> {
    let items = if field.is_list() { field.list() } else { vec![field.clone()] };
    items.into_iter().flat_map(|item| {
        let texts = item.text().unwrap_or_default().split(',');
        texts.map(move |text| (item.clone(), text.trim()))
    })
}

/// The version of the PROXY protocol; `None` for 0.
pub(crate) fn proxy_protocol(map: &Map<'_>, name: &'static str) -> Option<Version> {
    match map.filled(&[name])?.number(0..=2)? {
        0 => None,
        1 => Some(Version::V1),
        _ => Some(Version::V2),
    }
}

/// What whoever answers requests has to know.
pub(crate) fn read_http(map: &Map<'_>, keepalive: &[&'static str]) -> http::Settings {
    let mut settings = http::Settings::default();
    settings.keepalive = flag(map, keepalive).unwrap_or(settings.keepalive);
    read_wait(map, &["http.headTimeout"], &mut settings.head_timeout);
    read_wait(map, &["http.idleTimeout"], &mut settings.idle_timeout);
    read_wait(map, &["http.stallTimeout"], &mut settings.stall_timeout);
    read_size(map, &["http.maxHeadSize"], 1024, &mut settings.limits.max_bytes);
    read_size(map, &["http.maxHeadFields"], 16, &mut settings.limits.max_fields);
    settings
}

/// The same, and what whoever passes requests on has to know.
pub(crate) fn read_http_forwarding(
    map: &Map<'_>,
    keepalive: &[&'static str],
    reply: &[&'static str],
) -> http::Settings {
    let mut settings = read_http(map, keepalive);
    settings.route_header = flag(map, &["http.routeHeader"]).unwrap_or(false);
    settings.forwarded.add = flag(map, &["http.forwarded"]).unwrap_or(false);
    let trusted = map.filled(&["http.trustedProxies"]).map(|f| networks(&f)).unwrap_or_default();
    settings.forwarded.trusted = trusted.into_iter().collect();
    read_wait(map, reply, &mut settings.reply_timeout);
    settings
}

/// The `mux.*` keys, over the defaults of that handler or connector; 0 is the default, as in GOST.
pub(crate) fn read_mux(map: &Map<'_>, mut mux: mux::Settings) -> mux::Settings {
    let number = |name, least: i64, most: i64| {
        let field = map.filled(&[name]).filter(|f| f.text() != Some("0"))?;
        usize::try_from(field.number(least..=most)?).ok()
    };
    let version = number("mux.version", 1, 2);
    mux.kind = match (map.filled(&["mux.type"]).and_then(|f| word(&f, &["smux", "yamux"])), version) {
        (Some("yamux"), _) => mux::Kind::Yamux,
        (_, Some(1)) => mux::Kind::SmuxV1,
        (_, Some(_)) => mux::Kind::SmuxV2,
        (_, None) => mux.kind,
    };
    if let Some(wait) = map.filled(&["mux.keepaliveInterval"]).and_then(|f| f.wait(Bare::Seconds)) {
        mux.keepalive_interval = Some(wait);
    }
    if flag(map, &["mux.keepaliveDisabled"]) == Some(true) {
        mux.keepalive_interval = None;
    }
    read_wait(map, &["mux.keepaliveTimeout"], &mut mux.keepalive_timeout);
    read_wait(map, &["mux.stallTimeout"], &mut mux.stall_timeout);
    let read = |name, least: i64, most: i64, setting: &mut usize| {
        *setting = number(name, least, most).unwrap_or(*setting);
    };
    read("mux.maxFrameSize", 512, 65_535, &mut mux.max_frame_size);
    read("mux.maxReceiveBuffer", 65_536, i64::from(i32::MAX), &mut mux.max_receive_buffer);
    read("mux.maxStreamBuffer", 4_096, i64::from(i32::MAX), &mut mux.max_stream_buffer);
    read("mux.maxStreamWindow", 262_144, i64::from(i32::MAX), &mut mux.max_stream_window);
    read("mux.maxStreams", 1, i64::from(i32::MAX), &mut mux.max_streams);
    mux
}

/// A UUID in one of its usual forms; `$` belongs to ingress rules only.
pub(crate) fn tunnel_id(field: &Field<'_>) -> Option<Uuid> {
    let text = field.text()?;
    let endpoint = crate::route::ingress::parse_endpoint(text);
    let help = match &endpoint {
        Some((tunnel, false)) => return Some(*tunnel),
        Some(_) => "write it without $: only the rules of an ingress mark a tunnel private",
        None => "expected a UUID such as 4d21094e-b74c-4916-86c1-d9fa36ea677b",
    };
    field.error(format!("{text:?} is no tunnel ID"), help);
    None
}
