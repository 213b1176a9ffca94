//! The command line: `pointsman -C FILE` runs, `pointsman check FILE` only looks.

use crate::config::{self, Loaded, Problems, Source};
use crate::shutdown::Shutdown;
use crate::{app, telemetry};
use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A reverse proxy and tunnel that runs GOST v3's YAML and speaks its relay protocol.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file, `-` for standard input; may be given several times
    #[arg(short = 'C', long = "config", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// How long open connections may go on after SIGTERM or SIGINT, in seconds or as 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = grace)]
    grace: Duration,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is wrong in configuration files, without running them: exit status 0 or 1
    Check {
        /// Files that together are one configuration, `-` for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

fn grace(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .or_else(|| text.parse().ok().map(Duration::from_secs))
        .ok_or_else(|| "expected a duration such as 30s or 5m".to_owned())
}

/// Runs the program; the exit status is 0 when all went well, 1 when not, 2 for a wrong command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        Some(Command::Check { files }) => check(files),
        None => run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            print(&format!("pointsman: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// To standard error; when that is closed nobody is reading.
fn print(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

fn check(files: &[PathBuf]) -> Result<ExitCode> {
    match config::load(&read(files)?) {
        Ok(Loaded { config, warnings }) => {
            warnings.iter().for_each(|problem| print(&format!("{problem}\n")));
            print(&format!("ok: {} services, {} warnings\n", config.services.len(), warnings.len()));
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => Ok(report(&problems)),
    }
}

fn report(Problems(problems): &Problems) -> ExitCode {
    problems.iter().for_each(|problem| print(&format!("{problem}\n")));
    let errors = problems.iter().filter(|p| p.severity == config::Severity::Error).count();
    print(&format!("not ok: {errors} errors, {} warnings\n", problems.len() - errors));
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.files.is_empty() {
        bail!("no configuration: give one with -C FILE (try -C config/quickstart.yaml)");
    }
    let loaded = match config::load(&read(&arguments.files)?) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report(&problems)),
    };
    telemetry::init(&loaded.config.log)?;
    for problem in &loaded.warnings {
        tracing::warn!(file = problem.file, line = problem.line, key = problem.path, "{}", problem.message);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let done = runtime.block_on(async {
        let shutdown = Shutdown::default();
        app::start(loaded.config, &shutdown).await?;
        shutdown.run(arguments.grace).await.context("cannot wait for signals")
    });
    // What is still open after the grace period is cut.
    runtime.shutdown_background();
    done.map(|()| ExitCode::SUCCESS)
}

fn read(files: &[PathBuf]) -> Result<Vec<Source>> {
    files.iter().map(|file| read_one(file)).collect()
}

fn read_one(file: &Path) -> Result<Source> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(Source { name: "<stdin>".to_owned(), text });
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Source { name: file.display().to_string(), text })
}
