//! Typed reading of the tree: every value that was not asked for is reported, and so is every value of the wrong kind.

use super::file::{Key, Place, Tree, Value};
use super::problem::{Problem, Severity, Source};
use crate::addr::HostPort;
use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Collects problems while a configuration is read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) sources: &'a [Source],
    pub(crate) problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn report(
        &self,
        severity: Severity,
        at: Place,
        path: &str,
        message: String,
        help: impl Into<String>,
    ) {
        self.problems.borrow_mut().push(Problem::new(self.sources, severity, at, path, message, help));
    }
}

/// A value with its path.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) reader: &'a Reader<'a>,
    pub(crate) tree: &'a Tree,
    pub(crate) path: String,
}

/// A mapping whose keys are ticked off as they are read.
#[derive(Debug)]
pub(crate) struct Map<'a> {
    reader: &'a Reader<'a>,
    pub(crate) at: Place,
    pub(crate) path: String,
    entries: Vec<(&'a Key, &'a Tree, Cell<bool>)>,
    asked: RefCell<Vec<&'static str>>,
}

/// How a bare number is read as a duration (the wire specification, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    /// In metadata.
    Seconds,
    /// In other fields.
    Nanoseconds,
}

impl<'a> Field<'a> {
    pub(crate) fn error(&self, message: String, help: impl Into<String>) {
        self.reader.report(Severity::Error, self.tree.at, &self.path, message, help);
    }

    pub(crate) fn warn(&self, message: String, help: impl Into<String>) {
        self.reader.report(Severity::Warning, self.tree.at, &self.path, message, help);
    }

    fn wrong(&self, expected: &str) {
        let found = match &self.tree.value {
            Value::Map(_) => "a mapping".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Scalar(None) => "nothing".to_owned(),
            Value::Scalar(Some(text)) => format!("{text:?}"),
        };
        self.error(format!("found {found}"), format!("expected {expected}"));
    }

    pub(crate) fn map(&self) -> Option<Map<'a>> {
        let entries: &[_] = match &self.tree.value {
            Value::Map(entries) => entries,
            Value::Scalar(None) => &[],
            _ => {
                self.wrong("a mapping (key: value)");
                return None;
            }
        };
        let entries = entries.iter().map(|(key, tree)| (key, tree, Cell::new(false))).collect();
        Some(Map {
            reader: self.reader,
            at: self.tree.at,
            path: self.path.clone(),
            entries,
            asked: RefCell::default(),
        })
    }

    pub(crate) fn list(&self) -> Vec<Self> {
        match &self.tree.value {
            Value::List(items) => {
                let field =
                    |(i, tree)| Self { reader: self.reader, tree, path: format!("{}[{i}]", self.path) };
                items.iter().enumerate().map(field).collect()
            }
            Value::Scalar(None) => Vec::new(),
            _ => {
                self.wrong("a list (- item)");
                Vec::new()
            }
        }
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.tree.value {
            Value::Scalar(text) => Some(text.as_deref().unwrap_or_default()),
            _ => {
                self.wrong("text");
                None
            }
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        let text = self.scalar("true or false")?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" | "on" => Some(true),
            "false" | "0" | "f" | "no" | "off" => Some(false),
            _ => {
                self.wrong("true or false");
                None
            }
        }
    }

    pub(crate) fn number(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = self.scalar(&expected)?.parse().ok().filter(|n| range.contains(n));
        if number.is_none() {
            self.wrong(&expected);
        }
        number
    }

    pub(crate) fn duration(&self, bare: Bare) -> Option<Duration> {
        const EXPECTED: &str = "a duration such as 10s, 1m30s or 500ms";
        let text = self.scalar(EXPECTED)?;
        let duration = match (text.parse::<u64>(), bare) {
            (Ok(n), Bare::Seconds) => Some(Duration::from_secs(n)),
            (Ok(0), Bare::Nanoseconds) => Some(Duration::ZERO),
            (Ok(n), Bare::Nanoseconds) => {
                self.warn(
                    format!("{n} without a unit is {n} nanoseconds here"),
                    format!("write {n}s for seconds"),
                );
                Some(Duration::from_nanos(n))
            }
            (Err(_), _) => parse_duration(text),
        };
        // Longer than any wait makes sense, and far from where adding to the clock would overflow.
        let duration = duration.filter(|d| d.as_secs() <= 10 * 365 * 24 * 3600);
        if duration.is_none() {
            self.wrong(EXPECTED);
        }
        duration
    }

    /// A duration that must not be zero: no wait on a peer is without limit here.
    pub(crate) fn wait(&self, bare: Bare) -> Option<Duration> {
        let wait = self.duration(bare)?;
        if wait.is_zero() {
            self.error(
                "a wait of zero".to_owned(),
                "expected a duration above zero; leave the key out for the default",
            );
            return None;
        }
        Some(wait)
    }

    pub(crate) fn address(&self, default_port: Option<u16>) -> Option<HostPort> {
        let text = self.text()?;
        let has_port = HostPort::parse(text, 0) == HostPort::parse(text, 1);
        match HostPort::parse(text, default_port.unwrap_or(0)) {
            Ok(addr) if has_port || default_port.is_some() => Some(addr),
            Ok(_) => {
                self.wrong("an address with a port: :80, 127.0.0.1:80, [::1]:80 or name:80");
                None
            }
            Err(error) => {
                self.error(format!("{text:?} is no address: {error}"), "expected host:port");
                None
            }
        }
    }

    fn scalar(&self, expected: &str) -> Option<&'a str> {
        match &self.tree.value {
            Value::Scalar(Some(text)) => Some(text.trim()),
            _ => {
                self.wrong(expected);
                None
            }
        }
    }
}

