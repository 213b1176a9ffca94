//! Typed reading of documents: every value that was not asked for is reported, and so is every value of the wrong kind.

use super::duration::parse_duration;
use super::nodes::{Kind, Node, Place, View};
use super::path::{Path, Step};
use super::problem::{Collector, Severity};
use super::tree::Fate;
use crate::addr::HostPort;
use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How the help of [`nearest`] begins when it has one.
const NEAREST: &str = "did you mean ";
/// Longest word for which the nearest known one is looked for: the time grows with its length.
const MAX_MISSPELT: usize = 64;

/// A value with its path.
#[derive(Debug, Clone)]
pub(crate) struct Field<'a> {
    pub(crate) problems: &'a Collector<'a>,
    view: View<'a>,
    /// Where the value stands that this one is in, and the way from there.
    around: Path<'a>,
    step: Step<'a>,
}

/// A mapping whose keys are ticked off as they are read.
#[derive(Debug)]
pub(crate) struct Map<'a> {
    problems: &'a Collector<'a>,
    at: Place,
    path: Path<'a>,
    entries: Vec<(&'a Node<'a>, View<'a>, Cell<bool>)>,
    asked: RefCell<Vec<&'static str>>,
}

/// Longer than any wait makes sense, and far from where adding to the clock would overflow.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const ADDRESS: &str = "an address with a port: :80, 127.0.0.1:80, [::1]:80 or name:80";

/// How a bare number is read as a duration (the wire specification, section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    /// In metadata.
    Seconds,
    /// In other fields.
    Nanoseconds,
}

impl<'a> Field<'a> {
    /// A whole document.
    pub(crate) fn root(problems: &'a Collector<'a>, view: View<'a>) -> Self {
        Self { problems, view, around: Path::default(), step: Step::Top }
    }

    /// Where in the document it is: `services[0].handler.type`.
    pub(crate) fn path(&self) -> String {
        self.around.to(self.step)
    }

    fn report(&self, severity: Severity, message: String, help: impl Into<String>) {
        self.problems.report(severity, self.view.at(), &self.path(), message, help);
    }

    pub(crate) fn error(&self, message: String, help: impl Into<String>) {
        self.report(Severity::Error, message, help);
    }

    pub(crate) fn warn(&self, message: String, help: impl Into<String>) {
        self.report(Severity::Warning, message, help);
    }

    fn wrong(&self, expected: &str) {
        let found = match self.view.kind() {
            Kind::Map(_) => "a mapping".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Scalar(None) => "nothing".to_owned(),
            Kind::Scalar(Some(text)) => format!("{text:?}"),
        };
        self.error(format!("found {found}"), format!("expected {expected}"));
    }

