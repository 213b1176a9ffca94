//! Rows 4, 5 and 9: CPU time of downloads.

use super::Bench;
use crate::contenders::Channel;
use crate::load::bulk;
use crate::rounds::{Head, Line, Sample, interleaved};
use crate::stage::{Shape, Stage};
use anyhow::{Result, ensure};

const ROUNDS: usize = 5;
const UNIT: &str = "s of CPU per GB";
/// Bytes of all downloads of a round together.
const BYTES: u64 = 512 << 20;

pub(super) async fn proxies(bench: &Bench, row: u8) -> Vec<Line> {
    let head = if row == 4 {
        // The goal is HAProxy's value of the same run.
        Head::less(row, "TLS by SNI, 8 bulk downloads", UNIT)
    } else {
        Head::less(row, "HTTP, 8 bulk downloads", UNIT).goal(0.34)
    };
    let subjects = bench.running_proxies(row == 4).await;
    interleaved(bench.rounds(ROUNDS), &[head], subjects, async |stage: &mut Stage| {
        per_gigabyte(stage, 8).await
    })
    .await
}

pub(super) async fn tunnels(bench: &Bench) -> Vec<Line> {
    let mut lines = Vec::new();
    for (channel, word, goal) in [(Channel::Tcp, "tcp", 1.0), (Channel::Tls, "tls", 1.5)] {
        for downloads in [1, 8] {
            let subjects = bench.running_tunnels(Shape { channel, ..Shape::default() }).await;
            let title = format!("tunnel over {word}, bulk downloads at once: {downloads} (server + client)");
            let heads = [Head::less(9, title, UNIT).goal(goal)];
            let measure = async |stage: &mut Stage| per_gigabyte(stage, downloads).await;
            lines.extend(interleaved(bench.rounds(ROUNDS), &heads, subjects, measure).await);
        }
    }
    lines
}

async fn per_gigabyte(stage: &Stage, downloads: u64) -> Result<Sample> {
    let each = BYTES / downloads;
    let before = stage.cpu();
    let tally = bulk(&stage.doors, downloads, each).await;
    let used = stage.cpu().since(before);
    // What a broken download has cost is not known.
    ensure!(
        tally.errors == 0,
        "{} of {downloads} downloads: {}",
        tally.errors,
        tally.first.unwrap_or_default()
    );
    Ok(Sample::new(&[used.as_secs_f64() / (BYTES as f64 / 1e9)]).used(used))
}
