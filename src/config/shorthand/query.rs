//! The keys of a query: some are lifted out of it, the others are metadata.

use super::object::Object;
use super::url::Piece;
use crate::config::problem::{Collector, Severity};
use crate::config::tree::{Fate, Key, Tree};
use std::cell::Cell;

/// Keys and values that nothing has taken yet.
#[derive(Debug, Clone)]
pub(super) struct Query<'p, 'a> {
    problems: &'p Collector<'a>,
    pairs: Vec<(Piece, Piece)>,
}

impl<'p, 'a> Query<'p, 'a> {
    /// Those of an argument. A key without a value says nothing, in the reference neither.
    pub(super) fn new(mut pairs: Vec<(Piece, Piece)>, problems: &'p Collector<'a>) -> Self {
        pairs.retain(|(key, value)| {
            let blank = value.text.trim().is_empty();
            if blank {
                let message = format!("key {:?} without a value: left aside", key.text);
                let help = "expected KEY=VALUE, such as bind=true";
                problems.report(Severity::Warning, key.at, "", message, help);
            }
            !blank
        });
        Self { problems, pairs }
    }

    /// Takes the value of a key out; of several spellings there must be one only.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<Piece> {
        let is = |key: &Piece| names.iter().any(|name| key.text.eq_ignore_ascii_case(name));
        let (mut found, others) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| is(key));
        self.pairs = others;
        let found: &mut Vec<_> = &mut found;
        let first = (!found.is_empty()).then(|| found.remove(0));
        for (key, _) in found {
            let message = format!("{:?} says the same as another key", key.text);
            self.problems.report(Severity::Error, key.at, "", message, "keep one of the two");
        }
        first.map(|(_, value)| value)
    }

    /// Takes the keys `OBJECT.KEY` of an object out.
    pub(super) fn take_own(&mut self, object: &str) -> Option<Tree> {
        let at = self.pairs.first()?.0.at;
        let mut own = Object::new(at);
        self.pairs.retain(|(key, value)| {
            let Some(name) = of_one(key, object) else { return true };
            own.add(Key::new(key.at, name), value.clone().into());
            false
        });
        own.filled()
    }

    /// The metadata of each of these objects: `OBJECT.KEY` of that one only, any other key of all of them, until it is known
    /// who reads it.
    pub(super) fn metadata<const N: usize>(&self, objects: [&str; N]) -> [Option<Tree>; N] {
        objects.map(|object| {
            let mut metadata = Object::new(self.pairs.first()?.0.at);
            for (key, value) in &self.pairs {
                if let Some(name) = of_one(key, object) {
                    metadata.add(Key::new(key.at, name), value.clone().into());
                }
            }
            for (key, value) in &self.pairs {
                let of_any = objects.iter().any(|object| of_one(key, object).is_some());
                if !of_any && !metadata.has(&key.text) {
                    let fate = Some(Cell::new(Fate::default()));
                    metadata.add(Key { fate, ..Key::new(key.at, &*key.text) }, value.clone().into());
                }
            }
            metadata.filled()
        })
    }
}

/// What a key `OBJECT.KEY` is there.
fn of_one<'k>(key: &'k Piece, object: &str) -> Option<&'k str> {
    let (prefix, rest) = key.text.split_once('.')?;
    prefix.eq_ignore_ascii_case(object).then_some(rest)
}
