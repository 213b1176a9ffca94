//! What a request costs as the work grows: `make bench-growth`, or parts of it by `make bench-growth AXES=rules,plugins ROUNDS=2`.
//!
//! There is pointsman alone here. On each axis something there is more and more of, while the same 64 visitors ask; each point is
//! measured with programs of its own, started anew in each round.

mod axis;
mod plot;
mod table;

use crate::contenders::OURS;
use crate::machine::{Machine, Reading};
use crate::options;
use crate::report::save;
use anyhow::{Context, Result, ensure};
use axis::{AXES, Axis, Sample};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, timeout};

const ROUNDS: usize = 5;
/// No point takes longer in one round.
const LIMIT: Duration = Duration::from_secs(120);

/// Parts of the whole.
#[derive(Debug)]
pub(crate) struct Options {
    axes: Vec<&'static Axis>,
    rounds: usize,
    json: PathBuf,
    /// The folder for the plots.
    plots: PathBuf,
}

impl Options {
    /// Of the environment.
    pub(crate) fn read() -> Result<Self> {
        let json = options::json("growth.json");
        let plots = std::env::var_os("PLOTS").filter(|path| !path.is_empty()).map(PathBuf::from);
        let beside = || json.parent().unwrap_or_else(|| Path::new(".")).to_owned();
        let plots = plots.unwrap_or_else(beside);
        Ok(Self { axes: axes()?, rounds: options::rounds()?.unwrap_or(ROUNDS), json, plots })
    }
}

/// The axes that are named, else all.
fn axes() -> Result<Vec<&'static Axis>> {
    let names: Vec<_> = AXES.iter().map(|axis| axis.name).collect();
    let named = options::list("AXES");
    for name in &named {
        let there = names.contains(&name.as_str());
        ensure!(there, "AXES: there is no \"{name}\", only {}", names.join(", "));
    }
    Ok(AXES.iter().filter(|axis| named.is_empty() || named.iter().any(|name| name == axis.name)).collect())
}

/// All that a run has found.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    version: String,
    series: Vec<Series>,
}

/// One axis with its values.
#[derive(Debug, Serialize)]
struct Series {
    #[serde(flatten)]
    axis: &'static Axis,
    points: Vec<Point>,
}

/// So many of what grows.
#[derive(Debug, Serialize)]
struct Point {
    units: u64,
    /// Of each round; none where it failed.
    samples: Vec<Option<Sample>>,
    /// Why it failed, or what the first wrong reply was.
    remarks: Vec<String>,
    /// The largest part of the machine, 0 to 1, that others used in one of its rounds.
    foreign: f64,
}

/// Measures, prints the table, writes the values and the plots.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let cache = tempfile::tempdir()?;
    let mut report = Report { machine: Machine::this(), version: OURS.version()?, series: Vec::new() };
    println!("Machine: {}\n\n- pointsman: {}\n\n{}", report.machine, report.version, table::COLUMNS);
    for axis in &options.axes {
        let start = Instant::now();
        let series = measured(axis, options.rounds, cache.path()).await;
        print!("{}", table::rows(&series));
        report.series.push(series);
        eprintln!("{}: {:.0?}", axis.name, start.elapsed());
        // After each, as a run that is cut short has its worth.
        save(&report, &options.json)?;
        plot::save(&report.series, &options.plots)?;
    }
    println!("\nAll values: {}; the plots: {}", options.json.display(), options.plots.display());
    Ok(())
}

/// All points of an axis, round after round, every other round from the largest to the smallest.
async fn measured(axis: &'static Axis, rounds: usize, cache: &Path) -> Series {
    let point = |units: &u64| Point { units: *units, samples: Vec::new(), remarks: Vec::new(), foreign: 0.0 };
    let mut points: Vec<_> = axis.points.iter().map(point).collect();
    for round in 0..rounds {
        let mut order: Vec<_> = points.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for point in order {
            let before = Reading::take();
            let sample = timeout(LIMIT, axis.measure(point.units, cache)).await;
            let sample = sample.with_context(|| format!("not measured within {LIMIT:?}")).flatten();
            point.take(sample, before);
        }
    }
    Series { axis, points }
}

impl Point {
    fn take(&mut self, sample: Result<Sample>, before: Reading) {
        let remark = match &sample {
            Ok(sample) => sample.remark.clone(),
            Err(error) => Some(format!("{error:#}")),
        };
        let used = sample.as_ref().map_or(Duration::ZERO, |sample| sample.used);
        self.foreign = self.foreign.max(before.foreign(used));
        self.remarks.extend(remark);
        self.remarks.dedup();
        self.samples.push(sample.ok());
    }
}
