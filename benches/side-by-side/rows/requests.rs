//! Rows 1 to 3, 7 and 8: CPU time of a request.

use super::Bench;
use crate::load::{Closed, ENDLESS, closed};
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_millis(1500);
/// Each connection takes a port of some thirty thousand for a second.
const MOST_CONNECTIONS: u64 = 12_000;
/// How many hosts, of 1000, lie between those of 64 visitors.
const APART: u64 = 15;

pub(super) async fn run(bench: &Bench, row: u8) -> Vec<Line> {
    let (title, keep, goal) = match row {
        1 => ("HTTP by Host, keep-alive, 64 connections", true, 14.0),
        2 => ("HTTP by Host, one connection per request, 16 at once", false, 42.0),
        3 => ("TLS by SNI, handshake and one request per connection, 16 at once", false, 134.0),
        7 => ("tunnel, HTTP keep-alive, 64 connections (server + client)", true, 30.0),
        _ => ("tunnel, one connection per request, 16 at once (server + client)", false, 90.0),
    };
    let load = Closed {
        visitors: if keep { 64 } else { 16 },
        keep,
        time: TIME,
        most: if keep { ENDLESS } else { MOST_CONNECTIONS },
    };
    let subjects = if row > 6 {
        bench.running_tunnels(Shape::default()).await
    } else {
        bench.running_proxies(row == 3).await
    };
    for stage in subjects.iter().filter_map(|subject| subject.state.as_ref().ok()) {
        // What is made at first use has been made then.
        closed(&stage.doors, Closed { time: TIME / 5, ..load }).await;
    }
    let heads = [Head::less(row, title, "us of CPU per request").goal(goal)];
    interleaved(bench.rounds(ROUNDS), &heads, subjects, async |stage: &mut Stage| {
        per_request(stage, load).await
    })
    .await
}

/// Microseconds of the contender's CPU time per request.
pub(super) async fn per_request(stage: &Stage, load: Closed) -> Result<Sample> {
    let before = stage.cpu();
    let tally = closed(&stage.doors, load).await;
    let used = stage.cpu().since(before);
    ensure!(tally.done > 0, "no request was answered: {}", tally.first.as_deref().unwrap_or("no reason"));
    let value = used.as_secs_f64() * 1e6 / tally.done as f64;
    Ok(Sample::new(&[value]).with(&tally).used(used))
}

/// The same for 64 kept connections, as a number. The hosts that they ask for lie apart.
pub(super) async fn kept(stage: &Stage, time: Duration) -> Result<(f64, Sample)> {
    let sample = per_request(stage, Closed { visitors: 64, keep: true, time, most: ENDLESS + APART }).await?;
    let value = sample.first().context("no value")?;
    Ok((value, sample))
}
