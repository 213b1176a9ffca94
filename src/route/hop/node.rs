//! What a node remembers of its failures, what a request remembers of the nodes it tried, and where a node is.

use super::NodeSettings;
use crate::addr::HostPort;
use crate::route::{Node, Protocol, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Most nodes that one request tries. Without it a visitor could make us dial every node of a large hop that is down, again for
/// each request.
const MAX_TRIES: usize = 16;

impl Node {
    /// A node without failures, the one at `place` of its hop.
    pub fn new(settings: &NodeSettings, place: usize) -> Self {
        Self {
            place: Some(place),
            name: settings.name.as_str().into(),
            condition: condition(settings).into(),
            addr: settings.addr.clone(),
            weight: settings.weight.max(1),
            backup: settings.backup,
            max_fails: settings.max_fails.max(1),
            fail_timeout: settings.fail_timeout,
            labels: settings.labels.clone().into(),
            health: Health::default(),
        }
    }

    /// A node of no hop: an address that a forwarder named itself.
    pub fn at(address: HostPort) -> Self {
        Self {
            place: None,
            name: address.to_string().into(),
            condition: "*".into(),
            addr: Some(address),
            weight: 1,
            backup: false,
            max_fails: 1,
            fail_timeout: Duration::ZERO,
            labels: Box::default(),
            health: Health::default(),
        }
    }

    /// Whether it failed too often and too lately to be chosen while others live.
    pub fn is_dead(&self, now: Duration) -> bool {
        self.health.is_dead(now, self.max_fails, self.fail_timeout)
    }

    /// Where to dial for `request`: what `addr` leaves open comes from the host asked for and from the protocol's own port.
    /// `None` when neither tells.
    pub fn target(&self, request: &Request<'_>) -> Option<HostPort> {
        let (host, port) = self.addr.as_ref().map_or((None, 0), |addr| (Some(&addr.host), addr.port));
        let host = host.filter(|host| !host.is_empty()).unwrap_or(&request.hostname);
        let port = match (port, request.protocol) {
            (0, Protocol::Http1 | Protocol::Http2) => 80,
            (0, Protocol::Tls | Protocol::Quic) => 443,
            (0, Protocol::Ssh) => 22,
            (0, Protocol::Unknown | Protocol::Tcp | Protocol::Udp) => return None,
            (port, _) => port,
        };
        if host.is_empty() { None } else { Some(HostPort::new(host.clone(), port)) }
    }
}

/// What `settings` ask of a request.
fn condition(settings: &NodeSettings) -> String {
    if let Some(rule) = &settings.rule {
        return rule.text().to_owned();
    }
    let NodeSettings { host, path, protocol, .. } = settings;
    let scheme = if protocol.is_empty() { String::new() } else { format!("{protocol}://") };
    let host = if host.is_empty() { "*" } else { host };
    format!("{scheme}{host}{path}")
}

/// Failure marks of a node. Times count from the moment that the owner of the hop has chosen.
///
/// The two values are not changed together; a reader between them sees a node as dead, or alive, one request early or late.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
    /// Nanoseconds; meaningful while there are failures.
    last_failure: AtomicU64,
    active: AtomicU32,
}

impl Health {
    /// A node's health as if so much had happened to it.
    pub fn with(active: u32, failures: u32) -> Self {
        Self { failures: failures.into(), active: active.into(), ..Self::default() }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Connections and requests that are with the node now.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Marks a failure.
    pub fn failed(&self, now: Duration) {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.last_failure.fetch_max(now, Ordering::Release);
        // A count that wrapped round would bring a dead node to life.
        let _ = self.failures.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |count| count.checked_add(1));
    }

    /// Forgets all failures.
    pub fn succeeded(&self) {
        // Reading first keeps the line shared between cores in the usual case.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// Whether there were at least `max_fails` failures in a row, the last of them less than `fail_timeout` ago.
    pub fn is_dead(&self, now: Duration, max_fails: u32, fail_timeout: Duration) -> bool {
        self.failures.load(Ordering::Acquire) >= max_fails.max(1)
            && now.saturating_sub(self.last_failure()) < fail_timeout
    }

    /// When it last failed; zero if it never did.
    pub fn last_failure(&self) -> Duration {
        Duration::from_nanos(self.last_failure.load(Ordering::Acquire))
    }
}

/// One connection or request that is with a node, until it is dropped.
#[derive(Debug)]
pub struct Active(Arc<Node>);

impl Active {
    /// Counts one more.
    pub fn new(node: &Arc<Node>) -> Self {
        node.health.active.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(node))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.health.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The nodes that were tried for one request.
#[derive(Debug, Default, Clone)]
pub struct Tried {
    /// Addresses of nodes, as identities only: no node is reached through them, and the hop keeps its nodes for longer than
    /// a request takes. An array, so that the first choice costs no allocation.
    nodes: [usize; MAX_TRIES],
    count: usize,
    /// Those that a forwarder named itself.
    addresses: Vec<HostPort>,
}

impl Tried {
    /// Nothing tried yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes were tried.
    pub fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == MAX_TRIES
    }

    pub(super) fn contains(&self, node: &Arc<Node>) -> bool {
        self.nodes[..self.count].contains(&Arc::as_ptr(node).addr())
    }

    /// Whether this address is a new one.
    pub(super) fn add_address(&mut self, address: &HostPort) -> bool {
        let new = !self.addresses.contains(address);
        if new {
            self.addresses.push(address.clone());
        }
        new
    }

    /// Counts `node` as tried and returns it.
    pub(super) fn add(&mut self, node: &Arc<Node>) -> Arc<Node> {
        if let Some(place) = self.nodes.get_mut(self.count) {
            *place = Arc::as_ptr(node).addr();
            self.count += 1;
        }
        Arc::clone(node)
    }
}
