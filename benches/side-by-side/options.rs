//! What is to be run, by variables: `ROWS=1,2 ROUNDS=3 CONTENDERS=pointsman,nginx`.

use crate::contenders::{PROXIES, TUNNELS};
use crate::rows::ROWS;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

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
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let list = |name: &str| {
            let value = variable(name);
            value
                .split(',')
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
        };
        let mut rows = Vec::new();
        for row in list("ROWS") {
            let number = row.parse().ok().filter(|number| ROWS.contains(number));
            rows.push(number.with_context(|| format!("ROWS: \"{row}\" is not a row, they are {ROWS:?}"))?);
        }
        if rows.is_empty() {
            rows = ROWS.collect();
        }
        let rounds =
            match variable("ROUNDS").trim() {
                "" => None,
                text => {
                    let number = text.parse().ok().filter(|number| (1..=MOST_ROUNDS).contains(number));
                    Some(number.with_context(|| {
                        format!("ROUNDS: \"{text}\" is not a number from 1 to {MOST_ROUNDS}")
                    })?)
                }
            };
        let known = || PROXIES.iter().chain(TUNNELS).map(|one| one.name());
        let contenders = list("CONTENDERS");
        for name in &contenders {
            let names: Vec<_> = known().collect();
            ensure!(
                names.contains(&name.as_str()),
                "CONTENDERS: there is no \"{name}\", only {}",
                names.join(", ")
            );
        }
        let json = std::env::var_os("BENCH_JSON").filter(|path| !path.is_empty()).map(PathBuf::from);
        let standard = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/side-by-side.json"));
        Ok(Self { rows, rounds, contenders, json: json.unwrap_or_else(standard) })
    }

    /// Whether this contender takes part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|one| one == name)
    }
}
