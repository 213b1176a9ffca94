//! The built-in strategies: which of several equally good nodes.
//!
//! A selector sees only nodes that may be used: `hop` has already left out the dead, the tried, and backups that are not
//! needed yet. Every set of nodes has a selector of its own, so that a turn of `round` belongs to that set and is not spent by
//! requests for other hosts.

use super::{Answer, Choice, Forwarder, Node, Request, Verdict};
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// A strategy and its memory.
#[derive(Debug)]
pub struct Selector {
    strategy: Strategy,
    /// Whose turn it is; it may wrap.
    turn: AtomicUsize,
}

impl Selector {
    /// A selector at its first turn.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, turn: AtomicUsize::new(0) }
    }

    pub(super) fn index(&self, request: &Request<'_>, candidates: &[Arc<Node>]) -> usize {
        // One candidate leaves nothing to choose, so it costs nothing either.
        let count = candidates.len();
        if count < 2 {
            return 0;
        }
        match self.strategy {
            Strategy::Round => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            Strategy::Random => by_weight(candidates),
            Strategy::Fifo => 0,
            Strategy::Hash => client_hash(request.client.ip()) as usize % count,
        }
    }
}

impl Forwarder for Selector {
    /// `Use`, or `Pass` when there are no candidates.
    fn select(&self, request: &Request<'_>, candidates: &[Arc<Node>]) -> Answer<Choice> {
        let choice = || Verdict::Use(Choice::Candidate(self.index(request, candidates)));
        Answer::Now(Ok(if candidates.is_empty() { Verdict::Pass } else { choice() }))
    }
}

fn by_weight(candidates: &[Arc<Node>]) -> usize {
    let weight = |node: &Arc<Node>| u64::from(node.weight.max(1));
    let total: u64 = candidates.iter().map(weight).sum();
    let mut left = fastrand::u64(..total);
    for (index, node) in candidates.iter().enumerate() {
        match left.checked_sub(weight(node)) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    0
}

/// CRC-32 (IEEE) of the address as text, as GOST computes it, so that a client keeps its node when the proxy is exchanged.
fn client_hash(ip: IpAddr) -> u32 {
    // The longest IPv6 text has 45 bytes (with an IPv4 tail); an address that did not fit would only be hashed in part.
    let mut text = [0; 48];
    let mut left = text.as_mut_slice();
    let _ = write!(left, "{}", ip.to_canonical());
    let unused = left.len();
    crc32fast::hash(&text[..text.len() - unused])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Host;
    use crate::route::Protocol;
    use std::time::Duration;

    const CRC_V4: u32 = 0xdb610037;
    const CRC_V6: u32 = 0x00b4af0e;

    fn nodes(weights: &[u32]) -> Vec<Arc<Node>> {
        let node = |(i, weight): (usize, &u32)| Node {
            place: Some(i),
            name: format!("node-{i}").into(),
            condition: "*".into(),
            addr: None,
            weight: *weight,
            backup: false,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            labels: Box::default(),
            health: Default::default(),
        };
        weights.iter().enumerate().map(node).map(Arc::new).collect()
    }

    fn request(client: &str) -> Request<'static> {
        Request {
            hostname: Host::empty(),
            protocol: Protocol::Unknown,
            client: client.parse().unwrap(),
            service: "service-0",
            http: None,
            extra: Default::default(),
        }
    }

    fn choices(strategy: Strategy, weights: &[u32], count: usize) -> Vec<usize> {
        let (selector, nodes, request) = (Selector::new(strategy), nodes(weights), request("192.0.2.1:1"));
        let choose = |_| match selector.select(&request, &nodes) {
            Answer::Now(Ok(Verdict::Use(Choice::Candidate(index)))) => index,
            _ => panic!("no candidate"),
        };
        (0..count).map(choose).collect()
    }

    #[test]
    fn round_takes_turns_and_fifo_the_first() {
        assert_eq!(choices(Strategy::Round, &[1, 9, 1], 7), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(choices(Strategy::Fifo, &[1, 1, 1], 3), [0, 0, 0]);
        for strategy in [Strategy::Round, Strategy::Random, Strategy::Fifo, Strategy::Hash] {
            assert_eq!(choices(strategy, &[1], 2), [0, 0]);
            let none = Selector::new(strategy).select(&request("192.0.2.1:1"), &[]);
            assert!(matches!(none, Answer::Now(Ok(Verdict::Pass))));
        }
    }

    #[test]
    fn random_gives_each_node_its_share() {
        fastrand::seed(7);
        let count = 100_000;
        let mut shares = [0; 3];
        for index in choices(Strategy::Random, &[1, 2, 7], count) {
            shares[index] += 1;
        }
        // Seven standard deviations of the widest binomial: 7 * sqrt(0.25 * count), about 1100.
        for (share, expected) in shares.into_iter().zip([10_000_i32, 20_000, 70_000]) {
            assert!((share - expected).abs() < 1100, "{shares:?}");
        }
        fastrand::seed(7);
        assert!(choices(Strategy::Random, &[u32::MAX, 0, u32::MAX], 100).contains(&2));
    }

    #[test]
    fn hash_is_the_crc_of_the_address_without_its_port() {
        // CRC-32 (IEEE) of the texts "192.0.2.1" and "2001:db8::1", computed elsewhere.
        assert_eq!(client_hash("192.0.2.1".parse().unwrap()), CRC_V4);
        assert_eq!(client_hash("::ffff:192.0.2.1".parse().unwrap()), CRC_V4);
        assert_eq!(client_hash("2001:db8::1".parse().unwrap()), CRC_V6);
        let (selector, nodes) = (Selector::new(Strategy::Hash), nodes(&[1, 1, 1, 1, 1]));
        for client in ["192.0.2.1:1", "192.0.2.1:65535", "[::ffff:192.0.2.1]:9"] {
            let chosen = selector.select(&request(client), &nodes);
            let expected = Choice::Candidate(CRC_V4 as usize % 5);
            assert!(matches!(chosen, Answer::Now(Ok(Verdict::Use(i))) if i == expected), "{client}");
        }
    }
}
