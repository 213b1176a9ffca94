//! The command line: `pointsman -C FILE` and `pointsman -L SERVICE -F NODE` run, with `-O` they only print, `pointsman check FILE`
//! only looks, `pointsman plugin` is for plugin authors.

mod plugin;

use crate::config::{self, Format, Loaded, MAX_FILE_SIZE, Printed, Problems, Shorthand, Source};
use crate::shutdown::{LAST_WORDS, Shutdown};
use crate::{app, telemetry};
use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use std::fs::File;
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

    /// Service, as GOST has it; may be given several times: [HANDLER+]LISTENER://[USER:PASSWORD@]ADDRESS[/TARGETS][?KEY=VALUE&...]
    #[arg(short = 'L', value_name = "SERVICE")]
    services: Vec<String>,

    /// Hop of the chain that all -L take, in order: [CONNECTOR+]DIALER://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][?KEY=VALUE&...]
    #[arg(short = 'F', value_name = "NODE")]
    nodes: Vec<String>,

    /// Prints the configuration that all of these are together as -C takes it, passwords included, and does not run it
    #[arg(short = 'O', value_name = "FORMAT")]
    output: Option<Output>,

    /// How long open connections may go on after SIGTERM or SIGINT, in seconds or as 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = grace)]
    grace: Duration,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What `-O` takes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what is wrong in configuration files, without running them: exit status 0 or 1
    Check {
        /// Files that together are one configuration, `-` for standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// For plugin authors: makes, checks, asks, tests and times plugins; no proxy has to run
    Plugin(Box<plugin::Command>),
}

fn grace(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .or_else(|| text.parse().ok().map(Duration::from_secs))
        .ok_or_else(|| "expected a duration such as 30s or 5m".to_owned())
}

/// Runs the program; the exit status is 0 when all went well, 1 when not, 2 for a wrong command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return plugin::misused(&error),
    };
    let done = match &arguments.command {
        Some(Command::Check { files }) => check(files),
        Some(Command::Plugin(command)) => return plugin::run(command),
        None => start(&arguments),
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
    let Loaded { config, warnings } = match config::load(&read(files)?) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report(&problems)),
    };
    warnings.iter().for_each(|problem| print(&format!("{problem}\n")));
    let wrong = app::check(&config);
    wrong.iter().for_each(|error| print(&format!("error: {error:#}\n")));
    if !wrong.is_empty() {
        return Ok(not_ok(wrong.len(), warnings.len()));
    }
    let services = count(config.services.len(), "service");
    print(&format!("ok: {services}, {}\n", count(warnings.len(), "warning")));
    Ok(ExitCode::SUCCESS)
}

fn report(Problems(problems): &Problems) -> ExitCode {
    problems.iter().for_each(|problem| print(&format!("{problem}\n")));
    let errors = problems.iter().filter(|p| p.severity == config::Severity::Error).count();
    not_ok(errors, problems.len() - errors)
}

fn not_ok(errors: usize, warnings: usize) -> ExitCode {
    print(&format!("not ok: {}, {}\n", count(errors, "error"), count(warnings, "warning")));
    ExitCode::FAILURE
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn start(arguments: &Arguments) -> Result<ExitCode> {
    let shorthand = Shorthand { services: arguments.services.clone(), nodes: arguments.nodes.clone() };
    if arguments.files.is_empty() && shorthand.is_empty() {
        bail!(
            "no configuration: give one with -C FILE (try -C config/quickstart.yaml), or services with -L (try -L whoami://:8080)"
        );
    }
    let sources = read(&arguments.files)?;
    match arguments.output {
        Some(output) => show(&sources, &shorthand, output),
        None => run(sources, &shorthand, arguments.grace),
    }
}

/// To standard output goes the document, and to standard error what is to be said about it.
fn show(sources: &[Source], shorthand: &Shorthand, output: Output) -> Result<ExitCode> {
    let format = match output {
        Output::Yaml => Format::Yaml,
        Output::Json => Format::Json,
    };
    match config::print(sources, shorthand, format) {
        Ok(Printed { text, warnings }) => {
            warnings.iter().for_each(|problem| print(&format!("{problem}\n")));
            plugin::print(&text).context("cannot write the configuration")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => Ok(report(&problems)),
    }
}

fn run(sources: Vec<Source>, shorthand: &Shorthand, grace: Duration) -> Result<ExitCode> {
    let loaded = match config::load_all(&sources, shorthand) {
        Ok(loaded) => loaded,
        Err(problems) => return Ok(report(&problems)),
    };
    // Megabytes, of many rules.
    drop(sources);
    telemetry::init(&loaded.config.log)?;
    for problem in &loaded.warnings {
        tracing::warn!(file = problem.file, line = problem.line, key = problem.path, "{}", problem.message);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let done = runtime.block_on(async {
        let shutdown = Shutdown::default();
        app::start(loaded.config, &shutdown).await?;
        shutdown.run(grace).await.context("cannot wait for signals")
    });
    // What is still open after the grace period is cut.
    runtime.shutdown_timeout(LAST_WORDS);
    done.map(|()| ExitCode::SUCCESS)
}

fn read(files: &[PathBuf]) -> Result<Vec<Source>> {
    let twice = files.iter().filter(|file| *file == Path::new("-")).count() > 1;
    if twice {
        bail!("standard input (-) is given twice: it can be read once");
    }
    files.iter().map(|file| read_one(file)).collect()
}

fn read_one(file: &Path) -> Result<Source> {
    let name = file.display().to_string();
    if file == Path::new("-") {
        let text = read_text(std::io::stdin()).context("standard input")?;
        return Ok(Source { name: "<stdin>".to_owned(), text });
    }
    // GOST takes JSON in place of a file's name.
    if name.starts_with('{') {
        return Ok(Source { name: "<command line>".to_owned(), text: name });
    }
    if file.is_dir() {
        bail!(
            "{name} is a directory: give its files, each with its own -C (-C {name}/a.yaml -C {name}/b.yaml)"
        );
    }
    let opened = File::open(file).with_context(|| format!("cannot read {name}{}", advice(file)))?;
    Ok(Source { text: read_text(opened).with_context(|| name.clone())?, name })
}

/// What to do about a file that cannot be opened.
fn advice(file: &Path) -> &'static str {
    if file.to_str().is_some_and(|name| name.contains("://")) {
        " (a URL is not fetched: `curl URL | pointsman -C -` does that)"
    } else if !file.exists() {
        " (is the name right, and the working directory?)"
    } else {
        " (may this user read it?)"
    }
}

/// A whole file of configuration; endless ones are given up at the limit.
fn read_text(from: impl Read) -> Result<String> {
    let limit = u64::try_from(MAX_FILE_SIZE).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes).context("cannot be read")?;
    if bytes.len() > MAX_FILE_SIZE {
        bail!("more than {MAX_FILE_SIZE} bytes: divide it, -C may be given several times");
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow::anyhow!("line {line} is not UTF-8: save the file with that encoding")
    })
}
