//! Logging: where lines go, in which form, from which level.
//!
//! An environment filter (`POINTSMAN_LOG`, else GOST's `GOST_LOGGER_LEVEL`) stands above the file's `log.level`.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// The `log` section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `log.level`: trace, debug, info, warn, error or fatal.
    pub level: Level,
    /// `log.format: json`.
    pub json: bool,
    /// `log.output`.
    pub output: Output,
}

/// GOST's levels; `fatal` shows errors only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Everything.
    Trace,
    /// One line per step.
    Debug,
    /// One line per connection or request.
    #[default]
    Info,
    /// We went on with something older or lesser.
    Warn,
    /// Someone must act.
    Error,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Output {
    /// `stderr`.
    #[default]
    Stderr,
    /// `stdout`.
    Stdout,
    /// `none`.
    None,
    /// A file that is appended to.
    File(PathBuf),
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Logging that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `log.output` names a file that cannot be written.
    #[error("cannot open log file {0:?}: {1}")]
    File(PathBuf, io::Error),
    /// An environment variable that is no filter.
    #[error("{0}={1:?} is no log filter: {2}; expected a level such as debug, or info,pointsman::mux=trace")]
    Filter(&'static str, String, String),
}

/// Sets the process's logging up; only the first call has an effect.
pub fn init(settings: &Settings) -> Result<(), InitError> {
    let filter = filter(settings)?;
    let (writer, terminal) = match &settings.output {
        Output::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
        Output::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
        Output::None => (BoxMakeWriter::new(io::sink), false),
        Output::File(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            (BoxMakeWriter::new(Mutex::new(file.map_err(|e| InitError::File(path.clone(), e))?)), false)
        }
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(terminal);
    // A second call is a test in the same process: the first one stands.
    drop(if settings.json { log.json().try_init() } else { log.try_init() });
    Ok(())
}

fn filter(settings: &Settings) -> Result<EnvFilter, InitError> {
    for name in ["POINTSMAN_LOG", "GOST_LOGGER_LEVEL"] {
        if let Ok(text) = std::env::var(name) {
            return parse_filter(&text).map_err(|why| InitError::Filter(name, text, why));
        }
    }
    Ok(EnvFilter::new(settings.level.as_str()))
}

/// A word alone is a level. As a target, which the filter language would take it for, a mistyped level would switch all lines off.
fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    const WORDS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];
    let text = if text.trim().eq_ignore_ascii_case("fatal") { "error" } else { text };
    let words =
        text.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.contains(['=', '[', ':']));
    if let Some(word) = words.into_iter().find(|word| !WORDS.iter().any(|w| w.eq_ignore_ascii_case(word))) {
        return Err(format!("there is no level {word:?}"));
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for text in
            ["info", "WARN", "fatal", "off", "info,pointsman::mux=trace", "pointsman::mux", "warn,h2=off"]
        {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
        for text in ["verbose", "info,loud", "pointsman=noisy"] {
            assert!(parse_filter(text).is_err(), "{text}");
        }
    }
}
