//! YAML text to nodes that remember where they stand; the only user of the YAML library.
//!
//! Scalars keep their text: whether `0123` is a number or a password is the business of whoever reads that key. What the
//! reference's loader takes is taken: JSON, anchors, aliases, merge keys (`<<`), a byte-order mark, CRLF. Several documents in
//! one file are read like several files. Size, depth and what aliases add are bounded.

use super::nodes::{Document, Entries, Kind, Node, Place, View, What};
use super::problem::MAX_FILE_SIZE;
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Deepest nesting; GOST's own objects need eight levels. Each level is a call deeper in the reading.
const MAX_DEPTH: usize = 64;
/// Values in one file: 100,000 rules take 300,000, as many nodes with a filter and metadata a million. A file of the largest
/// size could hold sixteen million, which would take gigabytes.
const MAX_VALUES: usize = 4_000_000;
/// Values that aliases and anchors add to those in the text. Without a bound of its own a few lines, each naming the one before
/// it ten times, would fill the memory.
const MAX_ALIASED: usize = 200_000;
/// Keys of a mapping that are looked through one by one.
const FEW: usize = 16;

/// Text that is no YAML, or not ours, and where it stops being it.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Place,
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

/// What one file holds.
#[derive(Debug, Default)]
pub(crate) struct File<'t> {
    /// Its documents; those that are empty are left out.
    pub(crate) documents: Vec<Document<'t>>,
    /// Mistakes that did not keep the rest from being read.
    pub(crate) mistakes: Vec<SyntaxError>,
}

/// Parses one file.
pub(crate) fn parse(text: &str, source: usize) -> Result<File<'_>, SyntaxError> {
    parse_within(text, source, MAX_VALUES)
}

fn parse_within(text: &str, source: usize, max_values: usize) -> Result<File<'_>, SyntaxError> {
    let start = Place::new(source, 1, 1);
    if text.len() > MAX_FILE_SIZE {
        let message = format!("the file has {} bytes, more than {MAX_FILE_SIZE}", text.len());
        return Err(SyntaxError { at: start, message, help: "divide it: -C may be given several times" });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder {
        events: Parser::new_from_str_with_options(text, options),
        document: Document::default(),
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
            event => {
                builder.value(event, at, 0)?;
                documents.push(std::mem::take(&mut builder.document));
            }
        }
    }
    documents.retain(|document| !matches!(document.root().kind(), Kind::Scalar(None)));
    Ok(File { documents, mistakes: builder.mistakes })
}

struct Builder<'t, I> {
    events: I,
    document: Document<'t>,
    /// Anchored values, with the number of values in each.
    anchors: HashMap<usize, (Vec<Node<'t>>, usize)>,
    values: usize,
    max_values: usize,
    aliased: usize,
    last: Place,
    mistakes: Vec<SyntaxError>,
}

