//! The axes: what grows, how far, and how one point is measured.

use crate::contenders::OURS;
use crate::load::{Closed, ENDLESS, Silence, closed, idle};
use crate::process::{Cpu, Process};
use crate::stage::{Shape, Stage};
use anyhow::{Result, ensure};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Who ask, each over a connection of its own that is kept.
const VISITORS: u64 = 64;
const TIME: Duration = Duration::from_millis(1200);

/// Something that there is more and more of.
#[derive(Debug, Serialize)]
pub(super) struct Axis {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What is done, or whose cost it is.
    pub(super) note: &'static str,
    /// One of what grows.
    pub(super) unit: &'static str,
    #[serde(skip)]
    pub(super) points: &'static [u64],
    #[serde(skip)]
    what: What,
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Connections,
    Rules,
    /// Whether the visitors are spread over all tunnels.
    Tunnels {
        spread: bool,
    },
    Streams,
    Plugins,
}

/// All axes, in the order of the table.
pub(super) const AXES: &[Axis] = &[
    Axis {
        name: "connections",
        title: "idle connections beside the 64",
        note: "HTTP by Host",
        unit: "connection",
        points: &[1, 10, 100, 1000, 3000, 9000],
        what: What::Connections,
    },
    Axis {
        name: "rules",
        title: "ingress rules",
        note: "requests for hosts all over them; tunnel server alone",
        unit: "rule",
        points: &[10, 100, 1000, 10_000, 100_000],
        what: What::Rules,
    },
    Axis {
        name: "tunnels",
        title: "tunnels, one of them in use",
        note: "server + client",
        unit: "tunnel",
        points: &[1, 10, 100, 300, 1000],
        what: What::Tunnels { spread: false },
    },
    Axis {
        name: "tunnels-spread",
        title: "tunnels, up to 64 of them in use",
        note: "server + client",
        unit: "tunnel",
        points: &[1, 10, 100, 300, 1000],
        what: What::Tunnels { spread: true },
    },
    Axis {
        name: "streams",
        title: "silent streams beside the 64 in a session",
        note: "server + client",
        unit: "stream",
        points: &[1, 10, 100, 1000, 5000],
        what: What::Streams,
    },
    Axis {
        name: "plugins",
        title: "plugins",
        note: "a service for each; all of them asked",
        unit: "plugin",
        points: &[1, 3, 10, 25, 50],
        what: What::Plugins,
    },
];

/// One point in one round.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    /// Microseconds of CPU time per request.
    pub(super) cpu: f64,
    /// Bytes, all of it, while what grows is there and nobody asks.
    pub(super) memory: u64,
    /// The same of each program.
    parts: Vec<(&'static str, u64)>,
    /// Connections to targets meanwhile.
    connections: u64,
    pub(super) errors: u64,
    #[serde(skip)]
    pub(super) remark: Option<String>,
    /// CPU time of all the programs since they were started.
    #[serde(skip)]
    pub(super) used: Duration,
}

impl Axis {
    /// Starts what is measured, lets so many be there of what grows, and has requests made meanwhile.
    pub(super) async fn measure(&self, units: u64, cache: &Path) -> Result<Sample> {
        let stage = self.start(units, cache).await?;
        let held = match self.what {
            What::Connections => idle(&stage.doors, units, Silence::Answered).await?,
            What::Streams => idle(&stage.doors, units, Silence::Unfinished).await?,
            _ => Vec::new(),
        };
        // A visitor between two requests would take none.
        let streams = stage.backends.iter().map(|backend| backend.held()).sum::<u64>();
        ensure!(self.what != What::Streams || streams >= units, "only {streams} streams are open");
        let doors =
            if self.what == (What::Tunnels { spread: false }) { &stage.doors[..1] } else { &stage.doors };
        let load = Closed { visitors: VISITORS, keep: true, time: TIME, most: self.numbers(units) };
        // What is made at first use has been made then.
        closed(doors, Closed { time: TIME / 4, ..load }).await;
        let before = self.cpu(&stage);
        let tally = closed(doors, load).await;
        let used = self.cpu(&stage).since(before);
        let first = tally.first.as_deref();
        ensure!(tally.done > 0, "no request was answered: {}", first.unwrap_or("no reason"));
        stage.settled().await;
        let memory: Vec<_> =
            self.counted(&stage).iter().map(|process| (process.role, process.memory())).collect();
        let sample = Sample {
            cpu: used.as_secs_f64() * 1e6 / tally.done as f64,
            memory: memory.iter().map(|(_, bytes)| bytes).sum(),
            parts: memory,
            connections: streams,
            errors: tally.errors,
            remark: tally.first,
            used: stage.cpu().since(Cpu::default()),
        };
        drop(held);
        Ok(sample)
    }

    async fn start(&self, units: u64, cache: &Path) -> Result<Stage> {
        let count = usize::try_from(units)?;
        match self.what {
            What::Connections => Stage::proxy(OURS, false).await,
            What::Rules => Stage::tunnel(OURS, Shape { hosts: count, ..Shape::default() }).await,
            What::Tunnels { .. } => Stage::tunnel(OURS, Shape { tunnels: count, ..Shape::default() }).await,
            What::Streams => Stage::tunnel(OURS, Shape::default()).await,
            What::Plugins => Stage::plugins(count, cache).await,
        }
    }

    /// How many numbers of requests each visitor has for itself: their hosts are to lie far apart.
    fn numbers(&self, units: u64) -> u64 {
        let apart = if self.what == What::Rules { units / VISITORS } else { 0 };
        ENDLESS / units * units + apart
    }

    fn cpu(&self, stage: &Stage) -> Cpu {
        Cpu::sum(self.counted(stage).iter().map(Process::cpu))
    }

    /// Rules are the server's alone.
    fn counted<'a>(&self, stage: &'a Stage) -> &'a [Process] {
        if self.what == What::Rules { &stage.processes[..1] } else { &stage.processes }
    }
}
