//! Upstreams that wait for their next request: those that one visitor's connection keeps, and those that all visitors of a
//! service share.
//!
//! Only an upstream that was never told who its visitor is may serve others; and one whose target authenticates the
//! connection instead of each request stays with its visitor, like one behind a reply without a body. A request that cannot
//! be repeated takes no upstream that another visitor has used: it could be about to end.

use super::upstream::{Key, Pool, Upstream};
use crate::net;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Upstreams that one visitor's connection keeps for its next requests.
pub(super) const MAX_IDLE: usize = 4;

/// Upstreams that the visitors of a service share at most; what is one too many is closed.
const MAX_SHARED: usize = 1024;

/// How long a shared one may wait. Many servers close theirs after a minute or less.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How often what has waited for too long, or has ended meanwhile, is looked for.
const PRUNE: Duration = Duration::from_secs(10);

/// A request that may not be sent twice goes to a kept upstream only if that has been idle for less. Servers close idle
/// connections after seconds, and one that does so while our request is on its way costs the request.
const FRESH: Duration = Duration::from_secs(1);

/// An upstream that waits.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// The visitor's connection that used it last.
    visitor: u64,
    upstream: Box<Upstream>,
}

/// Upstreams with a complete reply behind them and nothing under way.
#[derive(Debug)]
pub(super) struct Idle<'a> {
    /// This visitor's connection, among all.
    visitor: u64,
    own: Mutex<Vec<Waiting>>,
    shared: Option<&'a Arc<Shared>>,
}

impl<'a> Idle<'a> {
    pub(super) fn new(shared: Option<&'a Arc<Shared>>) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self { visitor: COUNT.fetch_add(1, Ordering::Relaxed), own: Mutex::default(), shared }
    }

    pub(super) fn keep(&self, mut upstream: Box<Upstream>) {
        upstream.io.release();
        upstream.kept = true;
        let waiting = Waiting { since: Instant::now(), visitor: self.visitor, upstream };
        match self.shared {
            Some(shared) if waiting.upstream.serves_anybody() => shared.keep(waiting),
            _ => {
                let mut own = lock(&self.own);
                let oldest = (own.len() == MAX_IDLE).then(|| own.remove(0));
                // Most visitors need no more than one.
                own.reserve_exact(1);
                own.push(waiting);
                drop((own, oldest));
            }
        }
    }

    /// For one request; `repeatable`: it may be sent a second time.
    pub(super) fn lease(&self, repeatable: bool) -> Lease<'_> {
        Lease { idle: self, repeatable, used: false }
    }

    /// The one that was used last. For a request that cannot be repeated: by this visitor, and a moment ago.
    fn remove(&self, key: &Key, repeatable: bool) -> Option<Box<Upstream>> {
        let fit = |waiting: &Waiting| {
            repeatable || (waiting.visitor == self.visitor && waiting.since.elapsed() < FRESH)
        };
        let mut own = lock(&self.own);
        if let Some(at) = own.iter().rposition(|waiting| waiting.upstream.key == *key && fit(waiting)) {
            return Some(own.remove(at).upstream);
        }
        drop(own);
        self.shared?.remove(key, fit)
    }
}

/// How one request comes to a kept upstream.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    idle: &'a Idle<'a>,
    repeatable: bool,
    /// One was taken, and failed: the others may be as stale.
    used: bool,
}

impl Pool for Lease<'_> {
    type Kept = Box<Upstream>;

    /// An upstream that is still silent and open: bytes nobody asked for end it. The socket itself is asked, for what the
    /// runtime has not heard of yet would be another visitor's reply.
    async fn take(&mut self, key: &Key) -> Option<Box<Upstream>> {
        if self.used {
            return None;
        }
        while let Some(mut upstream) = self.idle.remove(key, self.repeatable) {
            if upstream.between.as_ref().is_some_and(|between| between.hangs()) {
                continue;
            }
            if poll_fn(|cx| Poll::Ready(net::is_quiet(&mut *upstream.io.stream, cx))).await {
                self.used = true;
                return Some(upstream);
            }
        }
        None
    }
}

/// Upstreams that all visitors of a service share.
#[derive(Debug, Default)]
pub(crate) struct Shared(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The one that has waited longest in front; places of what is in use are left empty.
    waiting: HashMap<Key, Vec<Waiting>>,
    count: usize,
    /// Whether somebody looks after them.
    pruned: bool,
}

impl Shared {
    fn keep(self: &Arc<Self>, waiting: Waiting) {
        let mut kept = lock(&self.0);
        if kept.count >= MAX_SHARED {
            return drop((kept, waiting));
        }
        if kept.waiting.len() >= 2 * MAX_SHARED {
            // Visitors may name ever new hosts.
            kept.waiting.retain(|_, same| !same.is_empty());
        }
        kept.count += 1;
        match kept.waiting.get_mut(&waiting.upstream.key) {
            Some(same) => same.push(waiting),
            None => drop(kept.waiting.insert(waiting.upstream.key.clone(), vec![waiting])),
        }
        if !std::mem::replace(&mut kept.pruned, true) {
            tokio::spawn(prune(Arc::downgrade(self)));
        }
    }

    fn remove(&self, key: &Key, fit: impl Fn(&Waiting) -> bool) -> Option<Box<Upstream>> {
        let mut kept = lock(&self.0);
        let same = kept.waiting.get_mut(key)?;
        let at = same.iter().rposition(fit)?;
        let waiting = same.remove(at);
        kept.count -= 1;
        Some(waiting.upstream)
    }

