//! Rounds: each contender in turn, again and again, so that what else the machine does meets them all.

use crate::load::Tally;
use crate::machine::Reading;
use anyhow::{Context, Result};
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;

/// No measurement takes longer.
const LIMIT: Duration = Duration::from_secs(120);
/// Remarks of one contender in one line of the table.
const REMARKS: usize = 3;

/// What a line of the table is about.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Head {
    pub(crate) row: u8,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// Whether a higher value is the better one.
    pub(crate) more: bool,
    /// What is to be reached, in the same unit: at most, or where a higher value is better at least.
    pub(crate) goal: Option<f64>,
}

impl Head {
    /// Where a lower value is better.
    pub(crate) fn less(row: u8, title: impl Into<String>, unit: &'static str) -> Self {
        Self { row, title: title.into(), unit, more: false, goal: None }
    }

    /// Where a higher value is better.
    pub(crate) fn more(row: u8, title: impl Into<String>, unit: &'static str) -> Self {
        Self { more: true, ..Self::less(row, title, unit) }
    }

    /// With what is to be reached.
    pub(crate) fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

/// A line of the table, with all that was measured for it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) cells: Vec<Cell>,
}

/// One contender in one line.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) contender: &'static str,
    /// Of each round; none where it failed.
    pub(crate) values: Vec<Option<f64>>,
    /// Requests without the right reply.
    pub(crate) errors: u64,
    pub(crate) remarks: Vec<String>,
    /// The largest part of the machine, 0 to 1, that others used in one of its rounds.
    pub(crate) foreign: f64,
}

/// One measurement.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// For each line of the row.
    values: Vec<f64>,
    errors: u64,
    remark: Option<String>,
    used: Duration,
}

impl Sample {
    pub(crate) fn new(values: &[f64]) -> Self {
        Self { values: values.to_vec(), ..Self::default() }
    }

    /// With the errors of a load.
    pub(crate) fn with(mut self, tally: &Tally) -> Self {
        self.errors += tally.errors;
        let ended =
            (tally.ended > 0).then(|| format!("ended {} connections that were to be kept", tally.ended));
        self.remark = self.remark.or_else(|| tally.first.clone()).or(ended);
        self
    }

    /// With errors, remark and CPU time of a measurement that is a part of this one.
    pub(crate) fn and(mut self, part: Self) -> Self {
        self.errors += part.errors;
        self.remark = self.remark.or(part.remark);
        self.used += part.used;
        self
    }

    /// For the first line of the row.
    pub(crate) fn first(&self) -> Option<f64> {
        self.values.first().copied()
    }

    pub(crate) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// With the CPU time that the contender has used.
    pub(crate) fn used(mut self, used: Duration) -> Self {
        self.used = used;
        self
    }
}

/// Who is measured, or why not.
pub(crate) struct Subject<T> {
    pub(crate) name: &'static str,
    pub(crate) state: Result<T>,
}

/// Measures all in turn, `rounds` times, every other time in the opposite order. What cannot be measured is a remark.
pub(crate) async fn interleaved<T>(
    rounds: usize,
    heads: &[Head],
    mut subjects: Vec<Subject<T>>,
    measure: impl AsyncFn(&mut T) -> Result<Sample>,
) -> Vec<Line> {
    let cell = |subject: &Subject<T>| Cell {
        contender: subject.name,
        values: Vec::new(),
        errors: 0,
        remarks: subject.state.as_ref().err().map(|error| format!("{error:#}")).into_iter().collect(),
        foreign: 0.0,
    };
    let line = |head: &Head| Line { head: head.clone(), cells: subjects.iter().map(cell).collect() };
    let mut lines: Vec<_> = heads.iter().map(line).collect();
    for round in 0..rounds {
        let mut order: Vec<_> = (0..subjects.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let Ok(subject) = &mut subjects[index].state else { continue };
            let before = Reading::take();
            let sample = timeout(LIMIT, measure(subject)).await;
            let sample = sample.with_context(|| format!("not measured within {LIMIT:?}")).flatten();
            let used = sample.as_ref().map_or(Duration::ZERO, |sample| sample.used);
            let foreign = before.foreign(used);
            for (at, line) in lines.iter_mut().enumerate() {
                line.cells[index].take(at, &sample, foreign);
            }
        }
    }
    lines
}

impl Cell {
    fn take(&mut self, at: usize, sample: &Result<Sample>, foreign: f64) {
        self.foreign = self.foreign.max(foreign);
        let remark = match sample {
            Ok(sample) => {
                self.values.push(sample.values.get(at).copied());
                self.errors += sample.errors;
                sample.remark.clone()
            }
            Err(error) => {
                self.values.push(None);
                Some(format!("{error:#}"))
            }
        };
        self.remarks.extend(remark.filter(|_| self.remarks.len() < REMARKS));
        self.remarks.dedup();
    }
}
