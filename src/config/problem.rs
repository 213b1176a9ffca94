//! What is wrong in a configuration, shown like a compiler's message.

use super::file::Place;
use std::fmt;

/// One file of a configuration.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path, or `<stdin>`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not run.
    Error,
    /// It is run, without what the warning names.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The file's name.
    pub file: String,
    /// Counted from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Counted from 1.
    pub column: usize,
    /// Where in the document: `services[0].handler.type`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What was expected, or what to do.
    pub help: String,
    /// The line as it stands in the file.
    pub snippet: String,
}

/// Longest part of a line that is shown.
const MAX_SNIPPET: usize = 160;

impl Problem {
    pub(crate) fn new(
        sources: &[Source],
        severity: Severity,
        at: Place,
        path: &str,
        message: String,
        help: impl Into<String>,
    ) -> Self {
        let source = sources.get(at.source);
        let line = source.and_then(|s| s.text.lines().nth(at.line.checked_sub(1)?)).unwrap_or_default();
        let snippet: String =
            line.chars().take(MAX_SNIPPET).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self {
            severity,
            file: source.map_or_else(String::new, |s| s.name.clone()),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message,
            help: help.into(),
            snippet: snippet.trim_end().to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.severity == Severity::Error { "error" } else { "warning" };
        let at = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        writeln!(f, "{word}: {at}{}", self.message)?;
        if self.line == 0 {
            writeln!(f, " --> {}", self.file)?;
        } else {
            let margin = self.line.to_string();
            let blank = " ".repeat(margin.len());
            let caret = " ".repeat(self.column.saturating_sub(1).min(MAX_SNIPPET));
            writeln!(f, "{blank}--> {}:{}:{}", self.file, self.line, self.column)?;
            writeln!(f, "{blank} |\n{margin} | {}\n{blank} | {caret}^", self.snippet)?;
        }
        if self.help.is_empty() { Ok(()) } else { writeln!(f, "  = {}", self.help) }
    }
}
