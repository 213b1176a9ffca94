//! A choice point: which nodes match a request, and which of them is tried next.
//!
//! A node with a rule matches by its rule alone; its priority is the configured one or the length of the rule's text.
//! A node without has priority 0 and matches by `filter.host`, `filter.path` and `filter.protocol`. Of those without a rule
//! only the most specific match: the exact host before the longest suffix before none, then the longest path. So a node
//! without host is the fallback, not (as in the reference) one more candidate. Nodes of higher priority are used up before
//! lower ones; dead and backup nodes wait until no other is left.

use super::hosts::{HostMap, HostPattern};
use super::rule::Rule;
use super::{Forwarder, Node, Protocol, Request, RouteError, Verdict};
use crate::addr::{HostPort, InvalidAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `forwarder` or a hop, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct HopSettings {
    /// `nodes`.
    pub nodes: Vec<NodeSettings>,
    /// `selector.strategy`.
    pub strategy: Strategy,
}

/// `selector.strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// `round`, `rr`.
    #[default]
    Round,
    /// `random`, `rand`: by weight.
    Random,
    /// `fifo`, `ha`: the first live node.
    Fifo,
    /// `hash`: CRC-32 of the client address.
    Hash,
}

/// One node, as configured; selector defaults already applied.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// `name`.
    pub name: String,
    /// `addr`; `None`: forward to the request's own host.
    pub addr: Option<HostPort>,
    /// `filter.host` or `host`, as written; empty: any.
    pub host: String,
    /// `filter.protocol` or `protocol`: `http`, `tls`, `ssh`; empty: any.
    pub protocol: String,
    /// `filter.path` or `path`; empty: any.
    pub path: String,
    /// `matcher.rule`, compiled.
    pub rule: Option<Rule>,
    /// `matcher.priority`; 0: the length of the rule's text.
    pub priority: i64,
    /// `metadata.weight`, at least 1.
    pub weight: u32,
    /// `metadata.backup`.
    pub backup: bool,
    /// `maxFails`, at least 1.
    pub max_fails: u32,
    /// `failTimeout`.
    pub fail_timeout: Duration,
}

/// Failure marks of a node; times are measured from when the marks were made.
#[derive(Debug)]
pub struct Health {
    epoch: Instant,
    fails: AtomicU32,
    /// Milliseconds from `epoch` to the last failure.
    last: AtomicU64,
}

impl Health {
    /// No failure yet.
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, fails: AtomicU32::new(0), last: AtomicU64::new(0) }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// It could not be reached.
    pub fn failed(&self, now: Instant) {
        self.last.store(self.millis(now), Ordering::Relaxed);
        // A count that wrapped round to 0 would bring a dead node back.
        let count = |fails: u32| Some(fails.saturating_add(1));
        _ = self.fails.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// It answered.
    pub fn succeeded(&self) {
        if self.fails.load(Ordering::Relaxed) != 0 {
            self.fails.store(0, Ordering::Relaxed);
        }
    }

    fn is_dead(&self, max_fails: u32, fail_timeout: Duration, now: Instant) -> bool {
        self.fails.load(Ordering::Relaxed) >= max_fails
            && self.millis(now).saturating_sub(self.last.load(Ordering::Relaxed))
                < fail_timeout.as_millis() as u64
    }
}

impl Node {
    /// Whether it is passed over.
    pub fn is_dead(&self, now: Instant) -> bool {
        self.health.is_dead(self.max_fails, self.fail_timeout, now)
    }

    /// Where to dial for this request: what the node leaves open is taken from the request.
    pub fn target(&self, request: &Request<'_>, port: u16) -> Option<HostPort> {
        let mut target = self.addr.clone().unwrap_or_else(|| HostPort::new(request.hostname.clone(), port));
        if target.host.is_empty() {
            target.host = request.hostname.clone();
        }
        if target.port == 0 {
            target.port = match request.protocol {
                Protocol::Tls => 443,
                Protocol::Ssh => 22,
                Protocol::Http1 | Protocol::Http2 => 80,
                Protocol::Unknown => port,
            };
        }
        (!target.host.is_empty() && target.port != 0).then_some(target)
    }
}

/// What decides whether a node matches, beyond its host.
#[derive(Debug)]
struct Matcher {
    protocol: String,
    path: String,
    rule: Option<Rule>,
    priority: i64,
}

impl Matcher {
    fn matches(&self, request: &Request<'_>) -> bool {
        if let Some(rule) = &self.rule {
            return rule.matches(request);
        }
        let protocol = self.protocol.is_empty() || self.protocol == request.protocol.as_str();
        let path = || self.path.is_empty() || request.http.is_some_and(|h| h.path().starts_with(&self.path));
        protocol && path()
    }
}

/// Nodes and strategy, compiled.
#[derive(Debug)]
pub struct Hop {
    nodes: Vec<Arc<Node>>,
    matchers: Vec<Matcher>,
    /// Nodes without a rule, by host.
    by_host: HostMap<Vec<usize>>,
    /// Nodes without rule and host.
    fallback: Vec<usize>,
    /// Nodes whose rule can only match certain hosts.
    rules_by_host: HostMap<Vec<usize>>,
    /// Nodes with any other rule.
    rules: Vec<usize>,
    forwarder: Arc<dyn Forwarder>,
}

