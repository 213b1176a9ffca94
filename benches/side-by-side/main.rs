//! pointsman side by side with other reverse proxies and tunnels: `make bench`, or parts of it by
//! `make bench ROWS=1,2 ROUNDS=3 CONTENDERS=pointsman,nginx`. `docs/benchmarks.md` tells how it is done and what came out.
//! `make bench-growth` is another part, about pointsman alone: what a request costs as the work grows.
//!
//! Targets and visitors are in this process; what is measured are the contender's own processes. Nothing leaves the machine.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its numbers")]

mod backend;
mod contenders;
mod delay;
mod growth;
mod judge;
mod load;
mod machine;
mod options;
mod pattern;
mod process;
mod report;
mod rounds;
mod rows;
mod stage;
mod visitor;

use anyhow::{Result, bail};
use contenders::{PROXIES, TUNNELS};
use options::Options;
use report::{COLUMNS, Report};
use rows::Bench;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

#[tokio::main]
async fn main() -> ExitCode {
    match bounded().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn bounded() -> Result<()> {
    // Thousands of connections have two ends here, and two at a contender.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Whichever ends first, what was started is ended with it.
    tokio::select! {
        result = chosen() => result,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

/// The comparison, or with the argument `growth` what grows with the work.
async fn chosen() -> Result<()> {
    if std::env::args().skip(1).any(|argument| argument == "growth") {
        return growth::run(&growth::Options::read()?).await;
    }
    run(&Bench { options: Options::read()? }).await
}

async fn run(bench: &Bench) -> Result<()> {
    let mut report =
        Report { machine: machine::Machine::this(), versions: versions(bench), lines: Vec::new() };
    println!("{}{COLUMNS}", report.preface());
    for row in &bench.options.rows {
        let start = Instant::now();
        for line in bench.row(*row).await {
            print!("{}", line.markdown());
            report.lines.push(line);
        }
        eprintln!("row {row}: {:.0?}", start.elapsed());
        // After each, as a run that is cut short has its worth.
        report.save(&bench.options.json)?;
    }
    println!("\nAll values: {}", bench.options.json.display());
    Ok(())
}

fn versions(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut all: Vec<_> =
        PROXIES.iter().chain(TUNNELS).filter(|one| bench.options.wants(one.name())).collect();
    let mut seen = Vec::new();
    all.retain(|one| {
        !seen.contains(&one.name()) && {
            seen.push(one.name());
            true
        }
    });
    let version =
        |one: &&&dyn contenders::Contender| one.version().unwrap_or_else(|error| format!("{error:#}"));
    all.iter().map(|one| (one.name(), version(one))).collect()
}
