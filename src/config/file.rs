//! YAML text to a tree that remembers where everything stands; the only user of the YAML library.
//!
//! Scalars keep their text: whether `0123` is a number or a password is the business of whoever reads that key. Depth and
//! size are bounded, so that a file with aliases of aliases cannot grow without end.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use std::collections::HashMap;

/// Deepest nesting; GOST's own objects need eight levels.
const MAX_DEPTH: usize = 64;
/// Values in one file with its aliases written out: 100,000 rules take 300,000.
const MAX_NODES: usize = 4_000_000;

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Which of the files.
    pub(crate) source: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
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
}

/// Text that is no YAML, and where it stops being it.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Place,
    pub(crate) message: String,
}

/// Parses one file; an empty one is `None`.
pub(crate) fn parse(text: &str, source: usize) -> Result<Option<Tree>, SyntaxError> {
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        source,
        anchors: HashMap::new(),
        nodes: 0,
        last: Place::default(),
    };
    let mut root = None;
    while let Some((event, at)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            _ if root.is_some() => {
                return Err(SyntaxError { at, message: "a second document in one file".to_owned() });
            }
            event => root = Some(builder.tree(event, at, 0)?),
        }
    }
    Ok(root.filter(|tree| !matches!(tree.value, Value::Scalar(None))))
}

struct Builder<I> {
    events: I,
    source: usize,
    /// Anchored values, with the number of values in each.
    anchors: HashMap<usize, (Tree, usize)>,
    nodes: usize,
    last: Place,
}

impl<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> Builder<I> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Place)>, SyntaxError> {
        let place = |line, column| Place { source: self.source, line, column: column + 1 };
        let structure = |event: &Result<(Event<'a>, Span), ScanError>| {
            !matches!(event, Ok((Event::Comment(..) | Event::Anchor(..), _)))
        };
        match self.events.find(structure) {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.last = place(span.start.line(), span.start.col());
                Ok(Some((event, self.last)))
            }
            Some(Err(error)) => {
                let at = place(error.marker().line(), error.marker().col());
                Err(SyntaxError { at, message: error.info() })
            }
        }
    }

    fn tree(&mut self, event: Event<'a>, at: Place, depth: usize) -> Result<Tree, SyntaxError> {
        let before = self.nodes;
        self.count(1, at)?;
        if depth > MAX_DEPTH {
            return Err(SyntaxError { at, message: format!("nested deeper than {MAX_DEPTH}") });
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (anchor, Value::Scalar((!null).then(|| text.into_owned())))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.list(depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.map(depth)?),
            Event::Alias(anchor) => {
                let Some((tree, nodes)) = self.anchors.get(&anchor) else {
                    return Err(SyntaxError {
                        at,
                        message: "alias of a value that is not complete".to_owned(),
                    });
                };
                let (tree, nodes) = (tree.clone(), *nodes);
                self.count(nodes, at)?;
                return Ok(tree);
            }
            _ => return Err(SyntaxError { at, message: "expected a value".to_owned() }),
        };
        let tree = Tree { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (tree.clone(), self.nodes - before));
        }
        Ok(tree)
    }

    fn count(&mut self, nodes: usize, at: Place) -> Result<(), SyntaxError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(SyntaxError { at, message: format!("more than {MAX_NODES} values") });
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, _)) => return Ok(Value::List(items)),
                Some((event, at)) => items.push(self.tree(event, at, depth + 1)?),
                None => return Err(SyntaxError { at: self.last, message: "list without end".to_owned() }),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries: Vec<(Key, Tree)> = Vec::new();
        loop {
            let (text, at) = match self.next()? {
                Some((Event::MappingEnd, _)) => return Ok(Value::Map(entries)),
                Some((Event::Scalar(text, ..), at)) => (text.into_owned(), at),
                Some((_, at)) => {
                    return Err(SyntaxError { at, message: "a key must be plain text".to_owned() });
                }
                None => return Err(SyntaxError { at: self.last, message: "mapping without end".to_owned() }),
            };
            if entries.iter().any(|(key, _)| key.text.eq_ignore_ascii_case(&text)) {
                return Err(SyntaxError { at, message: format!("key {text:?} stands here twice") });
            }
            let Some((event, value_at)) = self.next()? else {
                return Err(SyntaxError { at, message: format!("key {text:?} without a value") });
            };
            let value = self.tree(event, value_at, depth + 1)?;
            entries.push((Key { at, text }, value));
        }
    }
}
