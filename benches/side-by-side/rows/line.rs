//! Row 17: one download over a slow line, and new requests.

use super::latency::p99;
use super::{Bench, direct};
use crate::delay::{DELAY, RATE};
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use crate::visitor::{Progress, Visitor};
use anyhow::Result;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ROUNDS: usize = 3;
/// Until a stream has found its pace, which does not count; and how long it is watched then.
const BEGIN: Duration = Duration::from_secs(1);
const WATCH: Duration = Duration::from_secs(3);
const ENDLESS: u64 = 1 << 40;
const DRAIN: Duration = Duration::from_secs(2);

pub(super) async fn share(bench: &Bench) -> Vec<Line> {
    let title = "tunnel over a line of 1 Gbit/s with 50 ms each way, one download: share of the line";
    let heads = [
        Head::more(17, title, "%").goal(95.0),
        Head::less(17, "the same line, 200 new requests/s and nothing else: p99", "round trips").goal(1.1),
    ];
    let mut subjects = bench.running_tunnels(Shape { slow: true, ..Shape::default() }).await;
    subjects.push(direct(true).await);
    interleaved(bench.rounds(ROUNDS), &heads, subjects, async |stage: &mut Stage| measure(stage).await).await
}

async fn measure(stage: &Stage) -> Result<Sample> {
    let before = stage.cpu();
    let mut visitor = Visitor::connect(&stage.doors[0], 0).await?;
    visitor.begin(&format!("/bytes/{ENDLESS}"), ENDLESS).await?;
    let mut progress = Progress::default();
    visitor.read_until(&mut progress, ENDLESS, Instant::now() + BEGIN).await?;
    let (from, start) = (progress.bytes, Instant::now());
    visitor.read_until(&mut progress, ENDLESS, start + WATCH).await?;
    let share = (progress.bytes - from) as f64 / start.elapsed().as_secs_f64() / RATE;
    progress.verify()?;
    drop(visitor);
    // What of the download is under way still has gone by then.
    sleep(DRAIN).await;
    let trips = p99(&stage.doors[0]).await?.as_secs_f64() / (2 * DELAY).as_secs_f64();
    Ok(Sample::new(&[share * 100.0, trips]).used(stage.cpu().since(before)))
}
