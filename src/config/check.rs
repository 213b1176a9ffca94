//! The tree of a file to the settings of each part: names, references, defaults; every problem is reported.
//!
//! Keys are those of GOST v3 (the wire specification, section 8). Services and their parts are read here, chains and nodes
//! in `chain`.

use super::chain::{self, Chains};
use super::file::{Place, Tree, Value};
use super::problem::{Problem, Severity, Source};
use super::reader::{Bare, Field, Map, Reader, nearest};
use super::{Config, Handler, Ingress, Listener, Loaded, Problems, Service};
use crate::addr::HostPort;
use crate::route::hosts::HostPattern;
use crate::route::ingress::Rule;
use crate::{entrypoint, forward, http, mux, net::listen, route, sniff, telemetry, tunnel};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// Sections of GOST's that may stand in a file: without them nothing becomes less safe.
const LATER_SECTIONS: &[&str] =
    &["api", "metrics", "profiling", "tls", "loggers", "recorders", "sds", "caches", "rewriters"];
/// Sections that decide who may do what: only their use is refused, where a service names them.
const UNUSED_SECTIONS: &[&str] = &[
    "authers",
    "admissions",
    "bypasses",
    "limiters",
    "climiters",
    "rlimiters",
    "quotas",
    "observers",
    "resolvers",
    "hosts",
    "routers",
    "plugins",
];

pub(crate) const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_CONNECTORS: usize = 256;
const SILENCE: Duration = Duration::from_secs(1);

/// Checks parsed files together: lists of several files are joined.
pub(crate) fn check(sources: &[Source], trees: &[Tree]) -> Result<Loaded, Problems> {
    let reader = Reader { sources, problems: RefCell::default() };
    let checker = Checker { reader: &reader };
    let config = checker.config(trees);
    let problems = reader.problems.into_inner();
    let errors = problems.iter().any(|p| p.severity == Severity::Error);
    if errors { Err(Problems(problems)) } else { Ok(Loaded { config, warnings: problems }) }
}

struct Checker<'a> {
    reader: &'a Reader<'a>,
}