    /// The name of the file that it stands in; `None` in the command line.
    pub(crate) fn file(&self) -> Option<&'a str> {
        self.problems.file(self.view.at())
    }

    pub(crate) fn map(&self) -> Option<Map<'a>> {
        let entries = match self.view.kind() {
            Kind::Map(entries) => entries.map(|(key, value)| (key, value, Cell::new(false))).collect(),
            Kind::Scalar(None) => Vec::new(),
            _ => {
                self.wrong("a mapping (key: value)");
                return None;
            }
        };
        let path = self.around.below(self.step);
        Some(Map { problems: self.problems, at: self.view.at(), path, entries, asked: RefCell::default() })
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.view.kind(), Kind::List(_))
    }

    pub(crate) fn list(&self) -> Vec<Self> {
        match self.view.kind() {
            Kind::List(items) => {
                let (problems, around) = (self.problems, self.around.below(self.step));
                let field = |(i, view)| Self { problems, view, around: around.clone(), step: Step::Item(i) };
                items.enumerate().map(field).collect()
            }
            Kind::Scalar(None) => Vec::new(),
            _ => {
                self.wrong("a list (- item)");
                Vec::new()
            }
        }
    }

    /// The text under `name`, unless it is blank; what is wrong with it is said when the object is read.
    pub(crate) fn name(&self) -> Option<&'a str> {
        let Kind::Map(mut entries) = self.view.kind() else { return None };
        let (_, name) = entries.find(|(key, _)| key.text().eq_ignore_ascii_case("name"))?;
        let Kind::Scalar(Some(text)) = name.kind() else { return None };
        Some(text).filter(|text| !text.trim().is_empty())
    }

    /// Whether nothing or an empty text stands there, which counts as not there.
    pub(crate) fn is_blank(&self) -> bool {
        match self.view.kind() {
            Kind::Scalar(text) => text.unwrap_or_default().trim().is_empty(),
            _ => false,
        }
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        match self.view.kind() {
            Kind::Scalar(text) => Some(text.unwrap_or_default()),
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
        match duration {
            Some(duration) if duration <= MAX_DURATION => return Some(duration),
            Some(_) => self.wrong("at most 87600h, which is ten years"),
            None => self.wrong(EXPECTED),
        }
        None
    }

    /// A wait on a peer. Zero is the default, as in GOST: no such wait is without limit here.
    pub(crate) fn wait(&self, bare: Bare) -> Option<Duration> {
        let wait = self.duration(bare)?;
        if wait.is_zero() {
            self.warn(
                "a wait of zero: the default stands".to_owned(),
                "leave the key out, or give a longer time",
            );
            return None;
        }
        Some(wait)
    }

    pub(crate) fn address(&self, default_port: Option<u16>) -> Option<HostPort> {
        let text = self.scalar(ADDRESS)?;
        let has_port = HostPort::parse(text, 0) == HostPort::parse(text, 1);
        match HostPort::parse(text, default_port.unwrap_or(0)) {
            Ok(addr) if has_port || default_port.is_some() => return Some(addr),
            Ok(_) if text.bytes().all(|b| b.is_ascii_digit()) => {
                self.error(
                    format!("{text:?} is no address"),
                    format!("for the port write {:?}", format!(":{text}")),
                );
            }
            Ok(_) => self.error(format!("{text:?} has no port"), format!("expected {ADDRESS}")),
            Err(_) if text.contains("://") => {
                let help = "the protocol is said by listener and handler, or connector and dialer";
                self.error(
                    format!("{text:?} is a URL, not an address"),
                    format!("expected {ADDRESS}; {help}"),
                );
            }
            Err(error) => {
                self.error(format!("{text:?} is no address: {error}"), format!("expected {ADDRESS}"))
            }
        }
        None
    }

    fn scalar(&self, expected: &str) -> Option<&'a str> {
        match self.view.kind() {
            Kind::Scalar(Some(text)) => Some(text.trim()),
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
        let is = |key: &Node<'_>| names.iter().any(|name| key.text().eq_ignore_ascii_case(name));
        let mut found = self.entries.iter().filter(|(key, ..)| is(key));
        let &(first, view, ref read) = found.next()?;
        read.set(true);
        first.note(Fate::Asked);
        for (key, _, read) in found {
            read.set(true);
            key.note(Fate::Asked);
            let message = format!("{:?} says the same as {:?}", key.text(), first.text());
            let path = self.path.to_string();
            self.problems.report(Severity::Error, key.at, &path, message, "keep one of the two");
        }
        Some(self.field(first, view))
    }

    fn field(&self, key: &'a Node<'a>, view: View<'a>) -> Field<'a> {
        Field { problems: self.problems, view, around: self.path.clone(), step: Step::Key(key.text()) }
    }

    /// The mapping under `name`, an empty one where there is none; `None` when it is something else.
    pub(crate) fn section(&self, name: &'static str) -> Option<Self> {
        match self.get(&[name]) {
            Some(field) => field.map(),
            None => Some(Self {
                problems: self.problems,
                at: self.at,
                path: self.path.below(Step::Key(name)),
                entries: Vec::new(),
                asked: RefCell::default(),
            }),
        }
    }

    fn report(&self, severity: Severity, message: String, help: impl Into<String>) {
        self.problems.report(severity, self.at, &self.path.to_string(), message, help);
    }

    pub(crate) fn error(&self, message: String, help: impl Into<String>) {
        self.report(Severity::Error, message, help);
    }

    pub(crate) fn warn(&self, message: String, help: impl Into<String>) {
        self.report(Severity::Warning, message, help);
    }

    pub(crate) fn text(&self, names: &[&'static str]) -> Option<&'a str> {
        self.filled(names)?.text()
    }

    /// Like [`Self::get`], but a blank value counts as not there, as in GOST.
    pub(crate) fn filled(&self, names: &[&'static str]) -> Option<Field<'a>> {
        self.get(names).filter(|field| !field.is_blank())
    }

    /// Warns of the keys among `names` that nobody asked for: known ones, but without effect in this place.
    pub(crate) fn without_effect(&self, names: &[&str], place: &str) {
        for (key, _, read) in self.entries.iter().filter(|(.., read)| !read.get()) {
            if names.iter().any(|name| key.text().eq_ignore_ascii_case(name)) {
                read.set(true);
                key.note(Fate::NoEffect);
                let (path, message) = (self.path_of(key), format!("no effect {place}"));
                self.problems.report(Severity::Warning, key.at, &path, message, "remove it");
            }
        }
    }

    fn path_of(&self, key: &Node<'_>) -> String {
        self.path.to(Step::Key(key.text()))
    }

    /// The keys that have a text, whoever reads them.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (Box<str>, Box<str>)> {
        self.entries.iter().filter_map(|(key, view, _)| match view.kind() {
            Kind::Scalar(Some(text)) => Some((key.text().into(), text.into())),
            _ => None,
        })
    }

    /// Every key with its text, for mappings whose keys are their author's.
    pub(crate) fn into_texts(self) -> impl Iterator<Item = (Box<str>, Box<str>)> + use<'a> {
        let fields: Vec<_> =
            self.entries.iter().map(|(key, view, _)| (*key, self.field(key, *view))).collect();
        fields.into_iter().filter_map(|(key, field)| Some((key.text().into(), field.text()?.into())))
    }

    /// Reports what was not asked for. `later`: keys of GOST's that are left aside with a warning; `needed`: those that
    /// it would be unsafe to leave aside.
    pub(crate) fn finish(self, later: &[&'static str], needed: &[&'static str]) {
        let has =
            |list: &[&str], key: &Node<'_>| list.iter().any(|name| key.text().eq_ignore_ascii_case(name));
        for (key, view, _) in self.entries.iter().filter(|(.., read)| !read.get()) {
            let path = self.path_of(key);
            let report =
                |severity, message, help| self.problems.report(severity, key.at, &path, message, help);
            key.note(if has(later, key) { Fate::Later } else { Fate::Unknown });
            if (has(later, key) || has(needed, key)) && view.is_off() {
                key.note(Fate::Later);
                continue;
            }
            if has(later, key) {
                let message = "not supported yet, left aside".to_owned();
                report(Severity::Warning, message, "what it says has no effect here".to_owned());
            } else if has(needed, key) {
                key.note(Fate::Needed);
                let message = "not supported yet, and it would be unsafe to leave it aside".to_owned();
                report(Severity::Error, message, "remove it if you can do without it".to_owned());
            } else if self.problems.is_full() {
                self.problems.count(Severity::Error);
            } else {
                let asked = self.asked.borrow();
                // Those that are refused are no advice, but may be what was meant.
                let known: Vec<_> = asked.iter().chain(later).copied().collect();
                let help = dotted(key.text(), *view, &known)
                    .or_else(|| similar(key.text(), &[&known, needed].concat()))
                    .unwrap_or_else(|| nearest(key.text(), known.iter().copied()));
                if help.starts_with(NEAREST) {
                    key.note(Fate::Similar);
                }
                report(Severity::Error, format!("unknown key {:?}", key.text()), help);
            }
        }
    }
}

impl View<'_> {
    /// Nothing, an empty list or mapping, `false` or 0: whoever writes that does without.
    fn is_off(self) -> bool {
        match self.kind() {
            Kind::Scalar(text) => matches!(text.unwrap_or_default(), "" | "false" | "0"),
            Kind::List(items) => items.is_empty(),
            Kind::Map(entries) => entries.is_empty(),
        }
    }
}

/// Help for `http: { keepalive: true }`, where the known key is `http.keepalive`.
fn dotted(key: &str, view: View<'_>, known: &[&str]) -> Option<String> {
    let Kind::Map(entries) = view.kind() else { return None };
    let start = format!("{key}.").to_lowercase();
    let known: Vec<_> = known.iter().copied().filter(|k| k.to_lowercase().starts_with(&start)).collect();
    let meant = |inner: &Node<'_>| closest(&format!("{start}{}", inner.text()), &known);
    let mut meant: Vec<_> = entries.filter_map(|(inner, _)| meant(inner)).collect();
    if meant.is_empty() {
        meant = known;
    }
    meant.sort_unstable();
    meant.dedup();
    (!meant.is_empty()).then(|| format!("a key with a dot is one word: {}", meant.join(", ")))
}

/// "did you mean" for a misspelt word, or the words there are.
pub(crate) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> String {
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    known.dedup();
    similar(word, &known).unwrap_or_else(|| match &known[..] {
        [] => "none is defined".to_owned(),
        known => format!("known here: {}", known.join(", ")),
    })
}

fn similar(word: &str, known: &[&str]) -> Option<String> {
    closest(word, known).map(|best| format!("{NEAREST}{best:?}?"))
}

/// The word that a misspelt one resembles, by few wrong letters or by its beginning.
fn closest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    let lower = word.to_lowercase();
    let distance = |k: &str| {
        let k = k.to_lowercase();
        let wrong = strsim::damerau_levenshtein(&k, &lower);
        (if is_short_for(&k, &lower) { wrong.min(1) } else { wrong }, wrong)
    };
    let near = known.iter().filter(|_| word.len() <= MAX_MISSPELT).min_by_key(|k| distance(k));
    near.filter(|best| distance(best).0 <= 1 + word.len() / 3).copied()
}

/// Whether one word is the beginning of the other, and much of it: `addr` and `adress`, `meta` and `metadata`. Letters that stand
/// twice count once.
fn is_short_for(a: &str, b: &str) -> bool {
    let [mut short, mut long] = [a, b].map(|word| {
        let mut letters: Vec<_> = word.chars().collect();
        letters.dedup();
        letters
    });
    if short.len() > long.len() {
        std::mem::swap(&mut short, &mut long);
    }
    short.len() >= 3 && short.len() * 2 >= long.len() && long.starts_with(&short)
}
