//! `forwarder` of a service: the targets, and how to choose among them.

use super::hop::{Choice, Hops};
use super::reader::{Field, Map};
use super::settings::word;
use super::{Plugin, node, plugins, termination};
use crate::forward;
use crate::route::hop::{HopSettings, NodeSettings};
use crate::route::hosts::HostPattern;
use crate::route::rule::{Known, Rule};

/// What a hop that a forwarder names may have besides nodes and selector.
const LATER_HOP: &[&str] = &["reload", "metadata"];
const NEEDED_HOP: &[&str] =
    &["file", "redis", "http", "bypass", "bypasses", "resolver", "hosts", "interface", "sockopts"];
/// A node of a named hop may have what only chains use.
const LATER_NODE: &[&str] = &["probe", "connector", "dialer"];
const NEEDED_NODE: &[&str] = &["bypass", "bypasses", "resolver", "hosts", "interface", "sockopts", "netns"];

/// A forwarder, read.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) hop: HopSettings,
    /// How each is treated.
    pub(crate) treatments: Vec<forward::NodeSettings>,
    /// Who is asked which of them.
    pub(crate) plugin: Option<Plugin>,
}

/// How a forwarder is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'t> {
    /// Whether plugins can be taken from a folder by name.
    pub(crate) folder: bool,
    /// Whether its nodes are sent datagrams.
    pub(crate) udp: bool,
    /// Names for which TLS ends before it comes to a node.
    pub(crate) ended: &'t [Box<str>],
    /// By what nodes can be told apart.
    pub(crate) known: Known,
    /// Why that is not more, for messages, and what to do.
    pub(crate) because: (&'static str, &'static str),
}

impl Terms<'_> {
    /// Why no requests are seen.
    pub(crate) fn no_requests(&self) -> (&'static str, &'static str) {
        match self.udp {
            true => ("with datagrams", "expected a handler tcp or rtcp for this, or remove it"),
            false => self.because,
        }
    }
}

pub(crate) fn read(field: &Field<'_>, hops: &Hops<'_>, terms: Terms<'_>) -> Option<Nodes> {
    let map = field.map()?;
    let hop = map.filled(&["hop"]);
    let name = map.filled(&["name"]);
    let named = match (&hop, &name) {
        (Some(hop), _) => {
            let name = hop.text()?;
            let found = hops.find(name);
            if found.is_none() {
                hop.error(format!("there is no hop {name:?}"), hops.nearest(name));
            }
            Some(found?)
        }
        // The older spelling; in files of today it is often just a name.
        (None, Some(name)) => hops.find(name.text()?),
        (None, None) => None,
    };
    let settings = match named {
        Some(hop) => {
            map.without_effect(&["nodes", "selector", "plugin"], "beside a hop, which has its own");
            named_hop(hop, terms)
        }
        None => {
            let no_hop = || name.is_some_and(|name| map.get(&["nodes"]).is_none() && no_hop(&name, hops));
            nodes(&map, terms, no_hop)
        }
    };
    map.finish(&[], &["hopGroup"]);
    settings
}

fn no_hop(name: &Field<'_>, hops: &Hops<'_>) -> bool {
    let text = name.text().unwrap_or_default();
    name.error(format!("no nodes, and there is no hop {text:?}"), hops.nearest(text));
    true
}

fn named_hop(field: &Field<'_>, terms: Terms<'_>) -> Option<Nodes> {
    let map = field.map()?;
    map.get(&["name"]);
    let settings = nodes(&map, terms, || false);
    map.finish(LATER_HOP, NEEDED_HOP);
    settings
}

/// `nodes`, `selector` and `plugin` of a forwarder or a hop; `explained` says what is wrong where there are no nodes, if it can.
fn nodes(map: &Map<'_>, terms: Terms<'_>, explained: impl FnOnce() -> bool) -> Option<Nodes> {
    let plugin = map.filled(&["plugin"]).and_then(|f| plugins::binding(&f, terms.folder, &["wasm"]));
    let choice = Choice::read(map);
    let field = map.get(&["nodes"]);
    let list = field.as_ref().map(Field::list).unwrap_or_default();
    let other = field.is_some_and(|field| !field.is_list() && !field.is_blank());
    if list.is_empty() && !other && !explained() {
        let help = "expected nodes: [{ name: node-0, addr: 127.0.0.1:8080 }]";
        map.error("no nodes".to_owned(), help);
    }
    let nodes: Vec<_> = list.iter().enumerate().map(|(i, f)| target(i, f, &choice, terms)).collect();
    let (nodes, treatments) = nodes.into_iter().collect::<Option<(Vec<_>, Vec<_>)>>()?;
    Some(Nodes { hop: HopSettings { nodes, strategy: choice.strategy }, treatments, plugin })
}

