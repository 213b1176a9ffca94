//! Streams to where requests go, and those that a visitor's connection keeps for its next requests.

use super::pump::Buffered;
use crate::net::{self, BoxStream};
use crate::record::Route;
use bytes::Bytes;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// Upstreams that one visitor's connection keeps for its next requests.
pub(super) const MAX_IDLE: usize = 4;

/// A request that may not be sent twice goes to a kept upstream only if that has been idle for less. Servers close idle
/// connections after seconds, and one that does so while our request is on its way costs the request.
const FRESH: Duration = Duration::from_secs(1);

/// A new stream to a request's target.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) stream: BoxStream,
    /// Requests with the same key may use it again.
    pub(crate) key: String,
    pub(crate) route: Route,
    /// After so long without a sign that it reads, try another; `None` where there is no other.
    pub(crate) silence: Option<Duration>,
}

/// The way to a request's target.
#[derive(Debug)]
pub(crate) enum Way<K> {
    /// One that the pool had.
    Kept(K),
    /// A new one.
    Fresh(Fresh),
}

/// What one visitor's connection keeps of the ways that it has used.
pub(crate) trait Pool: Send {
    /// What is kept.
    type Kept: Send;

    /// One that leads where this key says and is fit for the request at hand.
    fn take(&mut self, key: &str) -> impl Future<Output = Option<Self::Kept>> + Send;
}

/// For connections that are used once.
#[derive(Debug)]
pub(crate) struct NoPool;

impl Pool for NoPool {
    type Kept = Infallible;

    async fn take(&mut self, _: &str) -> Option<Infallible> {
        None
    }
}

/// A stream that carries one HTTP/1 exchange after another.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(super) io: Buffered,
    key: String,
    pub(super) route: Route,
    pub(super) silence: Option<Duration>,
}

impl From<Fresh> for Upstream {
    fn from(fresh: Fresh) -> Self {
        let Fresh { stream, key, route, silence } = fresh;
        Self { io: Buffered::new(stream, Bytes::new()), key, route, silence }
    }
}

/// Upstreams with a complete reply behind them and nothing under way.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Vec<(Instant, Upstream)>>);

impl Idle {
    pub(super) fn keep(&self, mut upstream: Upstream) {
        upstream.io.release();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = (kept.len() == MAX_IDLE).then(|| kept.remove(0));
        kept.push((Instant::now(), upstream));
        drop((kept, oldest));
    }

    /// For one request; `repeatable`: it may be sent a second time.
    pub(super) fn lease(&self, repeatable: bool) -> Lease<'_> {
        Lease { idle: self, repeatable }
    }

    fn remove(&self, key: &str) -> Option<(Instant, Upstream)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(_, upstream)| upstream.key == key)?;
        Some(kept.swap_remove(at))
    }
}

/// How one request comes to a kept upstream.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    idle: &'a Idle,
    repeatable: bool,
}

impl Pool for Lease<'_> {
    type Kept = Upstream;

    /// The upstream, if it is still silent and open: bytes nobody asked for end it.
    async fn take(&mut self, key: &str) -> Option<Upstream> {
        let (since, mut upstream) = self.idle.remove(key)?;
        let quiet = poll_fn(|cx| Poll::Ready(net::is_quiet(&mut *upstream.io.stream, cx))).await;
        (quiet && (self.repeatable || since.elapsed() < FRESH)).then_some(upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::{Memory, tcp_pair};
    use tokio::io::duplex;

    fn kept(stream: BoxStream) -> Idle {
        let idle = Idle::default();
        let fresh = Fresh { stream, key: "k".to_owned(), route: Route::default(), silence: None };
        idle.keep(fresh.into());
        idle
    }

    /// Before the runtime has heard of the end: asking it alone would hand out a dead connection.
    #[tokio::test]
    async fn an_end_is_seen_at_once() {
        let (near, far) = tcp_pair().await;
        let idle = kept(Box::new(near));
        assert!(idle.lease(true).take("other").await.is_none());
        let upstream = idle.lease(true).take("k").await.expect("open and quiet");
        idle.keep(upstream);
        drop(far);
        assert!(idle.lease(true).take("k").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_repeated_goes_to_fresh_connections_only() {
        for (repeatable, after, expected) in [(false, 900, true), (false, 1100, false), (true, 60_000, true)]
        {
            let (near, _far) = duplex(1);
            let idle = kept(Box::new(Memory::new(near, true)));
            tokio::time::advance(Duration::from_millis(after)).await;
            assert_eq!(idle.lease(repeatable).take("k").await.is_some(), expected, "{repeatable} {after}");
        }
    }
}