impl<'a> Checker<'a> {
    fn config(&self, trees: &'a [Tree]) -> Config {
        let mut config = Config::default();
        let (mut services, mut ingresses, mut chains, mut hops) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for tree in trees {
            let root = Field { reader: self.reader, tree, path: String::new() };
            let Some(map) = root.map() else { continue };
            let join = |list: &mut Vec<Field<'a>>, key| {
                if let Some(field) = map.get(&[key]) {
                    list.extend(field.list());
                }
            };
            join(&mut services, "services");
            join(&mut ingresses, "ingresses");
            join(&mut chains, "chains");
            join(&mut hops, "hops");
            if let Some(log) = map.get(&["log"]).and_then(|f| f.map()) {
                config.log = self.log(log);
            }
            map.finish(&[LATER_SECTIONS, UNUSED_SECTIONS].concat(), &[]);
        }
        config.ingresses = ingresses.iter().filter_map(|f| self.ingress(f)).collect();
        self.no_twins(&ingresses);
        self.no_twins(&services);
        let chains = Chains::new(chains, hops);
        config.services =
            services.iter().enumerate().filter_map(|(i, f)| self.service(i, f, &chains, &config)).collect();
        if services.is_empty() {
            self.reader.report(
                Severity::Error,
                Place::default(),
                "",
                "no services".to_owned(),
                "expected a list `services:`",
            );
        }
        self.no_port_twice(&services);
        config
    }

    /// Two objects of one name: which of them is meant?
    fn no_twins(&self, fields: &[Field<'a>]) {
        let mut seen = HashMap::new();
        for field in fields {
            let Some(name) = name_of(field.tree) else { continue };
            if let Some(first) = seen.insert(name.to_owned(), &field.path) {
                field.error(format!("name {name:?} is taken by {first}"), "expected a name of its own");
            }
        }
    }

    fn no_port_twice(&self, services: &[Field<'a>]) {
        let mut seen: HashMap<HostPort, &str> = HashMap::new();
        for field in services {
            let Value::Map(entries) = &field.tree.value else { continue };
            let listener =
                entries.iter().find(|(k, _)| k.text.eq_ignore_ascii_case("listener")).map(|(_, tree)| tree);
            if listener.is_some_and(|tree| text_at(tree, "type").is_some_and(|t| t != "tcp")) {
                continue;
            }
            let addr = text_at(field.tree, "addr")
                .and_then(|text| HostPort::parse(text, 0).ok())
                .filter(|a| a.port != 0);
            if let Some(addr) = addr
                && let Some(first) = seen.insert(addr.clone(), &field.path)
            {
                field.error(format!("address {addr} is taken by {first}"), "expected a port of its own");
            }
        }
    }

    fn log(&self, map: Map<'a>) -> telemetry::Settings {
        let mut log = telemetry::Settings::default();
        if let Some(field) = map.get(&["level"]) {
            let known = ["trace", "debug", "info", "warn", "error", "fatal"];
            match word(&field, &known) {
                Some("trace") => log.level = telemetry::Level::Trace,
                Some("debug") => log.level = telemetry::Level::Debug,
                Some("warn") => log.level = telemetry::Level::Warn,
                Some("error" | "fatal") => log.level = telemetry::Level::Error,
                _ => {}
            }
        }
        if let Some(field) = map.get(&["format"]) {
            log.json = word(&field, &["json", "text"]) == Some("json");
        }
        log.output = match map.text(&["output"]) {
            None | Some("stderr") => telemetry::Output::Stderr,
            Some("stdout") => telemetry::Output::Stdout,
            Some("none") => telemetry::Output::None,
            Some(path) => telemetry::Output::File(PathBuf::from(path)),
        };
        map.finish(&["rotation"], &[]);
        log
    }

    fn ingress(&self, field: &Field<'a>) -> Option<Ingress> {
        let map = field.map()?;
        let Some(name) = map.text(&["name"]) else {
            map.error("ingress without a name".to_owned(), "expected name: ingress-0");
            return None;
        };
        let rules = map.get(&["rules"]).map(|f| f.list()).unwrap_or_default();
        let rules = rules.iter().filter_map(|f| self.rule(f)).collect();
        map.finish(&["reload"], &["plugin", "file", "redis", "http"]);
        Some(Ingress { name: name.to_owned(), rules })
    }

    fn rule(&self, field: &Field<'a>) -> Option<Rule> {
        let map = field.map()?;
        let (hostname, endpoint) = (map.get(&["hostname"]), map.get(&["endpoint"]));
        let (Some(hostname), Some(endpoint)) = (hostname, endpoint) else {
            map.error("incomplete rule".to_owned(), "expected hostname: and endpoint:");
            return None;
        };
        let rule = Rule {
            hostname: hostname.text()?.trim().to_owned(),
            endpoint: endpoint.text()?.trim().to_owned(),
        };
        match HostPattern::from_ingress(&rule.hostname) {
            Err(error) => hostname
                .error(format!("{:?}: {error}", rule.hostname), "expected example.com or *.example.com"),
            Ok(HostPattern::Exact(host)) if host.is_empty() => {
                hostname.warn(
                    format!("{:?} matches no host", rule.hostname),
                    "expected example.com or *.example.com",
                );
            }
            Ok(_) => {}
        }
        if route::ingress::parse_endpoint(&rule.endpoint).is_none() {
            let message = format!("{:?} is no tunnel ID: this host goes nowhere", rule.endpoint);
            endpoint.warn(message, "expected a UUID, with $ in front for a private tunnel");
        }
        map.finish(&[], &[]);
        Some(rule)
    }

    fn service(
        &self,
        index: usize,
        field: &Field<'a>,
        chains: &Chains<'a>,
        config: &Config,
    ) -> Option<Service> {
        let map = field.map()?;
        let name = map.text(&["name"]).map_or_else(|| format!("service-{index}"), str::to_owned);
        let addr = map.get(&["addr"]);
        let (listener, handler) = (map.get(&["listener"]), map.get(&["handler"]));
        let forwarder = map.get(&["forwarder"]);
        let metadata = map.get(&["metadata"]).and_then(|f| f.map());
        let bounds = |addr: HostPort| {
            let mut settings = listen::Settings::new(addr);
            if let Some(metadata) = &metadata {
                read_size(metadata, &["maxConnections"], 1, &mut settings.max_connections);
                read_size(metadata, &["maxHandshakes"], 1, &mut settings.max_handshakes);
            }
            settings
        };
        let listener = self.listener(&map, addr, listener, chains, &bounds);
        let handler = match handler.as_ref().and_then(Field::map) {
            Some(handler) => self.handler(handler, &map, forwarder, &bounds, config),
            None => {
                map.error("service without a handler".to_owned(), HANDLERS);
                None
            }
        };
        if let Some(metadata) = metadata {
            metadata.finish(
                &["labels", "enableStats", "observer.period", "observer.resetTraffic"],
                &["proxyProtocol", "preUp", "postUp", "preDown", "postDown", "netns"],
            );
        }
        map.finish(
            &["logger", "loggers", "observer", "recorders", "cache", "rewriter", "status"],
            &[
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
            ],
        );
        Some(Service { name, listener: listener?, handler: handler? })
    }

    fn listener(
        &self,
        service: &Map<'a>,
        addr: Option<Field<'a>>,
        field: Option<Field<'a>>,
        chains: &Chains<'a>,
        bounds: &dyn Fn(HostPort) -> listen::Settings,
    ) -> Option<Listener> {
        let map = field.as_ref().map_or(Some(None), |f| f.map().map(Some))?;
        let kind = map.as_ref().and_then(|m| m.get(&["type"]));
        let kind = kind.map_or(Some("tcp"), |f| word(&f, &["tcp", "rtcp"]));
        let chain = map.as_ref().and_then(|m| m.get(&["chain"]));
        let metadata = map.as_ref().and_then(|m| m.get(&["metadata"])).and_then(|f| f.map());
        let addr = match addr {
            Some(addr) => addr.address(None),
            None => {
                service.error("service without an address".to_owned(), "expected addr: :80");
                None
            }
        };
        let listener = match (kind, chain) {
            (Some("rtcp"), Some(chain)) => addr.zip(chains.resolve(&chain)).map(|(bind, servers)| {
                let mut settings = tunnel::client::Settings {
                    bind,
                    servers,
                    handshake_timeout: HANDSHAKE_TIMEOUT,
                    connect_timeout: CONNECT_TIMEOUT,
                };
                if let Some(metadata) = &metadata {
                    read_wait(metadata, &["handshakeTimeout"], &mut settings.handshake_timeout);
                    read_wait(metadata, &["connectTimeout", "dialTimeout"], &mut settings.connect_timeout);
                }
                Listener::Rtcp(settings)
            }),
            (Some("rtcp"), None) => {
                service.error(
                    "listener rtcp without a chain".to_owned(),
                    "expected listener: { type: rtcp, chain: NAME }",
                );
                None
            }
            (Some(_), Some(chain)) => {
                chain.error("a chain on a listener of type tcp".to_owned(), "expected listener type rtcp");
                None
            }
            (Some(_), None) => addr.map(|addr| Listener::Tcp(bounds(addr))),
            (None, _) => None,
        };
        if let Some(metadata) = metadata {
            metadata.finish(&["backlog", "mptcp"], &["proxyProtocol"]);
        }
        if let Some(map) = map {
            map.finish(&[], &["tls", "auth", "auther", "authers", "chainGroup"]);
        }
        listener
    }

    fn handler(
        &self,
        map: Map<'a>,
        service: &Map<'a>,
        forwarder: Option<Field<'a>>,
        bounds: &dyn Fn(HostPort) -> listen::Settings,
        config: &Config,
    ) -> Option<Handler> {
        let kind = match map.get(&["type"]) {
            Some(field) => word(&field, &["tcp", "rtcp", "tunnel", "relay", "whoami"]),
            None => {
                map.error("handler without a type".to_owned(), HANDLERS);
                None
            }
        };
        let empty = Tree { at: map.at, value: Value::Scalar(None) };
        let metadata = map.get(&["metadata"]);
        let metadata_field = metadata.as_ref().map_or(&empty, |f| f.tree);
        let metadata = metadata.as_ref().map_or_else(|| format!("{}.metadata", map.path), |f| f.path.clone());
        // The reader outlives this call, the stand-in for a missing mapping does not: its entries are none.
        let metadata = Field { reader: self.reader, tree: metadata_field, path: metadata }.map()?;
        let needs_forwarder = matches!(kind, Some("tcp" | "rtcp"));
        let handler = match kind {
            Some("tcp" | "rtcp") => self.forward(&metadata, service, forwarder.as_ref()),
            Some("tunnel") => self.tunnel(&metadata, bounds, config),
            Some("relay") => Some(self.relay(&metadata, bounds)),
            Some("whoami") => Some(Handler::Whoami),
            _ => None,
        };
        if let Some(forwarder) = forwarder.filter(|_| !needs_forwarder && kind.is_some()) {
            forwarder
                .error("this handler takes no forwarder".to_owned(), "expected handler type tcp or rtcp");
        }
        // Which keys there are depends on the type.
        if kind.is_some() {
            metadata.finish(
                &["sniffing.websocket", "sniffing.websocket.sampleRate", "nodelay", "readBufferSize"],
                &[
                    "sd",
                    "proxyProtocol",
                    "entrypoint.ProxyProtocol",
                    "entrypoint.compression",
                    "mitm.certFile",
                    "mitm.keyFile",
                    "skipauth",
                ],
            );
        }
        map.finish(
            &["retries", "observer"],
            &["auth", "auther", "authers", "limiter", "tls", "chain", "chainGroup"],
        );
        handler
    }

    fn forward(
        &self,
        metadata: &Map<'_>,
        service: &Map<'a>,
        forwarder: Option<&Field<'a>>,
    ) -> Option<Handler> {
        let sniffing = metadata.get(&["sniffing"]).and_then(|f| f.bool()).unwrap_or(false);
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
        let Some(forwarder) = forwarder else {
            service.error("handler without a forwarder".to_owned(), "expected forwarder: { nodes: [...] }");
            return None;
        };
        Some(Handler::Forward { settings, hop: chain::forwarder(forwarder)? })
    }

    fn tunnel(
        &self,
        metadata: &Map<'_>,
        bounds: &dyn Fn(HostPort) -> listen::Settings,
        config: &Config,
    ) -> Option<Handler> {
        let rules = metadata.get(&["tunnel"]).map(|f| inline_rules(&f)).unwrap_or_default();
        let ingress_of = |map: &Map<'_>| {
            let field = map.get(&["ingress"])?;
            let name = field.text().filter(|name| !name.is_empty())?;
            if !config.ingresses.iter().any(|i| i.name == name) {
                let known = config.ingresses.iter().map(|i| i.name.as_str());
                field.error(format!("there is no ingress {name:?}"), nearest(name, known));
            }
            Some(name.to_owned())
        };
        let mut settings = tunnel::server::Settings {
            ingress: ingress_of(metadata),
            entrypoint_id: metadata.get(&["entrypoint.id"]).and_then(|f| chain::tunnel_id(&f)),
            direct: metadata.get(&["tunnel.direct"]).and_then(|f| f.bool()).unwrap_or(false),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_connectors: MAX_CONNECTORS,
            silence: SILENCE,
            half_close_timeout: HALF_CLOSE_TIMEOUT,
            idle_timeout: read_idle(metadata),
            mux: chain::read_mux(metadata, mux::Settings::tunnel()),
        };
        // The reference drops dead connectors at this interval; here they leave at once.
        metadata.get(&["tunnel.ttl"]).and_then(|f| f.duration(Bare::Seconds));
        read_wait(metadata, &["handshakeTimeout", "readTimeout"], &mut settings.handshake_timeout);
        read_wait(metadata, &["tunnel.silence"], &mut settings.silence);
        read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
        read_size(metadata, &["tunnel.maxConnectors"], 1, &mut settings.max_connectors);
        let entrypoint = |addr: HostPort, ingress: Option<String>| entrypoint::Settings {
            listen: bounds(addr),
            ingress,
            sniff: read_sniff(metadata),
            http: read_http(
                metadata,
                &["entrypoint.keepalive", "http.keepalive"],
                &["entrypoint.readTimeout"],
            ),
            half_close_timeout: settings.half_close_timeout,
            idle_timeout: settings.idle_timeout,
            forwarded_node: metadata
                .get(&["entrypoint.forwardedNode"])
                .and_then(|f| f.bool())
                .unwrap_or(false),
        };
        let first = metadata.get(&["entrypoint"]).and_then(|f| f.address(None));
        let mut entrypoints: Vec<_> =
            first.map(|addr| entrypoint(addr, settings.ingress.clone())).into_iter().collect();
        for field in metadata.get(&["entrypoints"]).map(|f| f.list()).unwrap_or_default() {
            let Some(map) = field.map() else { continue };
            let addr = map.get(&["addr"]).and_then(|f| f.address(None));
            let ingress = ingress_of(&map).or_else(|| settings.ingress.clone());
            entrypoints.extend(addr.map(|addr| entrypoint(addr, ingress)));
            map.finish(&["name"], &[]);
        }
        if entrypoints.is_empty() {
            // Asked for all the same, so that a file without an entrypoint may still hold its keys.
            drop(entrypoint(HostPort::new(crate::addr::Host::empty(), 0), None));
        }
        Some(Handler::Tunnel { settings, entrypoints, rules })
    }

    fn relay(&self, metadata: &Map<'_>, bounds: &dyn Fn(HostPort) -> listen::Settings) -> Handler {
        let mut settings = tunnel::relay::Settings {
            bind: metadata.get(&["bind"]).and_then(|f| f.bool()).unwrap_or(false),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            listen: bounds(HostPort::new(crate::addr::Host::empty(), 0)),
            half_close_timeout: HALF_CLOSE_TIMEOUT,
            idle_timeout: read_idle(metadata),
            mux: chain::read_mux(metadata, mux::Settings::relay()),
        };
        read_wait(metadata, &["handshakeTimeout", "readTimeout"], &mut settings.handshake_timeout);
        read_wait(metadata, &["halfCloseTimeout"], &mut settings.half_close_timeout);
        Handler::Relay(settings)
    }
}