impl<'a> Map<'a> {
    /// The value of the first of these spellings that is there.
    pub(crate) fn get(&self, names: &[&'static str]) -> Option<Field<'a>> {
        self.asked.borrow_mut().extend(names);
        let is = |key: &Key| names.iter().any(|name| key.text.eq_ignore_ascii_case(name));
        let mut found = self.entries.iter().filter(|(key, ..)| is(key));
        let first = found.next()?;
        first.2.set(true);
        for (key, _, read) in found {
            read.set(true);
            let message = format!("{:?} says the same as {:?}", key.text, first.0.text);
            self.reader.report(Severity::Error, key.at, &self.path, message, "keep one of the two");
        }
        Some(Field { reader: self.reader, tree: first.1, path: self.path_of(&first.0.text) })
    }

    /// The mapping under `name`, an empty one where there is none; `None` when it is something else.
    pub(crate) fn section(&self, name: &'static str) -> Option<Self> {
        match self.get(&[name]) {
            Some(field) => field.map(),
            None => Some(Self {
                reader: self.reader,
                at: self.at,
                path: self.path_of(name),
                entries: Vec::new(),
                asked: RefCell::default(),
            }),
        }
    }

    pub(crate) fn error(&self, message: String, help: impl Into<String>) {
        self.reader.report(Severity::Error, self.at, &self.path, message, help);
    }

    pub(crate) fn text(&self, names: &[&'static str]) -> Option<&'a str> {
        self.get(names)?.text().filter(|text| !text.is_empty())
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Every key with its text, for mappings whose keys are their author's.
    pub(crate) fn into_texts(self) -> impl Iterator<Item = (Box<str>, Box<str>)> + use<'a> {
        let Map { reader, path, entries, .. } = self;
        entries.into_iter().filter_map(move |(key, tree, _)| {
            let field = Field { reader, tree, path: format!("{path}.{}", key.text) };
            Some((key.text.as_str().into(), field.text()?.into()))
        })
    }

    /// Reports what was not asked for. `later`: keys of GOST's that are left aside with a warning; `needed`: those that
    /// it would be unsafe to leave aside.
    pub(crate) fn finish(self, later: &[&'static str], needed: &[&'static str]) {
        let has = |list: &[&str], key: &Key| list.iter().any(|name| key.text.eq_ignore_ascii_case(name));
        for (key, tree, _) in self.entries.iter().filter(|(.., read)| !read.get()) {
            let path = self.path_of(&key.text);
            let report =
                |severity, message, help: String| self.reader.report(severity, key.at, &path, message, help);
            if has(later, key) {
                report(Severity::Warning, "not supported yet, left aside".to_owned(), String::new());
            } else if has(needed, key) {
                let empty = matches!(&tree.value, Value::Scalar(None))
                    || matches!(&tree.value, Value::List(l) if l.is_empty());
                if !empty {
                    let help = "remove it if you can do without; it is not left aside in silence".to_owned();
                    report(Severity::Error, "not supported yet".to_owned(), help);
                }
            } else {
                let known = self.asked.borrow();
                let known = known.iter().chain(later).chain(needed);
                report(
                    Severity::Error,
                    format!("unknown key {:?}", key.text),
                    nearest(&key.text, known.copied()),
                );
            }
        }
    }
}

/// "did you mean" for a misspelt word, or the words there are.
pub(crate) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> String {
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    known.dedup();
    let distance = |k: &str| strsim::damerau_levenshtein(&k.to_lowercase(), &word.to_lowercase());
    match known.iter().min_by_key(|k| distance(k)) {
        Some(best) if distance(best) <= 1 + word.len() / 3 => format!("did you mean {best:?}?"),
        Some(_) => format!("known here: {}", known.join(", ")),
        None => "there is none".to_owned(),
    }
}

/// Go's form of a duration: numbers with units, such as `1h2m3.5s`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "10", "-1s", "1d", "1s1", "1..5s", "9999999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
