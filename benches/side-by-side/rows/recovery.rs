//! Rows 15 and 16: how long a tunnel is out of order after something else was.

use super::{Bench, fresh};
use crate::contenders::Contender;
use crate::load::{Silence, idle, open, steady};
use crate::process::Cpu;
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use anyhow::bail;
use rustix::process::Signal;
use std::time::Duration;
use tokio::time::{Instant, sleep};

type One = &'static dyn Contender;

/// Row 15: its rounds; how long the server is away, its return is waited for, and one request may take meanwhile.
const ROUNDS: usize = 5;
const AWAY: Duration = Duration::from_secs(1);
const RETURN: Duration = Duration::from_secs(40);
const VISIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Row 16, which takes long.
const STOPPED_ROUNDS: usize = 3;
const RATE: u32 = 10;
const WATCH: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(2);
/// The same with connections that are kept, of so many visitors, who ask again after so long.
const KEPT: u64 = 8;
const KEPT_WATCH: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);

pub(super) async fn restarted(bench: &Bench) -> Vec<Line> {
    let heads =
        [Head::less(15, "tunnel server killed and back after 1 s: first good request after it is up", "ms")
            .goal(300.0)];
    let measure = async |one: &mut One| {
        let mut stage = Stage::tunnel(*one, Shape::default()).await?;
        stage.processes[0].kill();
        sleep(AWAY).await;
        stage.processes[0].restart()?;
        stage.listens().await?;
        let up = Instant::now();
        while let Err(error) = stage.doors[0].visit(0, VISIT).await {
            if up.elapsed() > RETURN {
                bail!("no good request in {RETURN:?}: {error:#}");
            }
            sleep(PAUSE).await;
        }
        Ok(Sample::new(&[up.elapsed().as_secs_f64() * 1e3]).used(stage.cpu().since(Cpu::default())))
    };
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}

pub(super) async fn stopped(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(16, "two clients on one tunnel, one SIGSTOPped: until requests no longer fail", "s")
            .goal(2.0),
        Head::less(16, "the same: requests, of 400 in 40 s, without a reply in 2 s", "requests").goal(0.0),
    ];
    let measure = async |one: &mut One| {
        let stage = Stage::tunnel(*one, Shape { clients: 2, ..Shape::default() }).await?;
        stage.processes[1].signal(Signal::STOP);
        let tally = open(&stage.doors[0], RATE, WATCH, PATIENCE).await;
        stage.processes[1].signal(Signal::CONT);
        let failed = tally.visits.iter().filter(|visit| !visit.good);
        let last = failed.clone().map(|visit| visit.due + visit.took).max().unwrap_or_default();
        let values = [last.as_secs_f64(), failed.count() as f64];
        let sample = Sample::new(&values).used(stage.cpu().since(Cpu::default()));
        Ok(if last > WATCH { sample.remark("requests fail to the end") } else { sample })
    };
    let mut lines = interleaved(bench.rounds(STOPPED_ROUNDS), &heads, fresh(bench.tunnels()), measure).await;
    lines.extend(stopped_under_kept(bench).await);
    lines
}

/// Each connection has had an answer from one of the clients, and then one of them hangs.
async fn stopped_under_kept(bench: &Bench) -> Vec<Line> {
    let title = "the same with 8 kept connections: requests, of up to 800 in 10 s, without a reply in 2 s";
    let heads = [Head::less(16, title, "requests").goal(0.0)];
    let measure = async |one: &mut One| {
        let stage = Stage::tunnel(*one, Shape { clients: 2, ..Shape::default() }).await?;
        let visitors = idle(&stage.doors, KEPT, Silence::Answered).await?;
        stage.processes[1].signal(Signal::STOP);
        let tally = steady(&stage.doors[0], visitors, KEPT_WATCH, AGAIN, PATIENCE).await;
        stage.processes[1].signal(Signal::CONT);
        let used = stage.cpu().since(Cpu::default());
        Ok(Sample::new(&[tally.errors as f64]).with(&tally).used(used))
    };
    interleaved(bench.rounds(STOPPED_ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}