fn target(
    index: usize,
    field: &Field<'_>,
    choice: &Choice,
    terms: Terms<'_>,
) -> Option<(NodeSettings, forward::NodeSettings)> {
    let map = field.map()?;
    let name = map.text(&["name"]).map_or_else(|| format!("node-{index}"), str::to_owned);
    let (mut node, proxy_protocol) = choice.node(name, map.section("metadata"));
    node.addr = map.filled(&["addr"]).and_then(|f| f.address(Some(0)));
    if let Some(filter) = map.filled(&["filter"]).and_then(|f| f.map()) {
        read_filter(&filter, &mut node, terms);
        filter.finish(&[], &[]);
        map.without_effect(&["host", "protocol", "path"], "beside filter: write it there");
    } else {
        read_filter(&map, &mut node, terms);
    }
    if let Some(matcher) = map.filled(&["matcher"]).and_then(|f| f.map()) {
        read_matcher(matcher, &mut node, terms);
    }
    if let Some(network) = map.filled(&["network"]) {
        word(&network, if terms.udp { &["udp"] } else { &["tcp"] });
    }
    let treatment = forward::NodeSettings { proxy_protocol, ..node::read(&map, terms) };
    if terms.udp
        && let Some(tls) = map.filled(&["tls"])
    {
        tls.error("tls at a node that is sent datagrams".to_owned(), "remove it: QUIC brings its own");
    }
    map.finish(LATER_NODE, NEEDED_NODE);
    termination::warn_of_node(field, &node, terms.ended);
    Some((node, treatment))
}

/// Warns of a condition that nobody meets.
fn warn_of_nobody(field: &Field<'_>, what: &str, (because, help): (&str, &str)) {
    field.warn(format!("this node gets nothing: {what} {because}"), help);
}

fn read_filter(map: &Map<'_>, node: &mut NodeSettings, terms: Terms<'_>) {
    let known = terms.known;
    if let Some(field) = map.filled(&["host"])
        && let Some(host) = field.text()
    {
        host.clone_into(&mut node.host);
        match HostPattern::from_filter(host) {
            Ok(Some(_)) if !known.host => warn_of_nobody(&field, "no host is known", terms.because),
            Ok(_) => {}
            Err(error) => {
                let help = "expected example.com, .example.com or *.example.com, without a port";
                field.error(format!("{host:?} is no host: {error}"), help);
            }
        }
    }
    if let Some(field) = map.filled(&["protocol"]) {
        node.protocol = word(&field, &["http", "tls", "ssh", "quic", "redis"]).unwrap_or_default().to_owned();
        if node.protocol == "redis" {
            let message = "redis is not recognised yet: this node gets no traffic".to_owned();
            field.warn(message, "leave protocol out, and the node is one for what is not recognised");
        } else if !known.protocol && !node.protocol.is_empty() {
            warn_of_nobody(&field, "no protocol is known", terms.because);
        }
    }
    if let Some(field) = map.filled(&["path"])
        && let Some(path) = field.text()
    {
        path.clone_into(&mut node.path);
        if !known.http {
            warn_of_nobody(&field, "no path is known", terms.no_requests());
        }
    }
}

fn read_matcher(map: Map<'_>, node: &mut NodeSettings, terms: Terms<'_>) {
    let rule = map.filled(&["rule"]);
    node.rule = rule.as_ref().and_then(parse_rule);
    if let (Some(field), Some(rule)) = (&rule, &node.rule)
        && !rule.can_match(terms.known)
    {
        let because = if terms.known.protocol { terms.no_requests() } else { terms.because };
        warn_of_nobody(field, "its rule asks for what is not known", because);
    }
    let priority = map.filled(&["priority"]);
    node.priority = priority.as_ref().and_then(|f| f.number(i64::MIN..=i64::MAX)).unwrap_or(0);
    if let (None, Some(priority)) = (&rule, &priority) {
        priority.warn("a priority without a rule has no effect".to_owned(), "expected rule: beside it");
    }
    map.finish(&[], &["bodySize"]);
}

fn parse_rule(field: &Field<'_>) -> Option<Rule> {
    match Rule::parse(field.text()?) {
        Ok(rule) => Some(rule),
        Err(error) => {
            let message = format!("{error} (at character {} of the rule)", error.offset() + 1);
            field.error(message, "expected for example Host(`example.com`) && PathPrefix(`/api`)");
            None
        }
    }
}
