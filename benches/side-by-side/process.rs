//! Running programs of a contender: their CPU time and memory by what `/proc` says, and their end.
//!
//! A program counts with all the processes that it starts. Its output goes to a file, of which an error shows the last lines.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What the kernel counts CPU time in, for programs: a hundredth of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// A difference between two readings of times in ticks may be too large by this, as user and system time are rounded each.
const ROUNDING: Duration = Duration::from_millis(20);

/// A program that can be started, and started again.
#[derive(Debug)]
pub(crate) struct Part {
    /// `server`, `client`, `proxy`.
    pub(crate) role: &'static str,
    /// With its arguments; the output is set here.
    pub(crate) command: Command,
}

/// A running program; killed when dropped, with the processes that it has started.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) role: &'static str,
    command: Command,
    child: Child,
    log: PathBuf,
}

/// CPU time so far, of all threads.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// By the scheduler, to the nanosecond, of the threads that there still are.
    threads: Duration,
    /// In ticks, of all that there ever were.
    ticks: Duration,
}

impl Cpu {
    /// What has been used since an earlier reading.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let ticks = self.ticks.saturating_sub(earlier.ticks).saturating_sub(ROUNDING);
        self.threads.saturating_sub(earlier.threads).max(ticks)
    }

    fn plus(self, other: Self) -> Self {
        Self { threads: self.threads + other.threads, ticks: self.ticks + other.ticks }
    }

    /// The sum of several.
    pub(crate) fn sum(all: impl Iterator<Item = Self>) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

impl Process {
    /// Starts a program; what it prints goes to `log`.
    pub(crate) fn start(part: Part, log: PathBuf) -> Result<Self> {
        let Part { role, mut command } = part;
        let child = spawn(&mut command, &log)?;
        Ok(Self { role, command, child, log })
    }

    /// Starts it again as before.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.kill();
        self.child = spawn(&mut self.command, &self.log)?;
        Ok(())
    }

    /// An error with the end of the log if it is not running.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the {} has ended ({status}): {}", self.role, self.last_words()),
        }
    }

    /// The end of its log, at most 400 bytes on one line.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(400)..]);
        end.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// CPU time of it and of all that it has started.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::sum(self.pids().into_iter().map(cpu))
    }

    /// Proportional share of memory of it and of all that it has started, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.pids().into_iter().map(memory).sum()
    }

    /// Stops it, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        for pid in self.pids() {
            send(pid, signal);
        }
    }

    /// Ends it at once, without a word.
    pub(crate) fn kill(&mut self) {
        // The children first would be replaced by the parent.
        let pids = self.pids();
        drop(self.child.kill());
        for pid in pids.into_iter().skip(1) {
            send(pid, Signal::KILL);
        }
        drop(self.child.wait());
    }

    /// Its own number, then those of all that it has started.
    fn pids(&self) -> Vec<u32> {
        let parents = parents();
        let mut pids = vec![self.child.id()];
        let mut at = 0;
        while let Some(&parent) = pids.get(at) {
            pids.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        pids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(command: &mut Command, log: &PathBuf) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("\"{}\"", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    command.spawn().with_context(|| format!("{:?} cannot be started", command.get_program()))
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Who has gone already needs no signal.
    let _gone = pid.map(|pid| kill_process(pid, signal));
}

/// Each process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let parent = |pid: u32| Some((pid, field(&stat(pid)?, 1)? as u32));
    entries.filter_map(|entry| parent(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// CPU time of one process, of all its threads.
pub(crate) fn cpu(pid: u32) -> Cpu {
    let ticks = stat(pid).and_then(|stat| Some(field(&stat, 11)? + field(&stat, 12)?)).unwrap_or(0);
    Cpu {
        threads: Duration::from_nanos(scheduled(pid)),
        ticks: TICK * u32::try_from(ticks).unwrap_or(u32::MAX),
    }
}

/// Nanoseconds that its threads have run.
fn scheduled(pid: u32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let nanos = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(nanos).sum()
}

/// Bytes; pages that several processes share are divided among them.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What follows the name in `/proc/PID/stat`, which may hold blanks and brackets.
fn stat(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.to_owned())
}

fn field(stat: &str, index: usize) -> Option<u64> {
    stat.split_whitespace().nth(index)?.parse().ok()
}
