//! Rows 6 and 12 to 14: memory, of programs that are started anew in each round.

use super::{Bench, fresh};
use crate::contenders::Contender;
use crate::process::Cpu;
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use crate::visitor::Visitor;
use anyhow::Result;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

const ROUNDS: usize = 3;
/// Connections that are held open, and how many of them are opened at once.
const IDLE: u64 = 1000;
const AT_ONCE: u64 = 50;
const TUNNELS: usize = 1000;
const RULES: usize = 100_000;
/// Memory has settled when two looks, so long apart, differ by less than a hundredth; or after so many looks.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: usize = 15;

type One = &'static dyn Contender;

pub(super) async fn proxied(bench: &Bench) -> Vec<Line> {
    let mut lines = Vec::new();
    for (tls, title) in
        [(true, "idle proxied connection, TLS by SNI"), (false, "idle proxied connection, HTTP")]
    {
        let heads = [Head::less(6, title, "KiB")];
        let measure = async |one: &mut One| idle(Stage::proxy(*one, tls).await?).await;
        lines.extend(interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.proxies()), measure).await);
    }
    lines
}

pub(super) async fn tunnelled(bench: &Bench) -> Vec<Line> {
    let heads = [Head::less(12, "idle tunnelled connection, HTTP (server + client)", "KiB")];
    let measure = async |one: &mut One| idle(Stage::tunnel(*one, Shape::default()).await?).await;
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}

/// What each of many connections adds, which have had one request and then nothing.
async fn idle(stage: Stage) -> Result<Sample> {
    let before = settled(&stage).await;
    let mut held = Vec::new();
    for first in (0..IDLE).step_by(AT_ONCE as usize) {
        let open = |number: u64| {
            let door = stage.doors[(number % stage.doors.len() as u64) as usize].clone();
            async move {
                let mut visitor = Visitor::connect(&door, number).await?;
                visitor.echo(number, false).await?;
                anyhow::Ok(visitor)
            }
        };
        for visitor in (first..first + AT_ONCE).map(open).collect::<JoinSet<_>>().join_all().await {
            held.push(visitor?);
        }
    }
    let more = settled(&stage).await.saturating_sub(before);
    drop(held);
    Ok(Sample::new(&[more as f64 / 1024.0 / IDLE as f64]).used(stage.cpu().since(Cpu::default())))
}

/// Bytes, once they no longer change.
async fn settled(stage: &Stage) -> u64 {
    let mut last = stage.memory();
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        let now = stage.memory();
        let near = now.abs_diff(last) < now / 100;
        last = now;
        if near {
            break;
        }
    }
    last
}

pub(super) async fn tunnels(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(13, "memory of a server with 1 tunnel", "MiB"),
        Head::less(13, format!("memory of a server with {TUNNELS} tunnels"), "MiB"),
    ];
    let measure = async |one: &mut One| {
        let (mut values, mut used) = (Vec::new(), Duration::ZERO);
        for tunnels in [1, TUNNELS] {
            let stage = Stage::tunnel(*one, Shape { tunnels, ..Shape::default() }).await?;
            settled(&stage).await;
            values.push(stage.processes[0].memory() as f64 / f64::from(1 << 20));
            used += stage.cpu().since(Cpu::default());
        }
        Ok(Sample::new(&values).used(used))
    };
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}

pub(super) async fn rules(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(14, format!("{RULES} ingress rules, start until the port is open"), "s"),
        Head::less(14, format!("{RULES} ingress rules, memory of the server"), "MiB"),
    ];
    let measure = async |one: &mut One| {
        let stage = Stage::tunnel(*one, Shape { hosts: RULES, ..Shape::default() }).await?;
        settled(&stage).await;
        let memory = stage.processes[0].memory() as f64 / f64::from(1 << 20);
        Ok(Sample::new(&[stage.start.as_secs_f64(), memory]).used(stage.cpu().since(Cpu::default())))
    };
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}
