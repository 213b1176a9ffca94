//! YAML text to a tree that remembers where everything stands; the only user of the YAML library.
//!
//! Scalars keep their text: whether `0123` is a number or a password is the business of whoever reads that key. What the
//! reference's loader takes is taken: JSON, anchors, aliases, merge keys (`<<`), a byte-order mark, CRLF. Several documents in
//! one file are read like several files. Size, depth and what aliases add are bounded.

use super::problem::MAX_FILE_SIZE;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// Deepest nesting; GOST's own objects need eight levels. Each level is a call deeper in the reading of the tree.
const MAX_DEPTH: usize = 64;
/// Values in one file: 100,000 rules take 300,000, as many nodes with a filter and metadata a million. A file of the largest
/// size could hold sixteen million, which would take gigabytes.
const MAX_VALUES: usize = 4_000_000;
/// Values that aliases and anchors add to those in the text. Without a bound of its own a few lines, each naming the one before
/// it ten times, would fill the memory.
const MAX_ALIASED: usize = 200_000;
/// Keys of a mapping that are looked through one by one.
const FEW: usize = 16;

/// A place in a file, counted from 1. Every value and key has one, so it is small; the largest file fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Place {
    /// Which of the files.
    pub(crate) source: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    /// So many columns further right.
    pub(crate) fn behind(self, columns: usize) -> Self {
        Self { column: self.column + u32::try_from(columns).unwrap_or(u32::MAX - self.column), ..self }
    }

    /// A place that was counted elsewhere.
    pub(crate) fn new(source: usize, line: usize, column: usize) -> Self {
        let [source, line, column] = [source, line, column].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Self { source, line, column }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) at: Place,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Map(Vec<(Key, Tree)>),
    List(Vec<Tree>),
    /// `None`: an empty value or `null`.
    Scalar(Option<String>),
}

/// A key as written; compared without case.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Place,
    pub(crate) text: String,
    /// What the reader of its mapping makes of it, for a key of which that decides where it stays; `None` for all others.
    pub(crate) fate: Option<Cell<Fate>>,
}

/// What becomes of a key that was put into several mappings because only their readers know where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Fate {
    /// No such key.
    Unknown,
    /// No such key, but one like it.
    Similar,
    /// Known, but without effect here.
    NoEffect,
    /// Known, and left aside.
    Later,
    /// Known, and refused.
    Needed,
    /// The mapping was not read.
    #[default]
    Unread,
    /// Asked for.
    Asked,
}

impl Key {
    pub(crate) fn new(at: Place, text: impl Into<String>) -> Self {
        Self { at, text: text.into(), fate: None }
    }

    /// Notes what became of it. The best counts: a mapping may be read more than once, and for more than one purpose.
    pub(crate) fn note(&self, fate: Fate) {
        if let Some(noted) = &self.fate
            && (noted.get() == Fate::Unread || noted.get() < fate)
        {
            noted.set(fate);
        }
    }
}

/// Text that is no YAML, or not ours, and where it stops being it.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Place,
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

/// What one file holds.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// Its documents; those that are empty are left out.
    pub(crate) documents: Vec<Tree>,
    /// Mistakes that did not keep the rest from being read.
    pub(crate) mistakes: Vec<SyntaxError>,
}

/// Parses one file.
pub(crate) fn parse(text: &str, source: usize) -> Result<File, SyntaxError> {
    parse_within(text, source, MAX_VALUES)
}

fn parse_within(text: &str, source: usize, max_values: usize) -> Result<File, SyntaxError> {
    let start = Place::new(source, 1, 1);
    if text.len() > MAX_FILE_SIZE {
        let message = format!("the file has {} bytes, more than {MAX_FILE_SIZE}", text.len());
        return Err(SyntaxError { at: start, message, help: "divide it: -C may be given several times" });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
        max_values,
        aliased: 0,
        last: start,
        mistakes: Vec::new(),
    };
    let mut documents = Vec::new();
    while let Some((event, at)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            event => documents.push(builder.tree(event, at, 0)?),
        }
    }
    documents.retain(|tree| !matches!(tree.value, Value::Scalar(None)));
    Ok(File { documents, mistakes: builder.mistakes })
}