impl Hop {
    /// Compiles nodes; fails with the index of a node whose host is none.
    pub fn new(settings: &HopSettings, now: Instant) -> Result<Self, (usize, InvalidAddr)> {
        let mut hop = Self {
            nodes: Vec::new(),
            matchers: Vec::new(),
            by_host: HostMap::default(),
            fallback: Vec::new(),
            rules_by_host: HostMap::default(),
            rules: Vec::new(),
            forwarder: Arc::new(Selector { strategy: settings.strategy }),
        };
        for (index, node) in settings.nodes.iter().enumerate() {
            hop.index(index, node).map_err(|error| (index, error))?;
            hop.nodes.push(Arc::new(Node {
                name: node.name.as_str().into(),
                addr: node.addr.clone(),
                weight: node.weight,
                backup: node.backup,
                max_fails: node.max_fails,
                fail_timeout: node.fail_timeout,
                health: Health::new(now),
                turn: AtomicUsize::new(0),
            }));
            let rule_len =
                || node.rule.as_ref().map_or(0, |rule| i64::try_from(rule.text().len()).unwrap_or(i64::MAX));
            hop.matchers.push(Matcher {
                protocol: node.protocol.clone(),
                path: node.path.clone(),
                rule: node.rule.clone(),
                priority: if node.rule.is_some() && node.priority != 0 { node.priority } else { rule_len() },
            });
        }
        Ok(hop)
    }

    fn index(&mut self, index: usize, node: &NodeSettings) -> Result<(), InvalidAddr> {
        match &node.rule {
            Some(rule) => match rule.hosts() {
                Some(hosts) => hosts.into_iter().for_each(|host| self.rules_by_host.entry(host).push(index)),
                None => self.rules.push(index),
            },
            None if node.host.is_empty() => self.fallback.push(index),
            None => self.by_host.entry(filter_pattern(&node.host)?).push(index),
        }
        Ok(())
    }

    /// Whether no node at all matches the request.
    pub fn matches_none(&self, request: &Request<'_>) -> bool {
        self.candidates(request).is_empty()
    }

    /// The next node to try, not one of `tried` (which grows by it); `None` when there is none left.
    pub fn choose(
        &self,
        request: &Request<'_>,
        tried: &mut Vec<usize>,
        now: Instant,
    ) -> Result<Verdict<Arc<Node>>, RouteError> {
        let mut left = self.candidates(request);
        left.retain(|index| !tried.contains(index));
        let best = |usable: &dyn Fn(&Node) -> bool| {
            let tier =
                left.iter().filter(|&&i| usable(&self.nodes[i])).map(|&i| self.matchers[i].priority).max()?;
            let in_tier = |&&i: &&usize| self.matchers[i].priority == tier && usable(&self.nodes[i]);
            Some(left.iter().filter(in_tier).copied().collect::<Vec<_>>())
        };
        let choice = best(&|node| !node.backup && !node.is_dead(now))
            .or_else(|| best(&|node| !node.is_dead(now)))
            .or_else(|| best(&|node| !node.backup))
            .or_else(|| best(&|_| true));
        let Some(choice) = choice else { return Ok(Verdict::Pass) };
        let nodes: Vec<_> = choice.iter().map(|&i| Arc::clone(&self.nodes[i])).collect();
        Ok(match self.forwarder.select(request, &nodes)? {
            Verdict::Use(at) => {
                let index = *choice.get(at).ok_or_else(|| RouteError(format!("no candidate {at}")))?;
                tried.push(index);
                Verdict::Use(Arc::clone(&self.nodes[index]))
            }
            Verdict::Pass => Verdict::Pass,
            Verdict::Refuse(refusal) => Verdict::Refuse(refusal),
        })
    }

    /// Every node that may serve the request, in the order of the configuration.
    fn candidates(&self, request: &Request<'_>) -> Vec<usize> {
        let matching = |i: &usize| self.matchers[*i].matches(request);
        let by_host = self.by_host.matches(&request.hostname).find(|nodes| nodes.iter().any(&matching));
        let filtered = by_host.unwrap_or(&self.fallback);
        let mut found: Vec<usize> = filtered.iter().copied().filter(|i| matching(i)).collect();
        let longest = found.iter().map(|&i| self.matchers[i].path.len()).max();
        found.retain(|&i| Some(self.matchers[i].path.len()) == longest);
        let by_rule = self.rules_by_host.matches(&request.hostname).flatten().chain(&self.rules);
        found.extend(by_rule.copied().filter(|i| matching(i)));
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// `filter.host`: `*x`, `.x` and `*.x` are the same (the wire specification, section 6.2).
pub(crate) fn filter_pattern(text: &str) -> Result<HostPattern, InvalidAddr> {
    match text.strip_prefix('*') {
        Some(rest) => HostPattern::parse(&format!(".{}", rest.strip_prefix('.').unwrap_or(rest))),
        None => HostPattern::parse(text),
    }
}

/// The built-in forwarder.
#[derive(Debug)]
struct Selector {
    strategy: Strategy,
}

impl Forwarder for Selector {
    fn select(&self, request: &Request<'_>, candidates: &[Arc<Node>]) -> Result<Verdict<usize>, RouteError> {
        let Some(first) = candidates.first().filter(|_| candidates.len() > 1) else {
            return Ok(if candidates.is_empty() { Verdict::Pass } else { Verdict::Use(0) });
        };
        Ok(Verdict::Use(match self.strategy {
            // Each set of candidates has a counter of its own, that of its first node: hosts do not disturb each other's turns.
            Strategy::Round => first.turn.fetch_add(1, Ordering::Relaxed) % candidates.len(),
            Strategy::Fifo => 0,
            Strategy::Hash => {
                let client = request.client.ip().to_string();
                crc32fast::hash(client.as_bytes()) as usize % candidates.len()
            }
            Strategy::Random => {
                let mut point =
                    fastrand::u64(0..candidates.iter().map(|n| u64::from(n.weight)).sum::<u64>().max(1));
                let hit = candidates.iter().position(|node| {
                    let hit = point < u64::from(node.weight);
                    point = point.saturating_sub(u64::from(node.weight));
                    hit
                });
                hit.unwrap_or(0)
            }
        }))
    }
}

#[cfg(test)]
mod tests;
