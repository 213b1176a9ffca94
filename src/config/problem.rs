//! What is wrong in a configuration, shown like a compiler's message.

use super::file::SyntaxError;
use super::nodes::Place;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
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
    /// The file's name, or the argument of the command line (without its secrets) that stands in place of one.
    pub file: String,
    /// Whether that is an argument: it has no lines.
    pub argument: bool,
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

/// Most bytes of one file: 100,000 rules or nodes have about ten million. More would only fill the memory.
pub const MAX_FILE_SIZE: usize = 32 << 20;
/// Longest part of a line that is shown: JSON may come in one line.
const MAX_SNIPPET: usize = 120;
/// How much of that stands before the place that is meant.
const SNIPPET_BEFORE: usize = 80;
/// Longest message: a value in it may be as long as the file.
const MAX_MESSAGE: usize = 400;
/// Longest help: it may list the keys of an object, or the names of all objects.
const MAX_HELP: usize = 2_000;

/// Where text comes from that is read: a file, or an argument of the command line.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) text: &'a str,
    pub(crate) argument: bool,
}

impl<'a> From<&'a Source> for Origin<'a> {
    fn from(Source { name, text }: &'a Source) -> Self {
        Self { name: Cow::Borrowed(name), text, argument: false }
    }
}

impl Problem {
    pub(crate) fn new(
        origins: &[Origin<'_>],
        severity: Severity,
        at: Place,
        path: &str,
        message: String,
        help: impl Into<String>,
    ) -> Self {
        let origin = origins.get(at.source as usize);
        let line = origin.and_then(|o| line(o.text, at.line as usize)).unwrap_or_default();
        Self {
            severity,
            file: origin.map_or_else(String::new, |o| o.name.to_string()),
            argument: origin.is_some_and(|o| o.argument),
            line: at.line as usize,
            column: at.column as usize,
            path: clip(path.to_owned(), MAX_MESSAGE),
            message: clip(message, MAX_MESSAGE),
            help: clip(help.into(), MAX_HELP),
            snippet: line.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        }
    }

    /// The part of the line that is shown, and how far right in it the place is.
    fn excerpt(&self) -> (String, usize) {
        let column = self.column.saturating_sub(1);
        let skipped = if column < MAX_SNIPPET { 0 } else { column - SNIPPET_BEFORE };
        let mut part: String = self.snippet.chars().skip(skipped).take(MAX_SNIPPET).collect();
        if self.snippet.chars().nth(skipped + MAX_SNIPPET).is_some() {
            part.push_str(" ...");
        }
        if skipped == 0 { (part, column) } else { (format!("... {part}"), column - skipped + 4) }
    }
}

/// A line by its number, counted from 1; YAML ends lines with LF, CR LF or CR.
fn line(text: &str, number: usize) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'));
    lines.nth(number.checked_sub(1)?)
}

fn clip(mut text: String, limit: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(limit) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
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
            let (excerpt, column) = self.excerpt();
            if self.argument {
                writeln!(f, "{blank}--> {}", self.file)?;
                writeln!(f, "{blank} |\n{blank} | {excerpt}\n{blank} | {}^", " ".repeat(column))?;
            } else {
                writeln!(f, "{blank}--> {}:{}:{}", self.file, self.line, self.column)?;
                writeln!(f, "{blank} |\n{margin} | {excerpt}\n{blank} | {}^", " ".repeat(column))?;
            }
        }
        if self.help.is_empty() { Ok(()) } else { writeln!(f, "  = {}", self.help) }
    }
}

/// Errors, and as many warnings, that are shown; nobody reads more, and each costs a look through its file.
const MAX_SHOWN: usize = 100;

/// Collects problems while a configuration is read.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    origins: Vec<Origin<'a>>,
    problems: RefCell<Vec<(Place, Problem)>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(origins: Vec<Origin<'a>>) -> Self {
        Self { origins, problems: RefCell::default(), errors: Cell::default(), warnings: Cell::default() }
    }

    /// The name of the file that a place is in; `None` in the command line.
    pub(crate) fn file(&self, at: Place) -> Option<&str> {
        self.origins.get(at.source as usize).filter(|origin| !origin.argument).map(|origin| &*origin.name)
    }

    /// Whether an argument has this problem already: what it says once may stand in several objects.
    fn is_repeated(&self, at: Place, message: &str) -> bool {
        self.origins.get(at.source as usize).is_some_and(|origin| origin.argument)
            && self.problems.borrow().iter().any(|(place, known)| *place == at && known.message == message)
    }

    pub(crate) fn report(
        &self,
        severity: Severity,
        at: Place,
        path: &str,
        message: String,
        help: impl Into<String>,
    ) {
        if !self.is_repeated(at, &message) && self.count(severity) {
            let problem = Problem::new(&self.origins, severity, at, path, message, help);
            self.problems.borrow_mut().push((at, problem));
        }
    }

    /// One for the same texts, without problems.
    pub(crate) fn afresh(&self) -> Self {
        Self::new(self.origins.clone())
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// How many errors there are so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// Whether further errors are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.get() >= MAX_SHOWN
    }

    /// Counts a problem; whether it is one of those that are shown.
    pub(crate) fn count(&self, severity: Severity) -> bool {
        let count = if severity == Severity::Error { &self.errors } else { &self.warnings };
        count.set(count.get() + 1);
        count.get() <= MAX_SHOWN
    }

    pub(crate) fn syntax(&self, error: SyntaxError) {
        self.report(Severity::Error, error.at, "", error.message, error.help);
    }

    /// All problems, in the order of the files; what two references to one object said twice stands once.
    pub(crate) fn finish(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| (at.source, at.line, at.column));
        problems.dedup();
        let mut problems: Vec<_> = problems.into_iter().map(|(_, problem)| problem).collect();
        for (count, severity, word) in [
            (self.errors.get(), Severity::Error, "errors"),
            (self.warnings.get(), Severity::Warning, "warnings"),
        ] {
            if let Some(more) = count.checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
                let message = format!("{more} more {word}; the first {MAX_SHOWN} are shown");
                problems.push(Problem::new(&self.origins, severity, Place::default(), "", message, ""));
            }
        }
        problems
    }
}
