//! Row 18: what a decision by plugin adds to the CPU time of a request through a tunnel.
//!
//! pointsman asks a WebAssembly plugin, `plugins/yaml-ingress`, once with no answer used twice and once with answers given again as
//! the plugin allows; GOST asks a process over HTTP, which is the benchmark's own and is not counted.

use super::Bench;
use super::requests::kept;
use crate::contenders::{Answers, Contender};
use crate::rounds::{Head, Line, Sample, Subject, interleaved};
use crate::stage::{Shape, Stage};
use anyhow::{Result, bail};
use std::time::Duration;

const ROUNDS: usize = 5;
/// Of one turn. The difference is small beside what a request costs, so all take short turns: what else the machine does meets them
/// alike.
const TIME: Duration = Duration::from_millis(300);
/// A multiple of 6: of two and of three, each order comes equally often.
const TURNS: usize = 12;
const UNIT: &str = "us of CPU per request";

pub(super) async fn added(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(18, "routing by 1000 rules (tunnel, keep-alive, server + client)", UNIT),
        Head::less(18, "routing by plugin, the same", UNIT),
        Head::less(18, "added by the plugin", UNIT).goal(1.0),
        Head::less(18, "added by the plugin, answers given again", UNIT).goal(0.1),
    ];
    let mut subjects = Vec::new();
    for contender in bench.tunnels() {
        let state = stages(contender).await;
        if let Ok(stages) = &state {
            for stage in stages {
                // What is made at first use has been made then; a failure shows in the rounds.
                drop(kept(stage, TIME).await);
            }
        }
        subjects.push(Subject { name: contender.name(), state });
    }
    interleaved(bench.rounds(ROUNDS), &heads, subjects, async |stages: &mut Vec<Stage>| measure(stages).await)
        .await
}

/// By rules, by plugin, and by plugin with answers given again where there is such a thing.
async fn stages(contender: &dyn Contender) -> Result<Vec<Stage>> {
    let mut kinds = vec![None, Some(Answers::Once)];
    if contender.keeps_answers() {
        kinds.push(Some(Answers::Again));
    }
    let mut stages = Vec::new();
    for plugin in kinds {
        stages.push(Stage::tunnel(contender, Shape { hosts: 1000, plugin, ..Shape::default() }).await?);
    }
    Ok(stages)
}

async fn measure(stages: &[Stage]) -> Result<Sample> {
    let [_, plugin, ..] = stages else { bail!("there is no plugin") };
    let [target, .., process] = &plugin.backends[..] else { bail!("there is no process for the plugin") };
    let before = (target.asked(), process.asked());
    let (mut costs, mut parts) = (vec![0.0; stages.len()], Sample::default());
    for turn in 0..TURNS {
        for which in order(turn, stages.len()) {
            let (cost, part) = kept(&stages[which], TIME).await?;
            costs[which] += cost / TURNS as f64;
            parts = parts.and(part);
        }
    }
    let mut values = costs[..2].to_vec();
    values.extend(costs[1..].iter().map(|cost| cost - costs[0]));
    let sample = Sample::new(&values).and(parts);
    let (requests, questions) = (target.asked() - before.0, process.asked() - before.1);
    if questions == 0 {
        return Ok(sample);
    }
    // Not every contender asks about every request.
    let share = questions as f64 / requests as f64;
    Ok(sample.remark(format!("its process was asked {share:.2} times per request")))
}

/// Who comes after whom in a turn: every second turn begins with another, and the next goes backwards.
fn order(turn: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).map(|place| (place + turn / 2) % count).collect();
    if turn % 2 == 1 {
        order.reverse();
    }
    order
}
