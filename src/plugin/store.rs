//! What a plugin remembers: a bounded key-value store and counters, shared by its instances and kept through swaps.
//!
//! Time is an argument, so that tests and decision tables can set it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Longest key of the store, in bytes.
const MAX_KEY: usize = 256;
/// Longest value, in bytes.
const MAX_VALUE: usize = 64 * 1024;
/// What an entry costs beside its bytes; without it empty values would count for nothing.
const ENTRY_COST: usize = 64;
/// Counters of one plugin; names of counters come from guests, which may make them up from what visitors send.
const MAX_COUNTERS: usize = 1000;
/// Longest name of a counter, in bytes.
const MAX_COUNTER_NAME: usize = 64;

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    TooLarge,
    Full,
    Changed,
}

/// The store of one plugin.
#[derive(Debug)]
pub(super) struct Store {
    max_keys: usize,
    max_size: usize,
    entries: Mutex<Entries>,
    counters: Mutex<HashMap<Box<str>, i64>>,
}

#[derive(Debug, Default)]
struct Entries {
    map: HashMap<Box<str>, Entry>,
    size: usize,
}

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    /// Milliseconds since 1970.
    until: Option<u64>,
}

impl Store {
    pub(super) fn new(max_keys: usize, max_size: usize) -> Self {
        Self { max_keys, max_size, entries: Mutex::default(), counters: Mutex::default() }
    }

    pub(super) fn get(&self, key: &str, now: u64) -> Option<Vec<u8>> {
        let entries = self.entries();
        let entry = entries.map.get(key).filter(|entry| entry.lives(now))?;
        Some(entry.value.to_vec())
    }

    pub(super) fn set(&self, key: &str, value: &[u8], ttl: Option<u32>, now: u64) -> Result<(), Failure> {
        self.entries().set(self, key, value, ttl, now)
    }

    pub(super) fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl: Option<u32>,
        now: u64,
    ) -> Result<(), Failure> {
        let mut entries = self.entries();
        let current = entries.map.get(key).filter(|entry| entry.lives(now)).map(|entry| &*entry.value);
        if current != expected {
            return Err(Failure::Changed);
        }
        entries.set(self, key, value, ttl, now)
    }

    pub(super) fn delete(&self, key: &str, now: u64) -> bool {
        self.entries().remove(key).is_some_and(|entry| entry.lives(now))
    }

    pub(super) fn count(&self, key: &str, add: i64) -> i64 {
        if key.len() > MAX_COUNTER_NAME {
            return 0;
        }
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get_mut(key) {
            *counter = counter.saturating_add(add);
            return *counter;
        }
        if counters.len() >= MAX_COUNTERS {
            return 0;
        }
        counters.insert(key.into(), add);
        add
    }

    /// All counters, by name.
    pub(super) fn counters(&self) -> Vec<(String, i64)> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counters.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        all.sort_unstable();
        all
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn lives(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Entries {
    fn set(
        &mut self,
        bounds: &Store,
        key: &str,
        value: &[u8],
        ttl: Option<u32>,
        now: u64,
    ) -> Result<(), Failure> {
        if key.len() > MAX_KEY || value.len() > MAX_VALUE {
            return Err(Failure::TooLarge);
        }
        let old = self.map.get(key).map_or(0, |entry| cost(key, &entry.value));
        let new = cost(key, value);
        let fits = |entries: &Self| {
            entries.size - old + new <= bounds.max_size && (old > 0 || entries.map.len() < bounds.max_keys)
        };
        if !fits(self) {
            self.sweep(key, now);
            if !fits(self) {
                return Err(Failure::Full);
            }
        }
        self.size = self.size - old + new;
        let until = ttl.map(|ttl| now.saturating_add(ttl.into()));
        self.map.insert(key.into(), Entry { value: value.into(), until });
        Ok(())
    }

    /// Drops what is past its time, but for `kept`, whose place is about to be used.
    fn sweep(&mut self, kept: &str, now: u64) {
        self.map.retain(|key, entry| entry.lives(now) || &**key == kept);
        self.size = self.map.iter().map(|(key, entry)| cost(key, &entry.value)).sum();
    }

    fn remove(&mut self, key: &str) -> Option<Entry> {
        let entry = self.map.remove(key)?;
        self.size -= cost(key, &entry.value);
        Some(entry)
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    ENTRY_COST + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_live_until_their_time_and_compare() {
        let store = Store::new(10, 10_000);
        assert_eq!(store.get("a", 0), None);
        store.set("a", b"1", Some(100), 1000).unwrap();
        assert_eq!(store.get("a", 1099), Some(b"1".to_vec()));
        assert_eq!(store.get("a", 1100), None);
        assert_eq!(store.compare_and_set("a", Some(b"1"), b"2", None, 1100), Err(Failure::Changed));
        assert_eq!(store.compare_and_set("a", None, b"2", None, 1100), Ok(()));
        assert_eq!(store.compare_and_set("a", Some(b"2"), b"3", None, 1100), Ok(()));
        assert!(store.delete("a", 2000) && !store.delete("a", 2000));
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let store = Store::new(3, 1000);
        assert_eq!(store.set(&"k".repeat(MAX_KEY + 1), b"", None, 0), Err(Failure::TooLarge));
        assert_eq!(store.set("k", &vec![0; MAX_VALUE + 1], None, 0), Err(Failure::TooLarge));
        for key in ["a", "b", "c"] {
            store.set(key, b"", Some(10), 0).unwrap();
        }
        assert_eq!(store.set("d", b"", None, 9), Err(Failure::Full));
        store.set("a", b"again", None, 9).unwrap();
        // What is past its time makes room.
        store.set("d", &[0; 700], None, 10).unwrap();
        assert_eq!(store.set("e", &[0; 300], None, 10), Err(Failure::Full));
        assert!(store.delete("d", 10));
        store.set("e", &[0; 300], None, 10).unwrap();
        let entries = store.entries();
        assert_eq!(entries.size, entries.map.iter().map(|(k, e)| cost(k, &e.value)).sum::<usize>());
    }

    #[test]
    fn counters_add_up_and_saturate() {
        let store = Store::new(1, 1);
        assert_eq!((store.count("x", 2), store.count("x", -5)), (2, -3));
        assert_eq!(store.count("x", i64::MIN), i64::MIN);
        assert_eq!(store.count(&"n".repeat(MAX_COUNTER_NAME + 1), 1), 0);
        (1..MAX_COUNTERS).for_each(|i| assert_eq!(store.count(&i.to_string(), 1), 1));
        assert_eq!(store.count("one too many", 1), 0);
        assert_eq!(store.counters().len(), MAX_COUNTERS);
    }
}
