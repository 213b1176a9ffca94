//! The table, and the file with all values.

use crate::judge::{Circumstances, NOISE, outcome, verdict};
use crate::machine::Machine;
use crate::rounds::{Cell, Head, Line};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// Whom the others are compared with.
const OURS: &str = "pointsman";

/// All that a run has found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Contenders, with their version or why they are not here.
    pub(crate) versions: Vec<(&'static str, String)>,
    pub(crate) lines: Vec<Line>,
}

impl Report {
    /// Writes everything as JSON.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        save(self, path)
    }

    /// What stands above the table, as Markdown.
    pub(crate) fn preface(&self) -> String {
        let mut text = format!("Machine: {}\n\n", self.machine);
        for (name, version) in &self.versions {
            text += &format!("- {name}: {version}\n");
        }
        text
    }
}

/// Writes a value as JSON, into a folder that need not be there.
pub(crate) fn save(value: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("\"{}\"", folder.display()))?;
    }
    std::fs::write(path, serde_json::to_vec_pretty(value)?).with_context(|| format!("\"{}\"", path.display()))
}

/// The head of the table.
pub(crate) const COLUMNS: &str = "\n| row | contender | median (min to max) | goal | pointsman / it | errors | remarks |\n|---|---|---|---|---|---|---|";

impl Line {
    /// As rows of a Markdown table; the first says what they are about.
    pub(crate) fn markdown(&self) -> String {
        let Head { row, title, unit, .. } = &self.head;
        let ours = self.cells.iter().find(|cell| cell.contender == OURS);
        let mut text = format!("| {row} | **{title}**, {unit} | | | | | |\n");
        for cell in &self.cells {
            let ratio =
                ours.filter(|ours| ours.contender != cell.contender).map(|ours| self.ratio(ours, cell));
            let spread = cell.spread();
            let goal = if cell.contender == OURS { self.goal(cell) } else { String::new() };
            text += &format!(
                "| | {} | {} | {goal} | {} | {} | {} |\n",
                cell.contender,
                spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string()),
                ratio.unwrap_or_default(),
                cell.errors,
                remarks(cell)
            );
        }
        text
    }

    /// What is to be reached, and whether the median does.
    fn goal(&self, ours: &Cell) -> String {
        let Some(goal) = self.head.goal else { return String::new() };
        let bound = if self.head.more { ">=" } else { "<=" };
        let clean = ours.errors == 0;
        match ours.spread() {
            Some(spread) => {
                format!("{bound} {goal}, {}", outcome(goal, self.head.more, spread.median, clean))
            }
            None => format!("{bound} {goal}"),
        }
    }

    /// Round by round, as two of the same round have met the same machine.
    fn ratio(&self, ours: &Cell, other: &Cell) -> String {
        let pairs =
            ours.values.iter().zip(&other.values).filter_map(|(ours, other)| Some(((*ours)?, (*other)?)));
        let pairs: Vec<_> = pairs.collect();
        // A difference that is lost in noise has no ratio.
        if pairs.iter().any(|(ours, other)| ours.min(*other) < 0.0) {
            return "open".to_owned();
        }
        let ratio = |(ours, other): &(f64, f64)| if ours == other { 1.0 } else { ours / other };
        let ratios: Vec<_> = pairs.iter().map(ratio).collect();
        let Some(spread) = Spread::of(ratios.iter().copied()) else { return String::new() };
        if other.contender.starts_with('(') {
            return spread.to_string();
        }
        let meanwhile = Circumstances { foreign: ours.foreign.max(other.foreign), clean: ours.errors == 0 };
        format!("{spread} {}", verdict(&ratios, self.head.more, meanwhile))
    }
}

impl Cell {
    /// Of the rounds that have a value.
    fn spread(&self) -> Option<Spread> {
        Spread::of(self.values.iter().copied().flatten())
    }
}

fn remarks(cell: &Cell) -> String {
    let mut remarks = cell.remarks.clone();
    if cell.foreign > NOISE {
        remarks.push(format!("others used up to {:.0} % of the machine", cell.foreign * 100.0));
    }
    remarks.join("; ").replace('|', "/").chars().filter(|c| !c.is_control()).take(400).collect()
}

/// The least, the middle and the most of several values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let middle = [sorted.get(count.checked_sub(1)? / 2)?, sorted.get(count / 2)?];
        let median = middle.into_iter().sum::<f64>() / 2.0;
        Some(Self { min: *sorted.first()?, median, max: *sorted.last()?, count })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [min, median, max] = [self.min, self.median, self.max].map(short);
        write!(f, "{median} ({min} to {max})")
    }
}

/// Three digits that mean something.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
