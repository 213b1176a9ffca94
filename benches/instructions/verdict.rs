//! The table, and what follows from it.

use crate::baseline::Baseline;
use crate::callgrind::{self, Counts};
use std::fmt;

/// How far a count may be from the baseline, in per cent, either way: what got faster has to be written down, or the next loss
/// of as much would pass.
const TOLERANCE: f64 = 5.0;

/// What the counts say beside the baseline.
pub(crate) struct Verdict {
    rows: Vec<Row>,
    /// Where the baseline was counted with something else: both.
    other: Option<(String, String)>,
}

struct Row {
    name: String,
    before: Option<u64>,
    now: Option<u64>,
}

/// What is said of one case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    Same,
    More,
    Less,
    /// The baseline has no number.
    New,
    /// The baseline has a number of a case that is no more.
    Gone,
}

impl Verdict {
    pub(crate) fn new(before: &Baseline, now: &Counts) -> Self {
        let row = |(name, count): &(&str, u64)| Row {
            name: (*name).to_owned(),
            before: before.cases.get(*name).copied(),
            now: Some(*count),
        };
        let gone = before.cases.iter().filter(|(name, _)| !now.cases.iter().any(|(now, _)| now == name));
        let gone = gone.map(|(name, count)| Row { name: name.clone(), before: Some(*count), now: None });
        let other = (before.counted_with != now.counted_with)
            .then(|| (before.counted_with.clone(), now.counted_with.clone()));
        Self { rows: now.cases.iter().map(row).chain(gone).collect(), other }
    }

    /// Whether nothing has to be done.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().map(Row::finding).all(|finding| match finding {
            Finding::Same => true,
            Finding::More | Finding::Less => self.other.is_some(),
            Finding::New | Finding::Gone => false,
        })
    }

    fn has(&self, finding: Finding) -> bool {
        self.rows.iter().any(|row| row.finding() == finding)
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.now? as f64 / self.before? as f64)
    }

    fn finding(&self) -> Finding {
        match self.ratio() {
            None if self.now.is_some() => Finding::New,
            None => Finding::Gone,
            Some(ratio) if ratio > 1.0 + TOLERANCE / 100.0 => Finding::More,
            Some(ratio) if ratio < 1.0 - TOLERANCE / 100.0 => Finding::Less,
            Some(_) => Finding::Same,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>10} {:>10} {:>7}  instructions per call", "case", "baseline", "now", "ratio")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))?;
        match &self.other {
            Some((before, now)) if self.has(Finding::More) || self.has(Finding::Less) => writeln!(
                f,
                "\nMore and fewer count for nothing here: the baseline was counted with {before}; this is {now}. Where the project is \
                 built with that from now on: BLESS=1 make instructions."
            )?,
            Some(_) => {}
            None => self.advise(f)?,
        }
        if self.has(Finding::New) || self.has(Finding::Gone) {
            writeln!(f, "\nThe baseline has other cases: BLESS=1 make instructions writes it anew.")?;
        }
        Ok(())
    }
}

impl Verdict {
    fn advise(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.rows.iter().find(|row| row.finding() == Finding::More) {
            writeln!(
                f,
                "\nOver {TOLERANCE} % more instructions: find out what for (callgrind_annotate {}, here and before the change), \
                 or tell in the commit why it is worth them and write the baseline anew: BLESS=1 make instructions.",
                callgrind::profile(&row.name).display()
            )?;
        }
        if self.has(Finding::Less) {
            writeln!(
                f,
                "\nOver {TOLERANCE} % fewer instructions: write the baseline anew, so that what was won is kept: BLESS=1 make \
                 instructions."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let ratio = self.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        let finding = match self.finding() {
            Finding::Same => "",
            Finding::More => "  more",
            Finding::Less => "  fewer",
            Finding::New => "  new",
            Finding::Gone => "  gone",
        };
        write!(f, "{:<20} {:>10} {:>10} {ratio:>7}{finding}", self.name, cell(self.before), cell(self.now))
    }
}
