//! `hops[]`, which chains and forwarders name, and what every choice between nodes has: `selector` and its marks.

use super::reader::{Bare, Field, Map, nearest};
use super::settings::{flag, proxy_protocol, word};
use crate::route::hop::{NodeSettings, Strategy};
use crate::wire::proxy::Version;
use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

const MAX_FAILS: u32 = 1;
const FAIL_TIMEOUT: Duration = Duration::from_secs(10);

const STRATEGIES: &[&str] =
    &["round", "rr", "random", "rand", "fifo", "ha", "hash", "parallel", "lowestlatency", "lowest", "ll"];

/// The hops of all files by name.
#[derive(Debug)]
pub(crate) struct Hops<'a> {
    named: HashMap<&'a str, (Field<'a>, Cell<bool>)>,
}

impl<'a> Hops<'a> {
    pub(crate) fn new(fields: Vec<Field<'a>>) -> Self {
        let mut named = HashMap::with_capacity(fields.len());
        for field in fields {
            match field.name() {
                Some(name) => drop(named.insert(name, (field, Cell::new(false)))),
                None => field.error("hop without a name".to_owned(), "expected name: hop-0"),
            }
        }
        Self { named }
    }

    /// The hop of that name, which counts as used from now on.
    pub(crate) fn find(&self, name: &str) -> Option<&Field<'a>> {
        let (field, used) = self.named.get(name)?;
        used.set(true);
        Some(field)
    }

    /// Which one may have been meant.
    pub(crate) fn nearest(&self, name: &str) -> String {
        nearest(name, self.named.keys().copied())
    }

    /// A hop is read by what uses it: without that it is not known what its nodes must have.
    pub(crate) fn warn_of_unused(&self) {
        for (field, _) in self.named.values().filter(|(_, used)| !used.get()) {
            let help = "name it in a chain's hops or as hop: of a forwarder, or remove it";
            field.warn("hop that nothing uses; it was not checked".to_owned(), help);
        }
    }
}

/// `selector`: the strategy, and the marks of nodes that say nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) strategy: Strategy,
    max_fails: u32,
    fail_timeout: Duration,
}

impl Choice {
    /// Reads the `selector` of a hop or a forwarder.
    pub(crate) fn read(map: &Map<'_>) -> Self {
        let mut choice = Self { strategy: Strategy::Round, max_fails: MAX_FAILS, fail_timeout: FAIL_TIMEOUT };
        let Some(selector) = map.section("selector") else { return choice };
        if let Some(field) = selector.filled(&["strategy"]) {
            choice.strategy = strategy(&field);
        }
        choice.marks(&selector, Bare::Nanoseconds);
        selector.finish(&["maxLatency"], &[]);
        choice
    }

    fn marks(&mut self, map: &Map<'_>, bare: Bare) {
        let fails = map.filled(&["maxFails"]).and_then(|f| f.number(0..=i64::from(u32::MAX)));
        let fails = fails.and_then(|n| u32::try_from(n).ok()).filter(|n| *n != 0);
        self.max_fails = fails.unwrap_or(self.max_fails);
        let timeout = map.filled(&["failTimeout"]).and_then(|f| f.wait(bare));
        self.fail_timeout = timeout.unwrap_or(self.fail_timeout);
    }

    /// A node with these marks, and what its `metadata` says otherwise; with it the PROXY header that it wants.
    pub(crate) fn node(&self, name: String, metadata: Option<Map<'_>>) -> (NodeSettings, Option<Version>) {
        let (mut weight, mut backup, mut marks, mut labels) = (1, false, *self, Vec::new());
        let mut header = None;
        if let Some(metadata) = metadata {
            let number = metadata.filled(&["weight"]).and_then(|f| f.number(0..=i64::from(u32::MAX)));
            weight = number.and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1);
            backup = flag(&metadata, &["backup"]).unwrap_or(false);
            marks.marks(&metadata, Bare::Seconds);
            if let Some(section) = metadata.filled(&["labels"]).and_then(|f| f.map()) {
                labels = section.into_texts().collect();
            }
            header = proxy_protocol(&metadata, "proxyProtocol");
            metadata.finish(&[], &["interface", "so_mark", "netns"]);
        }
        let node = NodeSettings {
            weight,
            backup,
            max_fails: marks.max_fails,
            labels,
            ..NodeSettings::new(name, marks.fail_timeout)
        };
        (node, header)
    }
}

fn strategy(field: &Field<'_>) -> Strategy {
    match word(field, STRATEGIES) {
        Some("random" | "rand") => Strategy::Random,
        Some("fifo" | "ha") => Strategy::Fifo,
        Some("hash") => Strategy::Hash,
        Some("round" | "rr") | None => Strategy::Round,
        Some(other) => {
            let message = format!("strategy {other:?} is not supported yet: round is used");
            field.warn(message, "expected round, random, fifo or hash");
            Strategy::Round
        }
    }
}
