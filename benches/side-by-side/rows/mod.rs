//! What is measured, row by row of the table. A row says its rounds, starts its contenders, and measures them in turn.

mod bulk;
mod latency;
mod line;
mod memory;
mod plugin;
mod recovery;
mod requests;

use crate::contenders::{Contender, PROXIES, TUNNELS};
use crate::options::Options;
use crate::rounds::{Line, Subject};
use crate::stage::{Shape, Stage};
use anyhow::Result;

/// All rows there are.
pub(crate) const ROWS: std::ops::RangeInclusive<u8> = 1..=18;

/// What the rows are run with.
pub(crate) struct Bench {
    pub(crate) options: Options,
}

impl Bench {
    /// Runs one row; the lines of the table.
    pub(crate) async fn row(&self, row: u8) -> Vec<Line> {
        match row {
            1..=3 | 7 | 8 => requests::run(self, row).await,
            4 | 5 => bulk::proxies(self, row).await,
            6 => memory::proxied(self).await,
            9 => bulk::tunnels(self).await,
            10 => latency::beside_bulk(self).await,
            11 => latency::beside_stopped(self).await,
            12 => memory::tunnelled(self).await,
            13 => memory::tunnels(self).await,
            14 => memory::rules(self).await,
            15 => recovery::restarted(self).await,
            16 => recovery::stopped(self).await,
            17 => line::share(self).await,
            18 => plugin::added(self).await,
            _ => Vec::new(),
        }
    }

    fn rounds(&self, usual: usize) -> usize {
        self.options.rounds.unwrap_or(usual)
    }

    fn proxies(&self) -> Vec<&'static dyn Contender> {
        PROXIES.iter().copied().filter(|one| self.options.wants(one.name())).collect()
    }

    fn tunnels(&self) -> Vec<&'static dyn Contender> {
        TUNNELS.iter().copied().filter(|one| self.options.wants(one.name())).collect()
    }

    /// The reverse proxies, running.
    async fn running_proxies(&self, tls: bool) -> Vec<Subject<Stage>> {
        let mut subjects = Vec::new();
        for contender in self.proxies() {
            subjects.push(Subject { name: contender.name(), state: Stage::proxy(contender, tls).await });
        }
        subjects
    }

    /// The tunnels, running.
    async fn running_tunnels(&self, shape: Shape) -> Vec<Subject<Stage>> {
        let mut subjects = Vec::new();
        for contender in self.tunnels() {
            subjects.push(Subject { name: contender.name(), state: Stage::tunnel(contender, shape).await });
        }
        subjects
    }
}

/// Those that are started anew in each round.
fn fresh(contenders: Vec<&'static dyn Contender>) -> Vec<Subject<&'static dyn Contender>> {
    let here = |one: &'static dyn Contender| one.version().map(|_| one);
    contenders.into_iter().map(|one| Subject { name: one.name(), state: here(one) }).collect()
}

/// No contender at all: what the machine and the benchmark themselves do.
async fn direct(slow: bool) -> Subject<Stage> {
    let state: Result<Stage> = Stage::direct(slow).await;
    Subject { name: "(direct)", state }
}
