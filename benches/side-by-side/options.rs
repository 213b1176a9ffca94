//! What is to be run, by variables: `ROWS=1,2 ROUNDS=3 CONTENDERS=pointsman,nginx`.

use crate::contenders::{PROXIES, TUNNELS};
use crate::rows::ROWS;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// More rounds than this are a slip.
const MOST_ROUNDS: usize = 100;

/// Parts of the whole.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rows: Vec<u8>,
    /// `None`: as many as each row usually has.
    pub(crate) rounds: Option<usize>,
    /// None named: all.
    contenders: Vec<String>,
    /// Where all values go.
    pub(crate) json: PathBuf,
}

impl Options {
    /// Of the environment.
    pub(crate) fn read() -> Result<Self> {
        let contenders = list("CONTENDERS");
        let mut known: Vec<_> = PROXIES.iter().chain(TUNNELS).map(|one| one.name()).collect();
        known.sort_unstable();
        known.dedup();
        for name in &contenders {
            let there = known.contains(&name.as_str());
            ensure!(there, "CONTENDERS: there is no \"{name}\", only {}", known.join(", "));
        }
        Ok(Self { rows: rows()?, rounds: rounds()?, contenders, json: json("side-by-side.json") })
    }

    /// Whether this contender takes part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|one| one == name)
    }
}

/// Where all values go, by default a file of this name.
pub(crate) fn json(standard: &str) -> PathBuf {
    let named = std::env::var_os("BENCH_JSON").filter(|path| !path.is_empty()).map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(standard))
}

/// The rows that are named, else all.
fn rows() -> Result<Vec<u8>> {
    let number = |row: &String| {
        let number = row.parse().ok().filter(|number| ROWS.contains(number));
        number.with_context(|| format!("ROWS: \"{row}\" is not a row, they are {ROWS:?}"))
    };
    let named = list("ROWS");
    if named.is_empty() { Ok(ROWS.collect()) } else { named.iter().map(number).collect() }
}

/// How many rounds, where that is said.
pub(crate) fn rounds() -> Result<Option<usize>> {
    let text = std::env::var("ROUNDS").unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(None);
    }
    let number = text.trim().parse().ok().filter(|number| (1..=MOST_ROUNDS).contains(number));
    let number =
        number.with_context(|| format!("ROUNDS: \"{text}\" is not a number from 1 to {MOST_ROUNDS}"))?;
    Ok(Some(number))
}

/// What stands between the commas of a variable.
pub(crate) fn list(name: &str) -> Vec<String> {
    let value = std::env::var(name).unwrap_or_default();
    value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}
