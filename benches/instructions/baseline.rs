//! The committed numbers: a line that says what they were counted with, then a line for each case.

use crate::callgrind::Counts;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

const COUNTED_WITH: &str = "# counted with ";

/// Instructions per call by case, and what they were counted with.
pub(crate) struct Baseline {
    pub(crate) counted_with: String,
    pub(crate) cases: BTreeMap<String, u64>,
}

impl Baseline {
    pub(crate) fn of(counts: &Counts) -> Self {
        let cases = counts.cases.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Self { counted_with: counts.counted_with.clone(), cases }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions per call. `make instructions` compares, `BLESS=1 make instructions` writes them anew."
        )?;
        writeln!(f, "{COUNTED_WITH}{}", self.counted_with)?;
        self.cases.iter().try_for_each(|(name, count)| writeln!(f, "{name} {count}"))
    }
}

impl FromStr for Baseline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let counted_with = text.lines().find_map(|line| line.strip_prefix(COUNTED_WITH));
        let counted_with =
            counted_with.ok_or_else(|| format!("no line that begins with {COUNTED_WITH:?}"))?;
        let case = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let cases =
            lines.map(|line| case(line).ok_or_else(|| format!("{line:?} is not a name and a number")));
        Ok(Self { counted_with: counted_with.to_owned(), cases: cases.collect::<Result<_, _>>()? })
    }
}
