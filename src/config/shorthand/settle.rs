//! After a first reading: which mappings keep a key that was put into several.

use crate::config::nodes::Place;
use crate::config::tree::{Fate, Key, Tree, Value};
use std::collections::HashMap;

/// The best that became of a key anywhere, and in which kind of object.
type Found<'t> = HashMap<Place, (Fate, &'t str)>;

const METADATA: &str = "metadata";

/// Leaves each key where it was asked for. One that nobody asked for stays in the object that had most to say about it, so that
/// this is said again when the document is read as any other. Metadata without a key goes.
pub(crate) fn settle(tree: &mut Tree) {
    let mut found = HashMap::new();
    let shape = tree.clone();
    collect(&shape, "", &mut found);
    prune(tree, "", &found);
}

/// The object that a value belongs to: its metadata is a part of it.
fn object<'t>(key: &'t Key, around: &'t str) -> &'t str {
    if key.text == METADATA { around } else { &key.text }
}

fn collect<'t>(tree: &'t Tree, around: &'t str, found: &mut Found<'t>) {
    match &tree.value {
        Value::Map(entries) => {
            for (key, value) in entries {
                if let Some(fate) = key.fate.as_ref().map(std::cell::Cell::get) {
                    let best = found.entry(key.at).or_insert((fate, around));
                    if best.0 < fate {
                        *best = (fate, around);
                    }
                }
                collect(value, object(key, around), found);
            }
        }
        Value::List(items) => items.iter().for_each(|item| collect(item, around, found)),
        Value::Scalar(_) => {}
    }
}

fn prune(tree: &mut Tree, around: &str, found: &Found<'_>) {
    match &mut tree.value {
        Value::Map(entries) => {
            entries.retain_mut(|(key, value)| {
                prune(value, object(key, around), found);
                let empty = matches!(&value.value, Value::Map(entries) if entries.is_empty());
                let keeps = key.fate.take().is_none_or(|fate| {
                    let best = found.get(&key.at).copied();
                    fate.get() == Fate::Asked || best == Some((fate.get(), around))
                });
                keeps && !(empty && key.text == METADATA)
            });
        }
        Value::List(items) => items.iter_mut().for_each(|item| prune(item, around, found)),
        Value::Scalar(_) => {}
    }
}
