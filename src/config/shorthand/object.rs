//! Trees made of what an argument says.

use super::url::Piece;
use crate::config::nodes::Place;
use crate::config::tree::{Key, Tree, Value};

/// A mapping that is being made.
#[derive(Debug)]
pub(super) struct Object {
    at: Place,
    entries: Vec<(Key, Tree)>,
}

impl Object {
    /// An empty one; `at` is what it is made of.
    pub(super) fn new(at: Place) -> Self {
        Self { at, entries: Vec::new() }
    }

    /// With a key and its value.
    pub(super) fn with(mut self, key: &str, value: Tree) -> Self {
        self.add(Key::new(value.at, key), value);
        self
    }

    /// Adds a key that has a place of its own.
    pub(super) fn add(&mut self, key: Key, value: Tree) {
        self.entries.push((key, value));
    }

    /// With a key, if there is a value.
    pub(super) fn with_any(self, key: &str, value: Option<Tree>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it has that key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(known, _)| known.text.eq_ignore_ascii_case(key))
    }

    pub(super) fn tree(self) -> Tree {
        Tree { at: self.at, value: Value::Map(self.entries) }
    }

    /// The mapping; `None` for an empty one, which nobody would write.
    pub(super) fn filled(self) -> Option<Tree> {
        (!self.is_empty()).then(|| self.tree())
    }
}

impl From<Tree> for Object {
    /// The mapping again; anything else is an empty one.
    fn from(Tree { at, value }: Tree) -> Self {
        let entries = if let Value::Map(entries) = value { entries } else { Vec::new() };
        Self { at, entries }
    }
}

impl From<Piece> for Tree {
    fn from(Piece { at, text }: Piece) -> Self {
        Self { at, value: Value::Scalar(Some(text)) }
    }
}

/// A text that stands nowhere in the argument, but comes of what stands at `at`.
pub(super) fn text(at: Place, text: impl Into<String>) -> Tree {
    Piece::new(at, text).into()
}

pub(super) fn list(at: Place, items: Vec<Tree>) -> Tree {
    Tree { at, value: Value::List(items) }
}

/// `{ username, password }`.
pub(super) fn credentials(user: Piece, password: Option<Piece>) -> Tree {
    let object = Object::new(user.at).with("username", user.into());
    object.with_any("password", password.map(Tree::from)).tree()
}

/// Metadata with more keys.
pub(super) fn joined(metadata: Option<Tree>, more: Vec<(&'static str, Piece)>) -> Option<Tree> {
    let Some(first) = more.first().map(|(_, piece)| piece.at) else { return metadata };
    let mut object = metadata.map_or_else(|| Object::new(first), Object::from);
    for (key, value) in more {
        object = object.with(key, value.into());
    }
    object.filled()
}
