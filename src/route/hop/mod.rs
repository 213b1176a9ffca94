//! A hop: nodes, compiled once, and the choice between them for one request.
//!
//! Which nodes may serve a request (in [`index`]):
//! - A node with a `matcher.rule` is meant when the rule matches; its filter is ignored. Its priority is `matcher.priority`, or
//!   the length of the rule's text when that is 0.
//! - All other nodes have priority 0 and a filter. Only the most specific of those that match count: first by host (exact, then
//!   the longest suffix, then none), among these by the longest path, among these those that name the protocol. So a node
//!   without `host` is the fallback of those with one (GOST lets it share their traffic), and a request whose host is not
//!   known meets only nodes without `host`.
//!
//! In which order they are used:
//! - By tiers of equal priority, the highest first, those that consist of backups behind all others; a later tier is asked when
//!   nothing of the earlier ones is alive. But a node that is no backup and stands alone in the highest tier, above 0, is the only
//!   choice: where one rule speaks for a request, its failure is not papered over with another site.
//! - In a tier: the live nodes that are no backups, or else its live backups; among these the strategy decides.
//! - When all are dead, the one whose last failure is longest ago: trying is better than certain failure.
//!
//! Dialling, marking failures and asking a plugin first are the caller's; so is the clock, as a time since any fixed moment.

mod index;
mod node;
#[cfg(test)]
mod tests;

pub use super::selector::Strategy;
pub use node::{Active, Health, Tried};

use super::rule::{Rule, Subject};
use super::selector::Selector;
use super::{Choice, Forwarder, Node, Request, RouteError, Verdict};
use crate::addr::HostPort;
use index::{Index, Pool};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

/// Turn counters for tiers put together from several rules. Which rules match together is not known beforehand, and one counter
/// for every combination could be made to grow without end; two combinations that share a counter lose only some evenness.
const JOINT_SELECTORS: usize = 64;

/// `forwarder` or a hop, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct HopSettings {
    /// `nodes`.
    pub nodes: Vec<NodeSettings>,
    /// `selector.strategy`.
    pub strategy: Strategy,
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
    /// `metadata.labels`.
    pub labels: Vec<(Box<str>, Box<str>)>,
}

impl NodeSettings {
    /// A node that any request may use, at the request's own host, and that rests for `fail_timeout` after one failure.
    pub fn new(name: String, fail_timeout: Duration) -> Self {
        Self {
            name,
            addr: None,
            host: String::new(),
            protocol: String::new(),
            path: String::new(),
            rule: None,
            priority: 0,
            weight: 1,
            backup: false,
            max_fails: 1,
            fail_timeout,
            labels: Vec::new(),
        }
    }
}

/// A compiled hop. A look-up costs the labels of the host and the length of the path, and the evaluation of the rules bound to these;
/// how many nodes and rules there are beside them does not matter. Rules that are bound to nothing are evaluated every time.
pub struct Hop {
    nodes: Vec<Arc<Node>>,
    index: Index,
    joint: Vec<Selector>,
}

impl Hop {
    /// Compiles the nodes. A node whose `host` is no host pattern (see [`super::hosts::HostPattern::from_filter`]) never matches.
    pub fn new(settings: HopSettings) -> Self {
        let HopSettings { nodes: settings, strategy } = settings;
        let node = |(place, node)| Arc::new(Node::new(node, place));
        let nodes: Vec<Arc<Node>> = settings.iter().enumerate().map(node).collect();
        let index = Index::new(&settings, &nodes, strategy);
        let joint = (0..JOINT_SELECTORS).map(|_| Selector::new(strategy)).collect();
        Self { nodes, index, joint }
    }

