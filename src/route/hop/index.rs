//! Where the nodes of a request are found: by host, then by path and protocol, and the rules bound to the host.
//!
//! Nodes that no request can tell apart (same filter, or same rule and priority) share a [`Pool`], and with it the turns of
//! the strategy.

use super::{NodeSettings, Strategy};
use crate::route::Node;
use crate::route::hosts::{HostMap, HostPattern};
use crate::route::rule::{Rule, Subject};
use crate::route::selector::Selector;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Everything that a hop knows of its nodes' conditions.
pub(super) struct Index {
    hosts: HostMap<AtHost>,
    /// Filters without a host.
    anywhere: Paths,
    rules: Vec<RuleNodes>,
    /// Rules that are bound to no list of hosts: all are tried for every request.
    unbound: Vec<u32>,
    /// Whether any rule is bound to hosts; if not, hosts need not be searched for rules.
    bound: bool,
}

/// What is said about one name.
#[derive(Default)]
struct AtHost {
    exact: Paths,
    within: Paths,
    /// Rules with a pattern about this name; whether they mean the host itself or what is under it, they know themselves.
    rules: Vec<u32>,
}

/// A rule, and the nodes that have it with the same priority.
pub(super) struct RuleNodes {
    rule: Rule,
    pub(super) priority: i64,
    pub(super) pool: Pool,
}

/// Nodes that are equal candidates, backups behind the others, else in the order of the configuration.
pub(super) struct Pool {
    nodes: Box<[Arc<Node>]>,
    /// Their places in the configuration.
    places: Box<[u32]>,
    selector: Selector,
}

impl Pool {
    fn new(mut places: Vec<u32>, nodes: &[Arc<Node>], strategy: Strategy) -> Self {
        places.sort_by_key(|place| (nodes[*place as usize].backup, *place));
        Self {
            nodes: places.iter().map(|place| Arc::clone(&nodes[*place as usize])).collect(),
            places: places.into(),
            selector: Selector::new(strategy),
        }
    }

    pub(super) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }

    pub(super) fn selector(&self) -> &Selector {
        &self.selector
    }
}

impl Index {
    /// `nodes[i]` was made from `settings[i]`.
    pub(super) fn new(settings: &[NodeSettings], nodes: &[Arc<Node>], strategy: Strategy) -> Self {
        let mut filters = Filters { hosts: HostMap::with_capacity(0), anywhere: PathPlaces::new() };
        let mut rules: Vec<(Rule, i64, Vec<u32>)> = Vec::new();
        let mut known: HashMap<(&str, i64), usize> = HashMap::new();
        for (place, node) in (0u32..).zip(settings) {
            let Some(rule) = &node.rule else {
                filters.add(node, place);
                continue;
            };
            let length = || i64::try_from(rule.text().len()).unwrap_or(i64::MAX);
            let priority = if node.priority == 0 { length() } else { node.priority };
            let id = *known.entry((rule.text(), priority)).or_insert_with(|| {
                rules.push((rule.clone(), priority, Vec::new()));
                rules.len() - 1
            });
            rules[id].2.push(place);
        }
        let pool = |places| Pool::new(places, nodes, strategy);
        let mut hosts = filters.hosts.map(|places| AtHost {
            exact: Paths::new(places.exact, pool),
            within: Paths::new(places.within, pool),
            rules: Vec::new(),
        });
        let mut unbound = Vec::new();
        for (id, (rule, ..)) in (0u32..).zip(&rules) {
            match rule.hosts() {
                None => unbound.push(id),
                Some(patterns) => patterns.iter().for_each(|p| hosts.entry(p.name()).rules.push(id)),
            }
        }
        Self {
            hosts,
            anywhere: Paths::new(filters.anywhere, pool),
            bound: unbound.len() < rules.len(),
            unbound,
            rules: rules
                .into_iter()
                .map(|(rule, priority, places)| RuleNodes { rule, priority, pool: pool(places) })
                .collect(),
        }
    }

