//! Placeholder.
use std::path::PathBuf;

/// The `log` section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `log.level`: trace, debug, info, warn, error or fatal.
    pub level: Level,
    /// `log.format`; `None`: text on a terminal, JSON elsewhere is *not* assumed: text.
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
