//! `pointsman plugin`: tools for plugin authors. Each works on a file, under the limits that the proxy has by default.
//!
//! A command makes a report, as text or as JSON. Exit status: 0 when all is well, 1 when something is wrong with the plugin,
//! 2 when the command could not do its work: a wrong command line, a file that is not there.

mod bench;
mod call;
mod check;
mod new;
mod question;
mod test;

use crate::config;
use crate::plugin::{CompiledCache, InstallError, Limits, Runtime, Workbench};
use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// What the tools show of the log, which goes to standard error.
const LOG: &str = "pointsman::plugin=trace,off";

/// The same without what plugins say themselves: a hundred new instances a second have nothing new to say.
const QUIET_LOG: &str = "pointsman::plugin=trace,pointsman::plugin::bind=off,off";

#[derive(Debug, Args)]
pub(super) struct Command {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Makes a project that builds as it is
    New(new::Arguments),
    /// Says what is in a plugin and what is wrong with it, instantiates and configures it
    #[command(after_long_help = check::HELP)]
    Check(check::Arguments),
    /// Asks a plugin one question: prints its answer, time, memory and log lines
    #[command(after_long_help = call::HELP)]
    Call(call::Arguments),
    /// Asks a plugin the questions of a decision table and prints the answers that are not those expected
    #[command(after_long_help = test::HELP)]
    Test(test::Arguments),
    /// Measures what calls and starts cost
    #[command(after_long_help = bench::HELP)]
    Bench(bench::Arguments),
}

/// The plugin that a command is about.
#[derive(Debug, Args)]
struct PluginFile {
    /// The plugin: a component or a core module, NAME.wasm
    file: PathBuf,
    /// Its configuration [default: NAME.yaml beside it, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// For one decision, as `plugins.limits.deadline`; on a busy machine a plugin may need more than its own time
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = deadline)]
    deadline: Duration,
}

fn deadline(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "expected a duration such as 5ms or 1s".to_owned())
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, Args)]
struct Form {
    /// Prints one JSON object instead of text; what keys it has, --help tells. Without a result: "ok" and "error"
    #[arg(long)]
    json: bool,
}

/// What a command has to say.
struct Report {
    ok: bool,
    text: String,
    json: serde_json::Value,
}

/// Why a command has nothing to report.
enum Failure {
    /// Something is wrong with the plugin, or with what belongs to it.
    Plugin(String),
    /// The command line is wrong, or what it names is not there.
    Usage(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        Self::Plugin(error.to_string())
    }
}

pub(super) fn run(command: &Command) -> ExitCode {
    let filter = if matches!(command.tool, Tool::Bench(_)) { QUIET_LOG } else { LOG };
    let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(io::stderr);
    let log = log.with_ansi(io::stderr().is_terminal());
    // Whoever has set one up already sees the lines there.
    drop(log.without_time().with_target(false).try_init());
    let (form, report) = match &command.tool {
        Tool::New(arguments) => (arguments.form, new::run(arguments)),
        Tool::Check(arguments) => (arguments.form, check::run(arguments)),
        Tool::Call(arguments) => (arguments.form, call::run(arguments)),
        Tool::Test(arguments) => (arguments.form, test::run(arguments)),
        Tool::Bench(arguments) => (arguments.form, bench::run(arguments)),
    };
    match report {
        Ok(Report { ok, text, json }) => match print(&if form.json { format!("{json}\n") } else { text }) {
            Ok(()) => ExitCode::from(u8::from(!ok)),
            Err(error) => {
                super::print(&format!("pointsman: cannot write the report: {error}\n"));
                ExitCode::from(2)
            }
        },
        Err(Failure::Plugin(problem)) => {
            fail(form, &problem);
            ExitCode::FAILURE
        }
        Err(Failure::Usage(error)) => {
            fail(form, &format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

/// What to say to a wrong command line, or to one that asks for help.
pub(super) fn misused(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == "--json");
    if json && error.use_stderr() {
        fail(Form { json }, error.to_string().trim_end());
        return ExitCode::from(2);
    }
    error.exit()
}

/// Says why there is no report.
fn fail(form: Form, problem: &str) {
    if form.json {
        // The exit status says it as well.
        drop(print(&format!("{}\n", serde_json::json!({ "ok": false, "error": problem }))));
    } else {
        super::print(&format!("pointsman: {problem}\n"));
    }
}

/// To standard output; when that is closed nobody is reading.
pub(super) fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

impl PluginFile {
    /// The plugin's name: the file's, without its ending.
    fn name(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn code(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))
    }

    /// Where its configuration is; `None` without one.
    fn config_file(&self) -> Option<PathBuf> {
        let beside = || Some(self.file.with_extension("yaml")).filter(|file| file.exists());
        self.config.clone().or_else(beside)
    }

    fn config(&self) -> anyhow::Result<String> {
        self.config_file().map_or_else(|| Ok(String::new()), |file| text(&file))
    }

    /// The plugin, ready to be asked.
    fn open(&self) -> Result<Workbench, Failure> {
        Ok(Workbench::new(&self.runtime()?, &self.name(), &self.code()?, &self.config()?)?)
    }

    /// The engine, with the limits that a proxy has whose configuration sets none.
    fn runtime(&self) -> anyhow::Result<Runtime> {
        // Without a folder for compiled code every command compiles the plugin anew, and that is all.
        let cache = CompiledCache::default_dir().and_then(|dir| CompiledCache::open(&dir).ok());
        let limits = Limits { deadline: self.deadline, ..Limits::default() };
        Runtime::new(limits, cache.unwrap_or_default()).context("cannot set up the plugin engine")
    }
}

fn text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// A line of a report.
fn line(what: &str, value: impl Display) -> String {
    format!("{what:<12}{value}\n")
}

/// Log lines of a call, below what they belong to.
fn log_lines(log: &[(String, String)]) -> String {
    log.iter().map(|(level, message)| line("log", format!("{level}: {message}"))).collect()
}

fn log_json(log: &[(String, String)]) -> serde_json::Value {
    log.iter().map(|(level, message)| serde_json::json!({ "level": level, "message": message })).collect()
}

/// A time with three digits: `708 ns`, `12.3 ms`.
fn short(time: Duration) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")];
    let nanos = time.as_secs_f64() * 1e9;
    let (scale, unit) = units.into_iter().find(|(scale, _)| nanos >= *scale).unwrap_or((1.0, "ns"));
    digits(nanos / scale, unit)
}

/// A size with three digits: `1.13 MiB`.
fn size(bytes: usize) -> String {
    let units = [(1usize << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(scale, _)| bytes >= *scale) {
        Some((scale, unit)) => digits(bytes as f64 / scale as f64, unit),
        None => format!("{bytes} bytes"),
    }
}

fn digits(value: f64, unit: &str) -> String {
    let decimals = if unit == "ns" || value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.decimals$} {unit}")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The problem of a question that cannot be asked.
fn unasked(error: String) -> Failure {
    Failure::Usage(anyhow!("{error}").context("the question cannot be asked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let short = |nanos| short(Duration::from_nanos(nanos));
        assert_eq!(short(0), "0 ns");
        assert_eq!((short(708), short(1_234)), ("708 ns".to_owned(), "1.23 us".to_owned()));
        assert_eq!((short(12_345_678), short(120_000_000_000)), ("12.3 ms".to_owned(), "120 s".to_owned()));
        assert_eq!((size(512), size(1_179_648)), ("512 bytes".to_owned(), "1.12 MiB".to_owned()));
    }
}