    pub(super) fn rule(&self, id: u32) -> &RuleNodes {
        &self.rules[id as usize]
    }

    /// The rules that match, in no order. One that lists several patterns for the same host may come twice.
    pub(super) fn rules<'a>(&'a self, subject: &'a Subject<'_>) -> impl Iterator<Item = u32> + 'a {
        let host = if self.bound { subject.request.hostname.as_str() } else { "" };
        let bound = self.hosts.walk(host).flat_map(|(_, at)| at.rules.iter().copied());
        self.unbound.iter().copied().chain(bound).filter(|id| self.rule(*id).rule.matches_subject(subject))
    }

    /// The nodes with the most specific filter that matches.
    pub(super) fn filtered(&self, subject: &Subject<'_>) -> Option<&Pool> {
        let host = subject.request.hostname.as_str();
        self.hosts
            .walk(host)
            .find_map(|(name, at)| {
                let exact = if name == host { at.exact.find(subject) } else { None };
                exact.or_else(|| at.within.find(subject))
            })
            .or_else(|| self.anywhere.find(subject))
    }
}

/// Places of nodes by path, then protocol (in lower case).
type PathPlaces = BTreeMap<Box<str>, BTreeMap<Box<str>, Vec<u32>>>;

/// Filters while they are collected.
struct Filters {
    hosts: HostMap<PlacesAtHost>,
    anywhere: PathPlaces,
}

#[derive(Default)]
struct PlacesAtHost {
    exact: PathPlaces,
    within: PathPlaces,
}

impl Filters {
    fn add(&mut self, node: &NodeSettings, place: u32) {
        let paths = match HostPattern::from_filter(&node.host) {
            // Checked by whoever read the configuration; a node must not turn into the fallback because of a typing error.
            Err(_) => return,
            Ok(None) => &mut self.anywhere,
            Ok(Some(HostPattern::Exact(name))) => &mut self.hosts.entry(&name).exact,
            Ok(Some(pattern)) => &mut self.hosts.entry(pattern.name()).within,
        };
        let protocols = paths.entry(node.path.as_str().into()).or_default();
        protocols.entry(node.protocol.trim().to_ascii_lowercase().into()).or_default().push(place);
    }
}

/// The filters of one host, for finding the longest path that a request's path starts with.
///
/// Sorted by text: every path between a prefix of the request's path and that path itself starts with the prefix too. So the
/// longest prefix is the nearest path before the request's, or one that this in turn starts with.
#[derive(Default)]
struct Paths(Box<[PathEntry]>);

struct PathEntry {
    path: Box<str>,
    /// The longest other path that `path` starts with.
    parent: Option<usize>,
    /// By protocol, the empty one (any) last.
    pools: Box<[(Box<str>, Pool)]>,
}

impl Paths {
    fn new(places: PathPlaces, pool: impl Fn(Vec<u32>) -> Pool) -> Self {
        let mut entries: Vec<PathEntry> = Vec::with_capacity(places.len());
        for (path, protocols) in places {
            let mut parent = entries.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !path.starts_with(&*entries[*at].path)) {
                parent = entries[at].parent;
            }
            let pools =
                protocols.into_iter().rev().map(|(protocol, places)| (protocol, pool(places))).collect();
            entries.push(PathEntry { path, parent, pools });
        }
        Self(entries.into())
    }

    fn find(&self, subject: &Subject<'_>) -> Option<&Pool> {
        // What is not HTTP has no path, and meets the filters without one.
        let path = subject.path().unwrap_or_default();
        let protocol = subject.request.protocol.as_str();
        let mut next = self.0.partition_point(|entry| entry.path.as_bytes() <= path).checked_sub(1);
        while let Some(at) = next {
            let entry = &self.0[at];
            let pool = entry.pools.iter().find(|(wanted, _)| wanted.is_empty() || **wanted == *protocol);
            if let Some((_, pool)) = pool.filter(|_| path.starts_with(entry.path.as_bytes())) {
                return Some(pool);
            }
            next = entry.parent;
        }
        None
    }
}
