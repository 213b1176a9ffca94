//! Row 18: what a decision by plugin adds to the CPU time of a request through a tunnel.
//!
//! pointsman asks a WebAssembly plugin, `plugins/yaml-ingress`, and no answer is used twice; GOST asks a process over HTTP,
//! which is the benchmark's own and is not counted.

use super::Bench;
use super::requests::kept;
use crate::rounds::{Head, Line, Sample, Subject, interleaved};
use crate::stage::{Shape, Stage};
use anyhow::{Result, bail};
use std::time::Duration;

const ROUNDS: usize = 5;
/// Of one turn. The difference is small beside what a request costs, so both take short turns: what else the machine does meets them
/// alike.
const TIME: Duration = Duration::from_millis(300);
const TURNS: usize = 8;

pub(super) async fn added(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(
            18,
            "routing by 1000 rules (tunnel, keep-alive, server + client)",
            "us of CPU per request",
        ),
        Head::less(18, "routing by plugin, the same", "us of CPU per request"),
        Head::less(18, "added by the plugin", "us of CPU per request").goal(1.0),
    ];
    let shape = Shape { hosts: 1000, ..Shape::default() };
    let mut subjects = Vec::new();
    for contender in bench.tunnels() {
        let both = async {
            let rules = Stage::tunnel(contender, shape).await?;
            anyhow::Ok([rules, Stage::tunnel(contender, Shape { plugin: true, ..shape }).await?])
        };
        let state = both.await;
        if let Ok(stages) = &state {
            for stage in stages {
                // What is made at first use has been made then; a failure shows in the rounds.
                drop(kept(stage, TIME).await);
            }
        }
        subjects.push(Subject { name: contender.name(), state });
    }
    interleaved(bench.rounds(ROUNDS), &heads, subjects, async |both: &mut [Stage; 2]| measure(both).await)
        .await
}

async fn measure(stages: &[Stage; 2]) -> Result<Sample> {
    let [_, plugin] = stages;
    let [target, .., process] = &plugin.backends[..] else { bail!("there is no process for the plugin") };
    let before = (target.asked(), process.asked());
    let (mut costs, mut parts) = ([0.0; 2], Sample::default());
    for turn in 0..TURNS {
        // Each is the first of the two in every other turn.
        for which in [turn % 2, 1 - turn % 2] {
            let (cost, part) = kept(&stages[which], TIME).await?;
            costs[which] += cost / TURNS as f64;
            parts = parts.and(part);
        }
    }
    let [by_rules, by_plugin] = costs;
    let sample = Sample::new(&[by_rules, by_plugin, by_plugin - by_rules]).and(parts);
    let (requests, questions) = (target.asked() - before.0, process.asked() - before.1);
    if questions == 0 {
        return Ok(sample);
    }
    // Not every contender asks about every request.
    let share = questions as f64 / requests as f64;
    Ok(sample.remark(format!("its process was asked {share:.2} times per request")))
}
