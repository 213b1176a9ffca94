//! What the benchmark ran on, and how much of it others used meanwhile.

use crate::process::{Cpu, cpu};
use serde::Serialize;
use std::time::Duration;

/// The machine, for the report.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Processes that wanted to run when the benchmark began, the mean of a minute.
    load: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn this() -> Self {
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            processor: value("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0)
                / 1024,
            kernel: kernel.trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, memory_mib, kernel, load } = self;
        write!(f, "{processor}, {cores} cores, {memory_mib} MiB, Linux {kernel}, load at the start {load}")
    }
}

fn value(file: &str, key: &str) -> String {
    let text = read(file);
    let line = text.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(':'));
    line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// CPU time of the whole machine so far, and of the benchmark's own process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    busy: Duration,
    all: Duration,
    own: Cpu,
}

impl Reading {
    /// Now.
    pub(crate) fn take() -> Self {
        let text = read("/proc/stat");
        let ticks = |field: &str| Duration::from_millis(10 * field.parse::<u64>().unwrap_or(0));
        // user nice system idle iowait irq softirq steal; what guests use is in user.
        let times: Vec<_> = text.split_whitespace().skip(1).take(8).map(ticks).collect();
        let all: Duration = times.iter().sum();
        let idle: Duration = times.iter().skip(3).take(2).sum();
        Self { busy: all.saturating_sub(idle), all, own: cpu(std::process::id()) }
    }

    /// Which part of the machine, 0 to 1, neither this process nor the contender has used since then.
    pub(crate) fn foreign(self, contender: Duration) -> f64 {
        let now = Self::take();
        let others = now.busy.saturating_sub(self.busy).saturating_sub(now.own.since(self.own) + contender);
        let all = now.all.saturating_sub(self.all).as_secs_f64();
        if all > 0.0 { others.as_secs_f64() / all } else { 0.0 }
    }
}
