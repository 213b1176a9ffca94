//! What the values come to: ratios, memory per unit, and the table.

use super::axis::Sample;
use super::{Point, Series};
use crate::report::{Spread, short};

/// A request may cost this many times what it costs at the smallest point.
pub(super) const GOAL: f64 = 1.3;
/// Fewer rounds show nothing.
const FEWEST: usize = 3;

/// The head of the table.
pub(super) const COLUMNS: &str = "| what grows | us of CPU per request, median (min to max) | by the smallest point | within 1.3 | memory, MiB | KiB per unit | errors | remarks |\n|---|---|---|---|---|---|---|---|";

/// An axis as rows of a Markdown table; the first says what it is about.
pub(super) fn rows(series: &Series) -> String {
    let mut text = format!("| **{}** ({}) | | | | | | | |\n", series.axis.title, series.axis.note);
    for point in &series.points {
        let shown = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |it| it.to_string());
        let ratio = series.ratio(point);
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            point.units,
            shown(point.cpu()),
            ratio.map(|ratio| ratio.to_string()).unwrap_or_default(),
            ratio.map(verdict).unwrap_or_default(),
            shown(point.memory()),
            series.per_unit(point).map(short).unwrap_or_default(),
            point.samples.iter().flatten().map(|sample| sample.errors).sum::<u64>(),
            remarks(point),
        );
    }
    text
}

/// Said only when all of enough rounds agree.
fn verdict(ratios: Spread) -> &'static str {
    match ratios.count {
        FEWEST.. if ratios.max <= GOAL => "yes",
        FEWEST.. if ratios.min > GOAL => "no",
        _ => "open",
    }
}

fn remarks(point: &Point) -> String {
    let mut remarks = point.remarks.clone();
    if point.foreign > 0.1 {
        remarks.push(format!("others used up to {:.0} % of the machine", point.foreign * 100.0));
    }
    remarks.join("; ").replace('|', "/").chars().filter(|c| !c.is_control()).take(400).collect()
}

impl Series {
    /// What a request costs at this point by what it costs at the smallest, round by round, as two of the same round have met the
    /// same machine. None for the smallest itself.
    pub(super) fn ratio(&self, point: &Point) -> Option<Spread> {
        let smallest = self.points.first().filter(|smallest| smallest.units != point.units)?;
        let both = point.samples.iter().zip(&smallest.samples);
        Spread::of(both.filter_map(|(here, there)| Some(here.as_ref()?.cpu / there.as_ref()?.cpu)))
    }

    /// KiB that each unit beyond those of the smallest point takes; none where that is lost in how much one start differs from
    /// another.
    pub(super) fn per_unit(&self, point: &Point) -> Option<f64> {
        let smallest = self.points.first().filter(|smallest| smallest.units < point.units)?;
        let (here, there) = (point.memory()?, smallest.memory()?);
        let (more, noise) = (here.median - there.median, here.max - here.min + there.max - there.min);
        (here.count >= FEWEST && more > noise).then(|| more * 1024.0 / (point.units - smallest.units) as f64)
    }
}

impl Point {
    pub(super) fn cpu(&self) -> Option<Spread> {
        self.spread(|sample| sample.cpu)
    }

    /// MiB.
    pub(super) fn memory(&self) -> Option<Spread> {
        self.spread(|sample| sample.memory as f64 / f64::from(1 << 20))
    }

    fn spread(&self, value: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().flatten().map(value))
    }
}
