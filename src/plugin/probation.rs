//! Who is asked on threads of its own: hosts (or tunnels that clients want to open) for which the plugin overran or trapped lately,
//! and everybody once that spreads.
//!
//! A call that loops holds its thread until the deadline: that must be none that serves connections, except when nobody could
//! know. And those that are known to loop must not keep the others waiting.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a failure is remembered.
const TERM: Duration = Duration::from_secs(10);
/// Hosts share this many places; which share one, nobody outside can know.
const PLACES: usize = 256;
/// Hosts that held threads which serve connections, within [`SPREAD_TIME`], after which everybody is on probation.
const SPREAD: usize = 4;
const SPREAD_TIME: Duration = Duration::from_secs(1);

/// The place of a question's host or tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// Until when whom to ask aside, in milliseconds since `start`; 0: not at all.
#[derive(Debug)]
pub(super) struct Probation {
    start: Instant,
    hasher: RandomState,
    places: Box<[AtomicU64]>,
    everybody: AtomicU64,
    /// The latest of all: the one that is looked at while the plugin behaves.
    anybody: AtomicU64,
    /// When serving threads were held, and by whom.
    held: Mutex<VecDeque<(Instant, Place)>>,
}

impl Probation {
    pub(super) fn new() -> Self {
        let places = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        Self {
            start: Instant::now(),
            hasher: RandomState::new(),
            places,
            everybody: AtomicU64::new(0),
            anybody: AtomicU64::new(0),
            held: Mutex::default(),
        }
    }

    /// Whether the question is to be asked aside.
    pub(super) fn holds(&self, about: &str) -> bool {
        let anybody = self.anybody.load(Ordering::Relaxed);
        if anybody == 0 {
            return false;
        }
        let now = self.millis();
        let place = || &self.places[self.place(about).0];
        now < anybody
            && (now < self.everybody.load(Ordering::Relaxed) || now < place().load(Ordering::Relaxed))
    }

    /// Where a question is, by its host or tunnel.
    pub(super) fn place(&self, about: &str) -> Place {
        let hash = self.hasher.hash_one(about);
        Place(usize::try_from(hash % PLACES as u64).unwrap_or(0))
    }

    /// The plugin overran or trapped; `aside`: on a thread of its own.
    pub(super) fn failed(&self, place: Place, aside: bool) {
        let until = self.millis() + u64::try_from(TERM.as_millis()).unwrap_or(u64::MAX);
        self.places[place.0].fetch_max(until, Ordering::Relaxed);
        if !aside && self.spreads(place) {
            self.everybody.fetch_max(until, Ordering::Relaxed);
        }
        self.anybody.fetch_max(until, Ordering::Relaxed);
    }

    fn spreads(&self, place: Place) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls of one host that began at once are one failure.
        held.retain(|(_, of)| *of != place);
        held.push_back((Instant::now(), place));
        if held.len() > SPREAD {
            held.pop_front();
        }
        held.len() == SPREAD && held.front().is_some_and(|(first, _)| first.elapsed() < SPREAD_TIME)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_host_is_asked_aside_for_a_while_and_others_are_not() {
        let probation = Probation::new();
        let (bad, good) = ("bad.example", "good.example");
        // Two hosts may share a place.
        if probation.place(bad) == probation.place(good) {
            return;
        }
        assert!(!probation.holds(bad));
        probation.failed(probation.place(bad), false);
        assert!(probation.holds(bad) && !probation.holds(good));
        tokio::time::advance(TERM).await;
        assert!(!probation.holds(bad));
        for aside in [true, false] {
            for _ in 0..100 {
                probation.failed(probation.place(bad), aside);
            }
            assert!(probation.holds(bad) && !probation.holds(good), "one host, however often");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_everywhere_put_everybody_on_probation() {
        // One right after the other, and with time between.
        for (pause, expected) in [(Duration::ZERO, true), (SPREAD_TIME / 2, false)] {
            let probation = Probation::new();
            for n in 0..SPREAD {
                probation.failed(Place(n), false);
                tokio::time::advance(pause).await;
            }
            let free =
                (0..).map(|n| format!("{n}.example")).find(|host| probation.place(host).0 >= SPREAD).unwrap();
            assert_eq!(probation.holds(&free), expected);
            tokio::time::advance(TERM).await;
            assert!(!probation.holds(&free));
        }
    }
}