    /// Closes all; whether there were any.
    pub(crate) fn clear(&self) -> bool {
        let mut kept = lock(&self.0);
        let waiting = std::mem::take(&mut kept.waiting);
        let count = std::mem::take(&mut kept.count);
        drop((kept, waiting));
        count > 0
    }

    /// Closes those that have waited for too long or ended; whether none is left.
    fn prune(&self) -> bool {
        let mut kept = lock(&self.0);
        let mut gone = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        kept.waiting.retain(|_, same| {
            gone.extend(same.extract_if(.., |waiting| {
                let stream = &mut *waiting.upstream.io.stream;
                waiting.since.elapsed() >= MAX_WAIT || !net::is_quiet(stream, &mut cx)
            }));
            !same.is_empty()
        });
        kept.count -= gone.len();
        kept.pruned = kept.count > 0;
        let empty = !kept.pruned;
        drop((kept, gone));
        empty
    }
}

/// Looks after shared upstreams until none is left.
async fn prune(shared: Weak<Shared>) {
    loop {
        sleep(PRUNE).await;
        if shared.upgrade().is_none_or(|shared| shared.prune()) {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::upstream::{Fresh, Place};
    use super::*;
    use crate::addr::HostPort;
    use crate::net::BoxStream;
    use crate::net::memory;
    use crate::net::pipe::testing::tcp_pair;
    use crate::record::Route;
    use tokio::io::AsyncReadExt;

    fn key(node: &str) -> Key {
        Key { place: Place::Node(None), target: HostPort::parse(node, 80).unwrap(), visitor: None }
    }

    fn upstream(stream: BoxStream) -> Box<Upstream> {
        Box::new(
            Fresh { stream, key: key("k"), route: Route::default(), silence: None, between: None }.into(),
        )
    }

    fn kept(stream: BoxStream) -> Idle<'static> {
        let idle = Idle::new(None);
        idle.keep(upstream(stream));
        idle
    }

    /// Before the runtime has heard of the end: asking it alone would hand out a dead connection.
    #[tokio::test]
    async fn an_end_is_seen_at_once() {
        let (near, far) = tcp_pair().await;
        let idle = kept(Box::new(near));
        assert!(idle.lease(false).take(&key("other")).await.is_none());
        let upstream = idle.lease(false).take(&key("k")).await.expect("open and quiet");
        idle.keep(upstream);
        drop(far);
        assert!(idle.lease(false).take(&key("k")).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_repeated_goes_to_fresh_connections_only() {
        for (repeatable, after, expected) in [(false, 900, true), (false, 1100, false), (true, 60_000, true)]
        {
            let (near, _far) = memory::pair(1);
            let idle = kept(Box::new(near));
            tokio::time::advance(Duration::from_millis(after)).await;
            assert_eq!(
                idle.lease(repeatable).take(&key("k")).await.is_some(),
                expected,
                "{repeatable} {after}"
            );
        }
    }

    #[tokio::test]
    async fn visitors_share_what_is_nobodys_own() {
        let shared = Arc::new(Shared::default());
        let (one, other) = (Idle::new(Some(&shared)), Idle::new(Some(&shared)));
        let (near, _far) = tcp_pair().await;
        one.keep(upstream(Box::new(near)));
        assert!(other.lease(false).take(&key("k")).await.is_none(), "it cannot be repeated");
        let taken = one.lease(false).take(&key("k")).await.expect("its own a moment ago");
        one.keep(taken);
        let mut taken = other.lease(true).take(&key("k")).await.expect("shared");
        assert!(one.lease(true).take(&key("k")).await.is_none(), "it is in use");
        taken.bound = true;
        other.keep(taken);
        assert!(one.lease(true).take(&key("k")).await.is_none(), "it has become the other's own");
        assert!(other.lease(true).take(&key("k")).await.is_some());
    }

    #[tokio::test]
    async fn what_failed_once_gets_a_fresh_one() {
        let shared = Arc::new(Shared::default());
        let idle = Idle::new(Some(&shared));
        let ends = [tcp_pair().await, tcp_pair().await];
        let _far = ends.map(|(near, far)| {
            idle.keep(upstream(Box::new(near)));
            far
        });
        let mut lease = idle.lease(true);
        assert!(lease.take(&key("k")).await.is_some());
        assert!(lease.take(&key("k")).await.is_none());
        assert!(idle.lease(true).take(&key("k")).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn shared_ones_are_bounded_and_do_not_wait_for_ever() {
        let shared = Arc::new(Shared::default());
        let idle = Idle::new(Some(&shared));
        let mut ends = Vec::new();
        for _ in 0..=MAX_SHARED {
            let (near, far) = memory::pair(1);
            ends.push(far);
            idle.keep(upstream(Box::new(near)));
        }
        assert_eq!(ends.pop().unwrap().read(&mut [0]).await.unwrap(), 0, "one too many");
        assert_eq!(lock(&shared.0).count, MAX_SHARED);
        drop(ends.pop());
        sleep(PRUNE + PRUNE / 2).await;
        assert_eq!(lock(&shared.0).count, MAX_SHARED - 1, "ended");
        sleep(MAX_WAIT).await;
        let left = |kept: &Kept| (kept.count, kept.waiting.len(), kept.pruned);
        assert_eq!(left(&lock(&shared.0)), (0, 0, false));
        let (near, _far) = memory::pair(1);
        idle.keep(upstream(Box::new(near)));
        assert!(shared.clear() && !shared.clear());
        assert!(idle.lease(true).take(&key("k")).await.is_none());
    }
}