const HANDLERS: &str = "expected handler: { type: tcp | rtcp | tunnel | relay | whoami }";

fn text_at<'t>(tree: &'t Tree, name: &str) -> Option<&'t str> {
    let Value::Map(entries) = &tree.value else { return None };
    let found = entries.iter().find(|(key, _)| key.text.eq_ignore_ascii_case(name))?;
    if let Value::Scalar(text) = &found.1.value { text.as_deref() } else { None }
}

fn name_of(tree: &Tree) -> Option<&str> {
    text_at(tree, "name").filter(|name| !name.is_empty())
}

/// One of a few words; anything else is an error that lists them.
pub(crate) fn word(field: &Field<'_>, known: &[&'static str]) -> Option<&'static str> {
    let text = field.text()?;
    let found = known.iter().find(|k| k.eq_ignore_ascii_case(text)).copied();
    if found.is_none() {
        let hint = nearest(text, known.iter().copied());
        field.error(format!("{text:?} is not supported"), format!("expected {}; {hint}", known.join(", ")));
    }
    found
}

pub(crate) fn read_wait(map: &Map<'_>, names: &[&'static str], setting: &mut Duration) {
    if let Some(wait) = map.get(names).and_then(|f| f.wait(Bare::Seconds)) {
        *setting = wait;
    }
}

