//! `forwarder` of a service: the targets, and how to choose among them.

use super::reader::{Bare, Field, Map};
use super::settings::word;
use super::{Plugin, plugins};
use crate::route::hop::{HopSettings, NodeSettings, Strategy};
use crate::route::hosts::HostPattern;
use crate::route::rule::Rule;
use std::time::Duration;

const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

/// The nodes, and the plugin that is asked which of them. `folder`: whether plugins can be taken from a folder by name.
pub(crate) fn read(field: &Field<'_>, folder: bool) -> Option<(HopSettings, Option<Plugin>)> {
    let map = field.map()?;
    let mut defaults = Defaults { strategy: Strategy::Round, max_fails: 1, fail_timeout: FAIL_TIMEOUT };
    if let Some(selector) = map.get(&["selector"]).and_then(|f| f.map()) {
        defaults.read(selector);
    }
    let nodes = map.get(&["nodes"]);
    let list = nodes.as_ref().map(Field::list).unwrap_or_default();
    let plugin = map.get(&["plugin"]).and_then(|f| plugins::binding(&f, folder));
    map.finish(&[], &["name", "hop", "hopGroup"]);
    if list.is_empty() {
        field.error(
            "forwarder without nodes".to_owned(),
            "expected nodes: [{ name: node-0, addr: 127.0.0.1:8080 }]",
        );
    }
    let nodes: Vec<_> = list.iter().enumerate().map(|(i, f)| target(i, f, &defaults)).collect();
    let nodes = nodes.into_iter().collect::<Option<Vec<_>>>()?;
    Some((HopSettings { nodes, strategy: defaults.strategy }, plugin))
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
        labels: Vec::new(),
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
        if let Some(labels) = metadata.get(&["labels"]).and_then(|f| f.map()) {
            node.labels = labels.into_texts().collect();
        }
        metadata.finish(&[], &["proxyProtocol"]);
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