impl<'t, I: Iterator<Item = Result<(Event<'t>, Span), ScanError>>> Builder<'t, I> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Place)>, SyntaxError> {
        let source = self.last.source;
        match self.events.next() {
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

    /// Adds the value that begins with that event to the document.
    fn value(&mut self, event: Event<'t>, at: Place, depth: usize) -> Result<(), SyntaxError> {
        let (first, before) = (self.document.len(), self.values);
        self.values += 1;
        if self.values > self.max_values {
            let message = format!("more than {} values in one file", self.max_values);
            return Err(SyntaxError { at, message, help: "divide it: -C may be given several times" });
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let anchor = match event {
            Event::Scalar(text, style, anchor, _) => {
                self.document.push(Node::new(at, scalar(text, style)));
                anchor
            }
            Event::SequenceStart(_, anchor, _) => {
                self.document.push(Node::new(at, What::List));
                self.list(depth)?;
                anchor
            }
            Event::MappingStart(_, anchor, _) => {
                self.document.push(Node::new(at, What::Map));
                self.map(depth)?;
                anchor
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(SyntaxError { at, message: "expected a value".to_owned(), help: "" }),
        };
        self.document.close(first);
        if anchor != 0 {
            // What is kept for aliases is a copy, too.
            let size = self.values - before;
            self.count_aliased(size, at)?;
            self.anchors.insert(anchor, (self.document.since(first).to_vec(), size));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), SyntaxError> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            let message = "an alias of the value that it stands in".to_owned();
            return Err(SyntaxError { at, message, help: "an anchor (&name) must be complete before *name" });
        };
        self.count_aliased(size, at)?;
        // Counted where it stands: an anchor around it would copy it again.
        self.values += size;
        self.document.extend(&self.anchors[&anchor].0);
        Ok(())
    }

    fn count_aliased(&mut self, size: usize, at: Place) -> Result<(), SyntaxError> {
        self.aliased += size;
        if self.aliased > MAX_ALIASED {
            let message = format!("anchors and aliases repeat more than {MAX_ALIASED} values");
            return Err(SyntaxError { at, message, help: "write the values out, or use fewer aliases" });
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<(), SyntaxError> {
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, _)) => return Ok(()),
                Some((event, at)) => self.value(event, at, depth + 1)?,
                None => return Err(self.cut_off()),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<(), SyntaxError> {
        let mut keys = Keys::new(self.document.len());
        let mut merged = Vec::new();
        loop {
            let key = self.document.len();
            let plain = match self.next()? {
                Some((Event::MappingEnd, _)) => break,
                Some((Event::Scalar(text, style, ..), at)) => {
                    self.document.push(Node::new(at, What::Text(text)));
                    style == ScalarStyle::Plain
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
            self.value(event, at, depth + 1)?;
            if plain && self.document.since(key)[0].text() == "<<" {
                merged.push(self.document.since(key + 1).to_vec());
                self.document.truncate(key);
            } else if !keys.is_new(&self.document, key) {
                let twice = &self.document.since(key)[0];
                let message = format!("key {:?} stands here twice", twice.text());
                let help = "keep one of the two; keys that differ in case only are the same";
                self.mistakes.push(SyntaxError { at: twice.at, message, help });
                self.document.truncate(key);
            }
        }
        merged.iter().for_each(|nodes| self.merge(nodes, &mut keys));
        Ok(())
    }

    /// `<<: *other`: what the mapping does not say itself; of several, the first that says it.
    fn merge(&mut self, nodes: &[Node<'t>], keys: &mut Keys) {
        let mut rest = &nodes[1..];
        let mut next = |len: usize| {
            let (next, others) = rest.split_at(len);
            rest = others;
            next
        };
        match View::new(nodes).kind() {
            Kind::Map(entries) => {
                for (_, value) in entries {
                    let key = self.document.len();
                    self.document.extend(next(1 + value.nodes().len()));
                    // The mapping's own, or an earlier one's, stays.
                    if !keys.is_new(&self.document, key) {
                        self.document.truncate(key);
                    }
                }
            }
            Kind::List(items) if items.clone().all(|item| matches!(item.kind(), Kind::Map(_))) => {
                items.for_each(|item| self.merge(next(item.nodes().len()), keys));
            }
            _ => {
                let message = "nothing that could be merged".to_owned();
                let help = "expected <<: *anchor of a mapping, or a list of such";
                self.mistakes.push(SyntaxError { at: nodes[0].at, message, help });
            }
        }
    }

    fn cut_off(&self) -> SyntaxError {
        SyntaxError { at: self.last, message: "the file ends in the middle of a value".to_owned(), help: "" }
    }
}

/// The keys of one mapping, and how one is found to be new: by looking through a few, or in a set of many.
struct Keys {
    /// The number of the first node.
    first: usize,
    count: usize,
    /// In lower case, once there are [`FEW`].
    names: HashSet<String>,
}

impl Keys {
    fn new(first: usize) -> Self {
        Self { first, count: 0, names: HashSet::new() }
    }

    /// Whether no key before the one at `key`, with which the document's last entry begins, has its name; names that differ in
    /// case only are the same.
    fn is_new(&mut self, document: &Document<'_>, key: usize) -> bool {
        let before =
            || Entries::new(&document.since(self.first)[..key - self.first]).map(|(key, _)| key.text());
        let text = document.since(key)[0].text();
        let new = if self.count < FEW {
            !before().any(|known| known.eq_ignore_ascii_case(text))
        } else {
            if self.names.is_empty() {
                self.names.extend(before().map(str::to_ascii_lowercase));
            }
            self.names.insert(text.to_ascii_lowercase())
        };
        self.count += usize::from(new);
        new
    }
}

fn too_deep(at: Place) -> SyntaxError {
    let message = format!("nested deeper than {MAX_DEPTH} levels");
    SyntaxError { at, message, help: "no configuration needs more than ten" }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> What<'_> {
    let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
    if null { What::Nothing } else { What::Text(text) }
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
    use super::super::tree::{Tree, Value};
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
        let entries = |view: View<'_>| match view.tree().value {
            Value::Map(entries) => entries,
            _ => Vec::new(),
        };
        let text = |tree: &Tree| match &tree.value {
            Value::Scalar(text) => text.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let Kind::Map(root) = file.documents[0].root().kind() else { panic!("no mapping") };
        let root: Vec<_> = root.map(|(_, value)| entries(value)).collect();
        let shown = |index: usize| -> String {
            root[index].iter().map(|(key, tree)| format!("{}{} ", key.text, text(tree))).collect()
        };
        assert_eq!((shown(2).as_str(), shown(3).as_str()), ("z3 x1 y1 ", "<<4 "));
        assert!(file.mistakes.is_empty());
    }
}
