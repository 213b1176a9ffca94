//! Rows 10 and 11: what requests wait for beside others in the same tunnel.

use super::{Bench, direct};
use crate::load::{Visit, open};
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use crate::visitor::{Door, Progress, Visitor};
use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const ROUNDS: usize = 3;
/// For one request.
const PATIENCE: Duration = Duration::from_secs(2);
/// New requests a second, and how long they go on.
const RATE: u32 = 200;
const TIME: Duration = Duration::from_secs(4);

/// Row 10.
/// How long it is measured what a stream can carry.
const CAPACITY: Duration = Duration::from_secs(1);
/// More than anything carries in that time.
const ENDLESS: u64 = 1 << 40;

/// Row 11.
const STOPPED: u64 = 8;
const BODY: u64 = 64 << 20;
const READ_BEFORE: u64 = 1 << 20;
const STOP: Duration = Duration::from_secs(10);
const OTHERS: u32 = 100;
const LATE: Duration = Duration::from_millis(100);

pub(super) async fn beside_bulk(bench: &Bench) -> Vec<Line> {
    let heads = [
        Head::less(10, "tunnel, 200 new requests/s beside a bulk stream at half of what fits: p99", "ms"),
        Head::less(10, "the same, against no tunnel beside the same stream", "times").goal(1.5),
    ];
    let subjects = bench.running_tunnels(Shape::default()).await;
    let measure = async |stage: &mut Stage| {
        let before = stage.cpu();
        let door = &stage.doors[0];
        let half = capacity(door).await? / 2;
        let without = Stage::direct(false).await?;
        let [tunnelled, direct] = [beside(door, half).await?, beside(&without.doors[0], half).await?];
        let values = [tunnelled.as_secs_f64() * 1e3, tunnelled.as_secs_f64() / direct.as_secs_f64()];
        let remark = format!("stream of {:.0} MB/s", half as f64 / 1e6);
        Ok(Sample::new(&values).remark(remark).used(stage.cpu().since(before)))
    };
    interleaved(bench.rounds(ROUNDS), &heads, subjects, measure).await
}

/// Bytes a second of one download.
async fn capacity(door: &Door) -> Result<u64> {
    let mut visitor = Visitor::connect(door, 0).await?;
    visitor.begin(&format!("/bytes/{ENDLESS}"), ENDLESS).await?;
    let (start, mut progress) = (Instant::now(), Progress::default());
    visitor.read_until(&mut progress, ENDLESS, start + CAPACITY).await?;
    let rate = progress.bytes as f64 / start.elapsed().as_secs_f64();
    progress.verify()?;
    Ok(rate as u64)
}

/// [`p99`] beside a stream of so many bytes a second.
async fn beside(door: &Door, rate: u64) -> Result<Duration> {
    let count = (rate as f64 * TIME.as_secs_f64()) as u64;
    let stream = async {
        let mut visitor = Visitor::connect(door, 0).await?;
        visitor.begin(&format!("/paced/{rate}/{count}"), count).await?;
        let mut progress = Progress::default();
        visitor.read(&mut progress, count).await?;
        progress.verify()
    };
    let (stream, p99) = tokio::join!(stream, p99(door));
    stream.context("the stream")?;
    p99
}

/// The time in which 99 of 100 new requests were answered.
pub(super) async fn p99(door: &Door) -> Result<Duration> {
    let tally = open(door, RATE, TIME, PATIENCE).await;
    ensure!(tally.errors == 0, "{} requests failed: {}", tally.errors, tally.first.unwrap_or_default());
    let mut times: Vec<_> = tally.visits.iter().map(|visit| visit.took).collect();
    times.sort();
    times.get(times.len() * 99 / 100).copied().context("no requests")
}

pub(super) async fn beside_stopped(bench: &Bench) -> Vec<Line> {
    let heads = [Head::less(
        11,
        "tunnel, 8 visitors stop reading for 10 s: requests of others, of 1000, that fail or take over 100 ms",
        "requests",
    )
    .goal(0.0)];
    let mut subjects = bench.running_tunnels(Shape::default()).await;
    subjects.push(direct(false).await);
    let measure = async |stage: &mut Stage| {
        let before = stage.cpu();
        let door = &stage.doors[0];
        let downloads: JoinSet<_> = (0..STOPPED).map(|n| stopped(door.clone(), n)).collect();
        let tally = open(door, OTHERS, STOP, PATIENCE).await;
        let bad = tally.visits.iter().filter(|Visit { took, good, .. }| !good || *took > LATE).count();
        let ends = downloads.join_all().await;
        let mut sample = Sample::new(&[bad as f64]).with(&tally);
        let broken: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        if let Some(first) = broken.first() {
            sample = sample.remark(format!("{} of 8 downloads did not finish: {first:#}", broken.len()));
        }
        Ok(sample.used(stage.cpu().since(before)))
    };
    interleaved(bench.rounds(ROUNDS), &heads, subjects, measure).await
}

/// A download that stands still in the middle.
async fn stopped(door: Door, number: u64) -> Result<()> {
    let mut visitor = Visitor::connect(&door, number).await?;
    visitor.begin(&format!("/bytes/{BODY}"), BODY).await?;
    let mut progress = Progress::default();
    visitor.read(&mut progress, READ_BEFORE).await?;
    sleep_until(Instant::now() + STOP).await;
    let rest = visitor.read(&mut progress, BODY);
    tokio::time::timeout(Duration::from_secs(30), rest).await.context("30 s after it went on")??;
    progress.verify()
}