    /// All nodes, in the order of the configuration.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The nodes that may serve `request`.
    pub fn candidates(&self, request: &Request<'_>) -> Candidates<'_> {
        let subject = Subject::new(request);
        let mut rules = self.index.rules(&subject);
        let mut tiers = Tiers::default();
        match (rules.next(), rules.next()) {
            (None, _) => {}
            (Some(only), None) => {
                let rule = self.index.rule(only);
                tiers.add(Tier::of(&rule.pool, rule.priority));
            }
            (Some(first), Some(second)) => {
                let mut matched = vec![first, second];
                matched.extend(rules);
                self.add_rule_tiers(matched, &mut tiers);
            }
        }
        if !tiers.complete
            && let Some(pool) = self.index.filtered(&subject)
        {
            tiers.add(Tier::of(pool, 0));
        }
        Candidates { tiers }
    }

    /// Rules that matched, to tiers of equal priority.
    fn add_rule_tiers<'a>(&'a self, mut matched: Vec<u32>, tiers: &mut Tiers<'a>) {
        matched.sort_unstable_by_key(|id| (Reverse(self.index.rule(*id).priority), *id));
        matched.dedup();
        for ids in matched.chunk_by(|a, b| self.index.rule(*a).priority == self.index.rule(*b).priority) {
            let priority = self.index.rule(ids[0]).priority;
            let tier = match ids {
                [only] => Tier::of(&self.index.rule(*only).pool, priority),
                _ => self.joint_tier(ids, priority),
            };
            tiers.add(tier);
        }
    }

    fn joint_tier(&self, ids: &[u32], priority: i64) -> Tier<'_> {
        let mut places: Vec<u32> =
            ids.iter().flat_map(|id| self.index.rule(*id).pool.places()).copied().collect();
        let node = |place: &u32| &self.nodes[*place as usize];
        places.sort_unstable_by_key(|place| (node(place).backup, *place));
        let nodes: Vec<Arc<Node>> = places.iter().map(|place| Arc::clone(node(place))).collect();
        let mut hash = crc32fast::Hasher::new();
        ids.iter().for_each(|id| hash.update(&id.to_le_bytes()));
        let selector = &self.joint[hash.finalize() as usize % self.joint.len()];
        Tier { primaries: primaries(&nodes), nodes: nodes.into(), selector, priority }
    }

    /// Chooses a node that was not tried yet for this request, with the hop's own strategy, and counts it as tried. `now` is the
    /// time since any moment that stays the same for this hop.
    pub fn choose(&self, request: &Request<'_>, tried: &mut Tried, now: Duration) -> Option<Arc<Node>> {
        let candidates = self.candidates(request);
        let eligible = candidates.eligible(tried, now)?;
        let index = eligible.selector.index(request, &eligible.nodes);
        eligible.nodes.get(index).map(|node| tried.add(node))
    }

    /// Like [`Hop::choose`], asking `forwarder` first and the hop's own strategy where it has no opinion; an address that was tried
    /// already is none. `Pass`: no node is left.
    pub async fn choose_with(
        &self,
        forwarder: &dyn Forwarder,
        request: &Request<'_>,
        tried: &mut Tried,
        now: Duration,
    ) -> Result<Verdict<Arc<Node>>, RouteError> {
        let candidates = self.candidates(request);
        let Some(eligible) = candidates.eligible(tried, now) else {
            return Ok(Verdict::Pass);
        };
        let index = match forwarder.select(request, &eligible.nodes).wait().await? {
            Verdict::Use(Choice::Candidate(index)) => index,
            Verdict::Use(Choice::Address(address)) if tried.add_address(&address) => {
                return Ok(Verdict::Use(tried.add(&Arc::new(Node::at(address)))));
            }
            Verdict::Use(Choice::Address(_)) | Verdict::Pass => {
                eligible.selector.index(request, &eligible.nodes)
            }
            Verdict::Refuse(refusal) => return Ok(Verdict::Refuse(refusal)),
        };
        match eligible.nodes.get(index) {
            Some(node) => Ok(Verdict::Use(tried.add(node))),
            None => {
                let count = eligible.nodes.len();
                Err(RouteError(format!("forwarder chose candidate {index} of {count} (counted from 0)")))
            }
        }
    }
}

