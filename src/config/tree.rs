//! A document as it is made or changed: what the command line says, and what `-O` prints.

use super::nodes::Place;
use std::cell::Cell;

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

impl Key {
    pub(crate) fn new(at: Place, text: impl Into<String>) -> Self {
        Self { at, text: text.into(), fate: None }
    }
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

impl Fate {
    /// Notes what became of a key. The best counts: a mapping may be read more than once, and for more than one purpose.
    pub(crate) fn note(self, noted: &Cell<Self>) {
        if noted.get() == Self::Unread || noted.get() < self {
            noted.set(self);
        }
    }
}