pub(crate) fn read_size(map: &Map<'_>, names: &[&'static str], least: i64, setting: &mut usize) {
    let size = map.get(names).and_then(|f| f.number(least..=i64::from(i32::MAX)));
    if let Some(size) = size.and_then(|n| usize::try_from(n).ok()) {
        *setting = size;
    }
}

/// `idleTimeout`: 0 is no limit, as in GOST.
fn read_idle(map: &Map<'_>) -> Option<Duration> {
    map.get(&["idleTimeout"]).and_then(|f| f.duration(Bare::Seconds)).filter(|d| !d.is_zero())
}

fn read_sniff(map: &Map<'_>) -> sniff::Settings {
    let mut settings = sniff::Settings::default();
    read_wait(map, &["sniffing.timeout"], &mut settings.timeout);
    read_wait(map, &["sniffing.clientHelloTimeout"], &mut settings.client_hello_timeout);
    settings
}

fn read_http(map: &Map<'_>, keepalive: &[&'static str], reply: &[&'static str]) -> http::Settings {
    let mut settings = http::Settings::default();
    let flag = |names: &[&'static str]| map.get(names).and_then(|f| f.bool());
    settings.keepalive = flag(keepalive).unwrap_or(settings.keepalive);
    settings.route_header = flag(&["http.routeHeader"]).unwrap_or(false);
    read_wait(map, &["http.headTimeout"], &mut settings.head_timeout);
    read_wait(map, &["http.idleTimeout"], &mut settings.idle_timeout);
    read_wait(map, &["http.stallTimeout"], &mut settings.stall_timeout);
    read_wait(map, reply, &mut settings.reply_timeout);
    read_size(map, &["http.maxHeadSize"], 1024, &mut settings.limits.max_bytes);
    read_size(map, &["http.maxHeadFields"], 16, &mut settings.limits.max_fields);
    settings
}

/// Metadata `tunnel: "host:uuid,host2:uuid2"`.
fn inline_rules(field: &Field<'_>) -> Vec<Rule> {
    let text = field.text().unwrap_or_default();
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let parse = |pair: &str| {
        let (hostname, endpoint) = pair.split_once(':')?;
        route::ingress::parse_endpoint(endpoint)?;
        HostPattern::from_ingress(hostname).ok()?;
        Some(Rule { hostname: hostname.to_owned(), endpoint: endpoint.to_owned() })
    };
    pairs
        .filter_map(|pair| {
            let rule = parse(pair);
            if rule.is_none() {
                field.error(format!("{pair:?} is no rule"), "expected host:UUID,host:UUID");
            }
            rule
        })
        .collect()
}

/// A new time-based ID, for a client that names no tunnel (section 4.1).
pub(crate) fn new_tunnel_id() -> Uuid {
    let mut node = [0; 6];
    fastrand::fill(&mut node);
    Uuid::now_v1(&node)
}

/// Problems that belong to no place in a file.
pub(crate) fn whole_file(sources: &[Source], source: usize, message: String, help: &str) -> Problem {
    Problem::new(sources, Severity::Error, Place { source, ..Place::default() }, "", message, help)
}
