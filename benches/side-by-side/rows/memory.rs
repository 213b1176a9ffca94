//! Rows 6 and 12 to 14: memory, of programs that are started anew in each round.

use super::{Bench, fresh};
use crate::contenders::Contender;
use crate::load::{Silence, idle};
use crate::process::Cpu;
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use anyhow::Result;
use std::time::Duration;

const ROUNDS: usize = 3;
/// Connections that are held open.
const IDLE: u64 = 1000;
const TUNNELS: usize = 1000;
const RULES: usize = 100_000;

type One = &'static dyn Contender;

pub(super) async fn proxied(bench: &Bench) -> Vec<Line> {
    let mut lines = Vec::new();
    for (tls, title, goal) in
        [(true, "idle proxied connection, TLS by SNI", 3.0), (false, "idle proxied connection, HTTP", 1.0)]
    {
        let heads = [Head::less(6, title, "KiB").goal(goal)];
        let measure = async |one: &mut One| each(Stage::proxy(*one, tls).await?).await;
        lines.extend(interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.proxies()), measure).await);
    }
    lines
}

pub(super) async fn tunnelled(bench: &Bench) -> Vec<Line> {
    let heads = [Head::less(12, "idle tunnelled connection, HTTP (server + client)", "KiB").goal(6.0)];
    let measure = async |one: &mut One| each(Stage::tunnel(*one, Shape::default()).await?).await;
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}

/// What each of many connections adds, which have had one request and then nothing.
async fn each(stage: Stage) -> Result<Sample> {
    let before = stage.settled().await;
    let held = idle(&stage.doors, IDLE, Silence::Answered).await?;
    let more = stage.settled().await.saturating_sub(before);
    drop(held);
    Ok(Sample::new(&[more as f64 / 1024.0 / IDLE as f64]).used(stage.cpu().since(Cpu::default())))
}

pub(super) async fn tunnels(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(13, "memory of a server with 1 tunnel", "MiB").goal(8.0),
        Head::less(13, format!("memory of a server with {TUNNELS} tunnels"), "MiB").goal(14.0),
    ];
    let measure = async |one: &mut One| {
        let (mut values, mut used) = (Vec::new(), Duration::ZERO);
        for tunnels in [1, TUNNELS] {
            let stage = Stage::tunnel(*one, Shape { tunnels, ..Shape::default() }).await?;
            stage.settled().await;
            values.push(stage.processes[0].memory() as f64 / f64::from(1 << 20));
            used += stage.cpu().since(Cpu::default());
        }
        Ok(Sample::new(&values).used(used))
    };
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}

pub(super) async fn rules(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(14, format!("{RULES} ingress rules, start until the port is open"), "s").goal(0.25),
        Head::less(14, format!("{RULES} ingress rules, memory of the server"), "MiB").goal(30.0),
    ];
    let measure = async |one: &mut One| {
        let stage = Stage::tunnel(*one, Shape { hosts: RULES, ..Shape::default() }).await?;
        stage.settled().await;
        let memory = stage.processes[0].memory() as f64 / f64::from(1 << 20);
        Ok(Sample::new(&[stage.start.as_secs_f64(), memory]).used(stage.cpu().since(Cpu::default())))
    };
    interleaved(bench.rounds(ROUNDS), &heads, fresh(bench.tunnels()), measure).await
}
