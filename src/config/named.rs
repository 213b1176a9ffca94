//! Objects that others name: chains, authers, admissions.

use super::reader::{Field, nearest};
use std::cell::RefCell;
use std::collections::HashMap;

/// The objects of one kind in all files; only those that something names are kept in the end.
#[derive(Debug)]
pub(crate) struct Named<'a, T> {
    /// The word for the kind.
    what: &'static str,
    named: HashMap<&'a str, Option<T>>,
    used: RefCell<HashMap<String, T>>,
}

impl<'a, T: Clone> Named<'a, T> {
    pub(crate) fn new(
        what: &'static str,
        fields: Vec<Field<'a>>,
        read: impl Fn(&str, &Field<'a>) -> Option<T>,
    ) -> Self {
        let mut named = HashMap::with_capacity(fields.len());
        for field in fields {
            match field.name() {
                Some(name) => drop(named.insert(name, read(name, &field))),
                None => field.error(format!("{what} without a name"), format!("expected name: {what}-0")),
            }
        }
        Self { what, named, used: RefCell::default() }
    }

    /// The object that a field names, with its name; it counts as used from now on. `None` where its own mistakes were told.
    pub(crate) fn find<'f>(&self, field: &Field<'f>) -> Option<(&'f str, &T)> {
        let (what, name) = (self.what, field.text()?);
        let Some(found) = self.named.get(name) else {
            field.error(format!("there is no {what} {name:?}"), nearest(name, self.named.keys().copied()));
            return None;
        };
        let found = found.as_ref()?;
        self.used.borrow_mut().insert(name.to_owned(), found.clone());
        Some((name, found))
    }

    /// The same for one key with a name and one with a list of names.
    pub(crate) fn find_all(&self, one: Option<Field<'_>>, more: Option<Field<'_>>) -> Vec<String> {
        let more = more.map(|field| field.list()).unwrap_or_default();
        let names = one.iter().chain(&more).filter_map(|field| self.find(field));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    /// Those that were found, by name.
    pub(crate) fn into_used(self) -> HashMap<String, T> {
        self.used.into_inner()
    }
}