impl fmt::Debug for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hop").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// The nodes that may serve one request, by tiers.
#[derive(Debug)]
pub struct Candidates<'a> {
    tiers: Tiers<'a>,
}

impl Candidates<'_> {
    /// The nodes, the preferred tier first.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.tiers.iter().flat_map(|tier| tier.nodes.iter())
    }

    /// The nodes that the strategy may choose from now.
    fn eligible(&self, tried: &Tried, now: Duration) -> Option<Eligible<'_>> {
        if tried.is_full() {
            return None;
        }
        let untried = |node: &&Arc<Node>| !tried.contains(node);
        self.tiers.iter().find_map(|tier| tier.eligible(tried, now)).or_else(|| {
            self.tiers.iter().find_map(|tier| {
                let oldest =
                    tier.nodes.iter().filter(untried).min_by_key(|node| node.health.last_failure())?;
                Some(Eligible { nodes: slice::from_ref(oldest).into(), selector: tier.selector })
            })
        })
    }
}

struct Eligible<'a> {
    nodes: Cow<'a, [Arc<Node>]>,
    selector: &'a Selector,
}

/// Candidates of equal priority.
#[derive(Debug)]
struct Tier<'a> {
    /// Backups behind the others.
    nodes: Cow<'a, [Arc<Node>]>,
    /// How many are no backups.
    primaries: usize,
    priority: i64,
    selector: &'a Selector,
}

impl<'a> Tier<'a> {
    fn of(pool: &'a Pool, priority: i64) -> Self {
        Self {
            nodes: pool.nodes().into(),
            primaries: primaries(pool.nodes()),
            priority,
            selector: pool.selector(),
        }
    }

    fn decides_alone(&self) -> bool {
        self.priority > 0 && self.primaries == 1 && self.nodes.len() == 1
    }

    /// Highest priority first, tiers of backups behind all others.
    fn rank(&self) -> (bool, Reverse<i64>) {
        (self.primaries == 0, Reverse(self.priority))
    }

    fn eligible(&self, tried: &Tried, now: Duration) -> Option<Eligible<'_>> {
        let (primaries, backups) = self.nodes.split_at(self.primaries);
        let usable = |node: &&Arc<Node>| !tried.contains(node) && !node.is_dead(now);
        let nodes = [primaries, backups].into_iter().find_map(|part| {
            match part.iter().filter(usable).count() {
                0 => None,
                count if count == part.len() => Some(Cow::Borrowed(part)),
                // Marks may change while we look: what is left can have become empty.
                _ => Some(part.iter().filter(usable).cloned().collect())
                    .filter(|left: &Cow<'_, _>| !left.is_empty()),
            }
        })?;
        Some(Eligible { nodes, selector: self.selector })
    }
}

/// Tiers by rank; most requests have one, which then costs no allocation.
#[derive(Debug, Default)]
struct Tiers<'a> {
    first: Option<Tier<'a>>,
    rest: Vec<Tier<'a>>,
    /// Whether the highest tier decides alone, so that no other counts.
    complete: bool,
}

impl<'a> Tiers<'a> {
    /// The tier of the highest priority must be added first.
    fn add(&mut self, tier: Tier<'a>) {
        if self.complete {
            return;
        }
        let Some(first) = &mut self.first else {
            self.complete = tier.decides_alone();
            self.first = Some(tier);
            return;
        };
        let tier = if tier.rank() < first.rank() { std::mem::replace(first, tier) } else { tier };
        let place = self.rest.partition_point(|other| other.rank() <= tier.rank());
        self.rest.insert(place, tier);
    }

    fn iter(&self) -> impl Iterator<Item = &Tier<'a>> {
        self.first.iter().chain(&self.rest)
    }
}

fn primaries(nodes: &[Arc<Node>]) -> usize {
    nodes.partition_point(|node| !node.backup)
}
