//! `-L` and `-F`: GOST's URLs for services and hops, made into the document that one would write by hand.
//!
//! What an argument says becomes trees like those of a file, with their places in it, so that all checks of files apply. The
//! words and the keys that get a place of their own are known here; to which metadata any other key belongs is known to its
//! readers alone. So it is put into that of every object on its side, as in the reference, and after a first reading [`settle`]
//! leaves it where it was asked for.

mod lift;
mod node;
mod object;
mod query;
mod service;
mod settle;
#[cfg(test)]
mod tests;
mod url;
mod words;

pub(crate) use settle::settle;

use super::nodes::{Kind, Place, View};
use super::problem::{Collector, Origin, Severity};
use super::tree::{Key, Tree, Value};
use object::{Object, list, text};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

const SERVICES: &str = "services";
/// Longest part of an argument that names it.
const MAX_NAME: usize = 80;

/// What the command line says beside files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shorthand {
    /// `-L`: services, `[HANDLER+]LISTENER://[USER:PASSWORD@]ADDRESS[/TARGETS][?KEY=VALUE]`.
    pub services: Vec<String>,
    /// `-F`: the hops of one chain, which all those services take, `[CONNECTOR+]DIALER://[USER:PASSWORD@]HOST:PORT[?KEY=VALUE]`.
    pub nodes: Vec<String>,
}

impl Shorthand {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.nodes.is_empty()
    }

    /// The arguments as places to point into.
    pub(crate) fn origins(&self) -> impl Iterator<Item = Origin<'_>> {
        let origin = |flag, text| Origin { name: Cow::Owned(name(flag, text)), text, argument: true };
        let services = self.services.iter().map(move |text| origin("-L", text));
        services.chain(self.nodes.iter().map(move |text| origin("-F", text)))
    }
}

/// What an argument is called: its scheme and address. The rest may hold secrets, which do not belong into a log.
fn name(flag: &str, argument: &str) -> String {
    let argument = argument.trim();
    let (scheme, rest) = argument.split_once("://").unwrap_or(("", argument));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    let separator = if scheme.is_empty() { "" } else { "://" };
    let shown: String = format!("{scheme}{separator}{host}").chars().take(MAX_NAME).collect();
    let more = if end < rest.len() { "..." } else { "" };
    format!("{flag} '{}{more}'", shown.escape_debug())
}

/// A document that is being made, beside those of files.
#[derive(Debug)]
struct Draft<'p, 'a> {
    problems: &'p Collector<'a>,
    services: Vec<Tree>,
    /// Objects that those name, by their section.
    named: Vec<(&'static str, Vec<Tree>)>,
    names: Names,
}

/// The document of these arguments, whose first is the source of that number; `documents` are those of the files. What is wrong
/// with an argument is reported, and the document is then one to be left unread.
pub(crate) fn document(
    shorthand: &Shorthand,
    first: usize,
    problems: &Collector<'_>,
    documents: &[View<'_>],
) -> Tree {
    let at = Place::new(first, 1, 1);
    let names = Names::taken(documents);
    let mut draft = Draft { problems, services: Vec::new(), named: Vec::new(), names };
    let first_node = first + shorthand.services.len();
    let mut hops = Vec::new();
    for (i, argument) in shorthand.nodes.iter().enumerate() {
        let url = url::parse(argument, first_node + i, problems);
        hops.extend(url.and_then(|url| node::hop(i, url, &mut draft)));
    }
    let chain = (!hops.is_empty()).then(|| draft.names.fresh("chains", "chain"));
    for (i, argument) in shorthand.services.iter().enumerate() {
        let url = url::parse(argument, first + i, problems);
        url.and_then(|url| service::add(url, chain.as_deref(), &mut draft));
    }
    if let (Some(name), true) = (&chain, shorthand.services.is_empty()) {
        let message = format!("no -L takes this way: only what names chain {name:?} does");
        let at = Place::new(first_node, 1, 1);
        problems.report(
            Severity::Warning,
            at,
            "",
            message,
            "expected a -L beside it, or chain: NAME in a file",
        );
    }
    draft.tree(at, chain.map(|name| (name, hops)))
}

impl Draft<'_, '_> {
    /// The document, with a chain of these hops.
    fn tree(self, at: Place, chain: Option<(String, Vec<Tree>)>) -> Tree {
        let mut root = Object::new(at);
        if !self.services.is_empty() {
            root = root.with(SERVICES, list(at, self.services));
        }
        if let Some((name, hops)) = chain {
            let at = hops.first().map_or(at, |hop| hop.at);
            let chain = Object::new(at).with("name", text(at, name)).with("hops", list(at, hops));
            root = root.with("chains", list(at, vec![chain.tree()]));
        }
        for (section, objects) in self.named {
            root = root.with(section, list(at, objects));
        }
        root.tree()
    }

    /// Adds an object to a section, and returns its name for whatever refers to it.
    fn add(&mut self, section: &'static str, stem: &str, object: Object) -> Tree {
        let object = object.tree();
        let (at, name) = (object.at, text(object.at, self.names.fresh(section, stem)));
        let Tree { value: Value::Map(mut entries), .. } = object else { return name };
        entries.insert(0, (Key::new(at, "name"), name.clone()));
        let tree = Tree { at, value: Value::Map(entries) };
        match self.named.iter_mut().find(|(known, _)| *known == section) {
            Some((_, trees)) => trees.push(tree),
            None => self.named.push((section, vec![tree])),
        }
        name
    }

    /// A name for the next service: its number among all, as for those of a file that have none.
    fn service_name(&mut self) -> String {
        self.names.fresh(SERVICES, "service")
    }
}

/// The names of objects, by their section.
#[derive(Debug)]
struct Names {
    taken: HashSet<(String, String)>,
    /// The next number of each section; services begin with how many the files have.
    next: HashMap<String, usize>,
}

impl Names {
    /// Those that the files have given.
    fn taken(documents: &[View<'_>]) -> Self {
        let mut names = Self { taken: HashSet::new(), next: HashMap::new() };
        for document in documents {
            let Kind::Map(sections) = document.kind() else { continue };
            for (section, view) in sections {
                let Kind::List(objects) = view.kind() else { continue };
                let section = section.text().to_ascii_lowercase();
                if section == SERVICES {
                    *names.next.entry(section.clone()).or_default() += objects.clone().count();
                }
                let known = objects.filter_map(name_of).map(|name| (section.clone(), name.to_owned()));
                names.taken.extend(known);
            }
        }
        names
    }

    /// The next `STEM-N` that is free.
    fn fresh(&mut self, section: &str, stem: &str) -> String {
        let next = self.next.entry(section.to_owned()).or_default();
        loop {
            let name = format!("{stem}-{next}");
            *next += 1;
            if self.taken.insert((section.to_owned(), name.clone())) {
                return name;
            }
        }
    }
}

fn name_of(object: View<'_>) -> Option<&str> {
    let Kind::Map(mut entries) = object.kind() else { return None };
    let (_, name) = entries.find(|(key, _)| key.text().eq_ignore_ascii_case("name"))?;
    if let Kind::Scalar(text) = name.kind() { text } else { None }
}