struct Builder<I> {
    events: I,
    /// Anchored values, with the number of values in each.
    anchors: HashMap<usize, (Tree, usize)>,
    values: usize,
    max_values: usize,
    aliased: usize,
    last: Place,
    mistakes: Vec<SyntaxError>,
}

impl<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Builder<I> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Place)>, SyntaxError> {
        let source = self.last.source;
        let structure = |event: &Result<(Event<'a>, Span), ScanError>| {
            !matches!(event, Ok((Event::Comment(..) | Event::Anchor(..), _)))
        };
        match self.events.find(structure) {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.last = Place { source, ..Place::new(0, span.start.line(), span.start.col() + 1) };
                Ok(Some((event, self.last)))
            }
            Some(Err(error)) => {
                let (line, column) = (error.marker().line().max(1), error.marker().col() + 1);
                let at = Place { source, ..Place::new(0, line, column) };
                // The library has a bound of its own, which it may reach by looking ahead.
                if error.info().contains("recursion limit") {
                    return Err(too_deep(at));
                }
                let message = format!("not valid YAML: {}", error.info());
                Err(SyntaxError { at, message, help: advice(&error.info()) })
            }
        }
    }

    fn tree(&mut self, event: Event<'a>, at: Place, depth: usize) -> Result<Tree, SyntaxError> {
        let before = self.values;
        self.values += 1;
        if self.values > self.max_values {
            let message = format!("more than {} values in one file", self.max_values);
            return Err(SyntaxError { at, message, help: "divide it: -C may be given several times" });
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(text.into_owned(), style)),
            Event::SequenceStart(_, anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(SyntaxError { at, message: "expected a value".to_owned(), help: "" }),
        };
        let tree = Tree { at, value };
        if anchor != 0 {
            // What is kept for aliases is a copy, too.
            let size = self.values - before;
            self.count_aliased(size, at)?;
            self.anchors.insert(anchor, (tree.clone(), size));
        }
        Ok(tree)
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<Tree, SyntaxError> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            let message = "an alias of the value that it stands in".to_owned();
            return Err(SyntaxError { at, message, help: "an anchor (&name) must be complete before *name" });
        };
        self.count_aliased(size, at)?;
        // Counted where it stands: an anchor around it would copy it again.
        self.values += size;
        Ok(self.anchors[&anchor].0.clone())
    }

    fn count_aliased(&mut self, size: usize, at: Place) -> Result<(), SyntaxError> {
        self.aliased += size;
        if self.aliased > MAX_ALIASED {
            let message = format!("anchors and aliases repeat more than {MAX_ALIASED} values");
            return Err(SyntaxError { at, message, help: "write the values out, or use fewer aliases" });
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, _)) => {
                    items.shrink_to_fit();
                    return Ok(Value::List(items));
                }
                Some((event, at)) => items.push(self.tree(event, at, depth + 1)?),
                None => return Err(self.cut_off()),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries = Entries::default();
        let mut merged = Vec::new();
        loop {
            let (key, plain) = match self.next()? {
                Some((Event::MappingEnd, _)) => break,
                Some((Event::Scalar(text, style, ..), at)) => {
                    (Key::new(at, text), style == ScalarStyle::Plain)
                }
                Some((_, at)) => {
                    let message = "a key must be plain text".to_owned();
                    return Err(SyntaxError {
                        at,
                        message,
                        help: "a value that begins with *, [ or { needs quotes",
                    });
                }
                None => return Err(self.cut_off()),
            };
            let (event, at) = self.next()?.ok_or_else(|| self.cut_off())?;
            let value = self.tree(event, at, depth + 1)?;
            if plain && key.text == "<<" {
                merged.push(value);
            } else if let Err(key) = entries.add(key, value) {
                let message = format!("key {:?} stands here twice", key.text);
                let help = "keep one of the two; keys that differ in case only are the same";
                self.mistakes.push(SyntaxError { at: key.at, message, help });
            }
        }
        merged.into_iter().for_each(|value| self.merge(value, &mut entries));
        entries.all.shrink_to_fit();
        Ok(Value::Map(entries.all))
    }

    /// `<<: *other`: what the mapping does not say itself; of several, the first that says it.
    fn merge(&mut self, value: Tree, entries: &mut Entries) {
        match value.value {
            Value::Map(other) => {
                for (key, value) in other {
                    // The mapping's own, or an earlier one's, stays.
                    drop(entries.add(key, value));
                }
            }
            Value::List(maps) if maps.iter().all(|tree| matches!(tree.value, Value::Map(_))) => {
                maps.into_iter().for_each(|tree| self.merge(tree, entries));
            }
            _ => {
                let message = "nothing that could be merged".to_owned();
                let help = "expected <<: *anchor of a mapping, or a list of such";
                self.mistakes.push(SyntaxError { at: value.at, message, help });
            }
        }
    }

    fn cut_off(&self) -> SyntaxError {
        SyntaxError { at: self.last, message: "the file ends in the middle of a value".to_owned(), help: "" }
    }
}

