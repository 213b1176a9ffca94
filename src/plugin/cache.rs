//! Answers that a plugin allowed to be given again, until their time is over.
//!
//! Bounded, and owned by one version of a plugin: a swap begins with an empty one.

use super::bind::types::Dependency;
use crate::addr::Host;
use crate::route::{Protocol, Request};
use quick_cache::sync::Cache;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time that an answer is kept.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// Longest path that an answer may depend on; answers for longer ones are not kept.
const MAX_PATH: usize = 512;

/// The answers of one version for one kind of question.
#[derive(Debug)]
pub(super) struct Decisions<V> {
    answers: Cache<Key, Kept<V>>,
    /// Which sets of dependencies occur, a bit each: only these are looked for.
    kinds: AtomicU8,
}

/// An answer and until when it holds.
#[derive(Debug, Clone)]
pub(super) struct Kept<V> {
    answer: V,
    until: Instant,
}

impl<V> Kept<V> {
    /// For so many milliseconds from now on, or as long as any answer is kept.
    pub(super) fn new(answer: V, ttl_ms: u32) -> Self {
        let until = Instant::now() + Duration::from_millis(ttl_ms.into()).min(MAX_TTL);
        Self { answer, until }
    }

    /// The answer, while it holds.
    pub(super) fn fresh(self) -> Option<V> {
        (Instant::now() < self.until).then_some(self.answer)
    }
}

/// What an answer depended on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    service: Box<str>,
    protocol: Protocol,
    hostname: Host,
    client: Option<IpAddr>,
    path: Option<Box<str>>,
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy)]
struct KeyRef<'a> {
    service: &'a str,
    protocol: Protocol,
    hostname: &'a Host,
    client: Option<IpAddr>,
    path: Option<&'a str>,
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As the derived one does it.
        self.service.hash(state);
        self.protocol.hash(state);
        self.hostname.hash(state);
        self.client.hash(state);
        self.path.hash(state);
    }
}

impl quick_cache::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.hostname == key.hostname
            && self.protocol == key.protocol
            && self.client == key.client
            && self.path == key.path.as_deref()
            && *self.service == *key.service
    }
}

impl<'a> KeyRef<'a> {
    fn new(request: &'a Request<'_>, depends_on: Dependency) -> Self {
        Self {
            service: request.service,
            protocol: request.protocol,
            hostname: &request.hostname,
            client: depends_on.contains(Dependency::CLIENT).then(|| request.client.ip().to_canonical()),
            path: depends_on.contains(Dependency::PATH).then(|| request.http.map_or("", |http| http.path())),
        }
    }
}

/// How many sets of dependencies there are.
const KINDS: u8 = 4;

/// The place of a set among all.
fn kind(depends_on: Dependency) -> u8 {
    u8::from(depends_on.contains(Dependency::CLIENT)) | (u8::from(depends_on.contains(Dependency::PATH)) << 1)
}

/// The set at a place.
fn dependency(kind: u8) -> Dependency {
    let part = |bit, part| if kind & bit != 0 { part } else { Dependency::empty() };
    part(1, Dependency::CLIENT) | part(2, Dependency::PATH)
}

impl<V: Clone> Decisions<V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { answers: Cache::new(capacity), kinds: AtomicU8::new(0) }
    }

    /// The answer kept for this request.
    pub(super) fn get(&self, request: &Request<'_>) -> Option<V> {
        let kinds = self.kinds.load(Ordering::Relaxed);
        if kinds == 0 {
            return None;
        }
        (0..KINDS)
            .filter(|kind| kinds & (1 << kind) != 0)
            .filter_map(|kind| self.answers.get(&KeyRef::new(request, dependency(kind))))
            .find_map(Kept::fresh)
    }

    /// Keeps an answer as its plugin allows.
    pub(super) fn put(&self, request: &Request<'_>, depends_on: Dependency, ttl_ms: u32, answer: V) {
        let key = KeyRef::new(request, depends_on);
        if ttl_ms == 0 || key.path.is_some_and(|path| path.len() > MAX_PATH) {
            return;
        }
        self.kinds.fetch_or(1 << kind(depends_on), Ordering::Relaxed);
        let key = Key {
            service: key.service.into(),
            protocol: key.protocol,
            hostname: key.hostname.clone(),
            client: key.client,
            path: key.path.map(Into::into),
        };
        self.answers.insert(key, Kept::new(answer, ttl_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Extra;

    fn request<'a>(host: &str, client: &str) -> Request<'a> {
        Request {
            hostname: Host::parse(host).unwrap(),
            protocol: Protocol::Tls,
            client: client.parse().unwrap(),
            service: "web",
            http: None,
            extra: Extra::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_for_what_they_depended_on_and_no_longer() {
        let decisions = Decisions::new(100);
        let (a, b) = (request("a.example", "192.0.2.1:1"), request("a.example", "192.0.2.2:1"));
        decisions.put(&a, Dependency::CLIENT, 1000, "for the first client");
        assert_eq!(decisions.get(&request("a.example", "192.0.2.1:9")), Some("for the first client"));
        assert_eq!(decisions.get(&b), None);
        decisions.put(&a, Dependency::empty(), 2000, "for all");
        assert_eq!(decisions.get(&b), Some("for all"));
        assert_eq!(decisions.get(&Request { protocol: Protocol::Unknown, ..b.clone() }), None);
        assert_eq!(decisions.get(&Request { service: "other", ..b.clone() }), None);
        tokio::time::advance(Duration::from_millis(1999)).await;
        assert_eq!(decisions.get(&b), Some("for all"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(decisions.get(&b), None);
        decisions.put(&a, Dependency::empty(), 0, "never");
        assert_eq!(decisions.get(&a), None);
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let decisions = Decisions::new(50);
        for i in 0..1000 {
            decisions.put(&request(&format!("h{i}.example"), "192.0.2.1:1"), Dependency::empty(), 60_000, i);
        }
        assert!(decisions.answers.len() <= 50, "{}", decisions.answers.len());
    }
}
