//! What a plugin has done: counted without locks, read by whoever shows it.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Upper bounds of the latency histogram, in nanoseconds; what is slower falls into one more bucket.
pub const BUCKETS: [u64; 12] =
    [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 20_000_000];

/// Counts of one plugin, over all its versions.
///
/// What every call changes comes first and stands close together: each line of memory that two cores change in turn costs a call
/// as much as a hundred instructions.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Stats {
    /// Nanoseconds of all calls together.
    time: AtomicU64,
    /// Calls by duration; together they are all calls.
    latency: [AtomicU64; BUCKETS.len() + 1],
    cache_hits: AtomicU64,
    errors: AtomicU64,
    traps: AtomicU64,
    overruns: AtomicU64,
    recycled: AtomicU64,
    swaps: AtomicU64,
    /// Bytes of the instance that was seen last.
    memory: AtomicUsize,
}

impl Stats {
    pub(super) fn called(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.time.fetch_add(nanos, Ordering::Relaxed);
        let bucket = BUCKETS.partition_point(|bound| *bound < nanos);
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn trapped(&self) {
        self.traps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn overran(&self) {
        self.overruns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn recycled(&self) {
        self.recycled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hit(&self) {
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn swapped(&self) {
        self.swaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn memory_is(&self, bytes: usize) {
        if self.memory.load(Ordering::Relaxed) != bytes {
            self.memory.store(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let latency: Vec<_> = self.latency.iter().map(read).collect();
        Counts {
            calls: latency.iter().sum(),
            errors: read(&self.errors),
            traps: read(&self.traps),
            overruns: read(&self.overruns),
            recycled: read(&self.recycled),
            cache_hits: read(&self.cache_hits),
            swaps: read(&self.swaps),
            call_seconds: Duration::from_nanos(read(&self.time)).as_secs_f64(),
            latency,
            memory: self.memory.load(Ordering::Relaxed),
        }
    }
}

/// Counts at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Calls that were made; answers from the cache are none.
    pub calls: u64,
    /// Decisions that failed, for whatever reason.
    pub errors: u64,
    /// Calls that trapped.
    pub traps: u64,
    /// Calls that overran their deadline.
    pub overruns: u64,
    /// Instances that were replaced because they were worn.
    pub recycled: u64,
    /// Decisions that were answered without a call.
    pub cache_hits: u64,
    /// Versions and configurations taken into use after the first.
    pub swaps: u64,
    /// Seconds of all calls together.
    pub call_seconds: f64,
    /// Calls by duration: below each of [`BUCKETS`], and above the last.
    pub latency: Vec<u64>,
    /// Bytes of linear memory of the instance that was used last.
    pub memory: usize,
}