/// The entries of one mapping, and how a key is found to be new: by looking through a few, or in a set of many.
#[derive(Default)]
struct Entries {
    all: Vec<(Key, Tree)>,
    /// In lower case, once there are [`FEW`].
    names: HashSet<String>,
}

impl Entries {
    /// Adds an entry, unless one of that name is there; names that differ in case only are the same.
    fn add(&mut self, key: Key, value: Tree) -> Result<(), Key> {
        let new = if self.all.len() < FEW {
            !self.all.iter().any(|(known, _)| known.text.eq_ignore_ascii_case(&key.text))
        } else {
            if self.names.is_empty() {
                self.names.extend(self.all.iter().map(|(known, _)| known.text.to_ascii_lowercase()));
            }
            self.names.insert(key.text.to_ascii_lowercase())
        };
        if !new {
            return Err(key);
        }
        self.all.push((key, value));
        Ok(())
    }
}

fn too_deep(at: Place) -> SyntaxError {
    let message = format!("nested deeper than {MAX_DEPTH} levels");
    SyntaxError { at, message, help: "no configuration needs more than ten" }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
    Value::Scalar((!null).then_some(text))
}

/// What most often lies behind a complaint of the YAML library.
fn advice(complaint: &str) -> &'static str {
    let has = |word: &str| complaint.to_ascii_lowercase().contains(word);
    if has("tab") {
        "indent with spaces: YAML takes no tabs in or below this line"
    } else if has("anchor") || has("alias") {
        "define it before with &name; if no alias is meant, write *.example.com in quotes"
    } else if has("expected key") {
        "a value with [ { \" or ' in front ends at its counterpart: put all of it in quotes, as in \"[::]:80\""
    } else if has("escape") {
        "use single quotes, in which a backslash is a backslash"
    } else if has("mapping values")
        || has("block mapping")
        || has("indent")
        || has("simple key")
        || has("':'")
    {
        "look at the indentation here and in the line above, and for a missing space after a colon"
    } else if has("quot") || has("bracket") || has("flow") || has("end of stream") {
        "look for a missing quote, comma or bracket"
    } else {
        "text with one of : # { } [ ] * & ! | > % @ ` in it needs quotes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted() {
        assert!(parse_within("[a, b, {c: d}]", 0, 5).is_ok());
        let error = parse_within("[a, b, {c: d}]", 0, 4).unwrap_err();
        assert_eq!((error.message.as_str(), error.at.column), ("more than 4 values in one file", 12));
        assert!(parse_within("[&a [x, y], *a]", 0, 6).is_ok());
        assert!(parse_within("[&a [x, y], *a, z]", 0, 7).is_err());
    }

    #[test]
    fn merged_keys_stand_behind_the_mappings_own() {
        let text =
            "a: &a { x: 1, y: 1 }\nb: &b { y: 2, z: 2 }\nc: { z: 3, <<: [*a, *b] }\nd: { \"<<\": 4 }\n";
        let file = parse(text, 0).unwrap();
        let entries = |tree: &Tree| match &tree.value {
            Value::Map(entries) => entries.clone(),
            _ => Vec::new(),
        };
        let root = entries(&file.documents[0]);
        let shown = |index: usize| -> String {
            let text = |tree: &Tree| match &tree.value {
                Value::Scalar(text) => text.clone().unwrap_or_default(),
                _ => String::new(),
            };
            entries(&root[index].1).iter().map(|(key, tree)| format!("{}{} ", key.text, text(tree))).collect()
        };
        assert_eq!((shown(2).as_str(), shown(3).as_str()), ("z3 x1 y1 ", "<<4 "));
        assert!(file.mistakes.is_empty());
    }
}
