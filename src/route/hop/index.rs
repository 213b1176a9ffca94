//! Where the nodes of a request are found: by host, then by path and protocol, and the rules bound to the host and the path.
//!
//! Nodes that no request can tell apart (same filter, or same rule and priority) share a [`Pool`], and with it the turns of
//! the strategy.

use super::{NodeSettings, Strategy};
use crate::route::Node;
use crate::route::hosts::{HostMap, HostPattern};
use crate::route::paths::PathMap;
use crate::route::rule::{Rule, Subject};
use crate::route::selector::Selector;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Everything that a hop knows of its nodes' conditions.
pub(super) struct Index {
    hosts: HostMap<AtHost>,
    /// Filters without a host.
    anywhere: Filters,
    rules: Vec<RuleNodes>,
    /// Rules that are bound to no host.
    unbound: Rules,
    /// Whether any rule is bound to hosts; if not, hosts need not be searched for rules.
    bound: bool,
}

/// What is said about one name.
struct AtHost {
    exact: Filters,
    within: Filters,
    rules: Rules,
}

/// The filters of one host by path, then protocol, the empty one (any) last.
type Filters = PathMap<Box<[(Box<str>, Pool)]>>;

/// The rules bound to one name, or to none, by the path that they are bound to; those bound to no path under the empty one.
/// Whether they mean the host itself or what is under it, this path or what begins with it, they know themselves.
type Rules = PathMap<Box<[u32]>>;

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
        let mut collected = Collected::default();
        let mut rules: Vec<(Rule, i64, Vec<u32>)> = Vec::new();
        let mut known: HashMap<(&str, i64), usize> = HashMap::new();
        for (place, node) in (0u32..).zip(settings) {
            let Some(rule) = &node.rule else {
                collected.add_filter(node, place);
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
        (0u32..).zip(&rules).for_each(|(id, (rule, ..))| collected.add_rule(rule, id));
        let pool = |places| Pool::new(places, nodes, strategy);
        Self {
            hosts: collected.hosts.map(|at| AtHost {
                exact: filters(at.exact, pool),
                within: filters(at.within, pool),
                rules: self::rules(at.rules),
            }),
            anywhere: filters(collected.anywhere, pool),
            bound: collected.bound,
            unbound: self::rules(collected.unbound),
            rules: rules
                .into_iter()
                .map(|(rule, priority, places)| RuleNodes { rule, priority, pool: pool(places) })
                .collect(),
        }
    }

    pub(super) fn rule(&self, id: u32) -> &RuleNodes {
        &self.rules[id as usize]
    }

    /// The rules that match, in no order. One that names the host or the path in several ways may come twice.
    pub(super) fn rules<'a>(&'a self, subject: &'a Subject<'_>) -> impl Iterator<Item = u32> + 'a {
        self.possible_rules(subject).filter(|id| self.rule(*id).rule.matches_subject(subject))
    }

    /// The rules that what they are bound to does not exclude: these alone are evaluated.
    pub(super) fn possible_rules<'a>(&'a self, subject: &'a Subject<'_>) -> impl Iterator<Item = u32> + 'a {
        let host = if self.bound { subject.request.hostname.as_str() } else { "" };
        let bound = self.hosts.walk(host).map(|(_, at)| &at.rules);
        let path = subject.path().unwrap_or_default();
        std::iter::once(&self.unbound).chain(bound).flat_map(move |rules| rules.walk(path)).flatten().copied()
    }

    /// The nodes with the most specific filter that matches.
    pub(super) fn filtered(&self, subject: &Subject<'_>) -> Option<&Pool> {
        let host = subject.request.hostname.as_str();
        self.hosts
            .walk(host)
            .find_map(|(name, at)| {
                let exact = if name == host { most_specific(&at.exact, subject) } else { None };
                exact.or_else(|| most_specific(&at.within, subject))
            })
            .or_else(|| most_specific(&self.anywhere, subject))
    }
}

/// The nodes with the longest path that the request's begins with, among these those that name its protocol.
fn most_specific<'a>(filters: &'a Filters, subject: &Subject<'_>) -> Option<&'a Pool> {
    let protocol = subject.request.protocol.as_str();
    let fits = |wanted: &str| wanted.is_empty() || wanted == protocol;
    // What is not HTTP has no path, and meets the filters without one.
    let path = subject.path().unwrap_or_default();
    filters.walk(path).find_map(|pools| pools.iter().find(|(wanted, _)| fits(wanted)).map(|(_, pool)| pool))
}

/// What an index holds, while it is collected.
#[derive(Default)]
struct Collected {
    hosts: HostMap<CollectedAtHost>,
    anywhere: FilterPlaces,
    unbound: RuleIds,
    bound: bool,
}

#[derive(Default)]
struct CollectedAtHost {
    exact: FilterPlaces,
    within: FilterPlaces,
    rules: RuleIds,
}

/// Places of nodes by path, then protocol (in lower case).
type FilterPlaces = BTreeMap<Box<[u8]>, BTreeMap<Box<str>, Vec<u32>>>;

/// Rules by the path that they are bound to.
type RuleIds = BTreeMap<Box<[u8]>, Vec<u32>>;

impl Collected {
    fn add_filter(&mut self, node: &NodeSettings, place: u32) {
        let paths = match HostPattern::from_filter(&node.host) {
            // Checked by whoever read the configuration; a node must not turn into the fallback because of a typing error.
            Err(_) => return,
            Ok(None) => &mut self.anywhere,
            Ok(Some(HostPattern::Exact(name))) => &mut self.hosts.entry(name.as_str()).exact,
            Ok(Some(pattern)) => &mut self.hosts.entry(pattern.name()).within,
        };
        let protocols = paths.entry(node.path.as_bytes().into()).or_default();
        protocols.entry(node.protocol.trim().to_ascii_lowercase().into()).or_default().push(place);
    }

    fn add_rule(&mut self, rule: &Rule, id: u32) {
        for bound in rule.bounds() {
            self.bound |= !bound.host.is_empty();
            let paths = match bound.host {
                "" => &mut self.unbound,
                name => &mut self.hosts.entry(name).rules,
            };
            paths.entry(bound.path.into()).or_default().push(id);
        }
    }
}

fn filters(places: FilterPlaces, pool: impl Fn(Vec<u32>) -> Pool) -> Filters {
    let by_protocol = |protocols: BTreeMap<_, _>| {
        protocols.into_iter().rev().map(|(protocol, places)| (protocol, pool(places))).collect()
    };
    PathMap::from_sorted(places.into_iter().map(|(path, protocols)| (path, by_protocol(protocols))))
}

fn rules(ids: RuleIds) -> Rules {
    PathMap::from_sorted(ids.into_iter().map(|(path, ids)| (path, ids.into())))
}
