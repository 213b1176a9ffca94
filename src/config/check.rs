//! The trees of all files to one checked configuration; every problem is reported, not only the first.
//!
//! Keys are those of GOST v3 (the wire specification, section 8). This module joins the sections of several files and sees to
//! what belongs to no single object; what stands in a section is read by the module of its name.

use super::chain::Chains;
use super::file::{Place, Tree, Value};
use super::problem::{Problem, Severity, Source};
use super::reader::{Field, Reader};
use super::{Config, Ingress, Loaded, Plugins, Problems, ingress, log, plugins, service};
use crate::addr::HostPort;
use std::cell::RefCell;
use std::collections::HashMap;

/// Sections of GOST's that may stand in a file: without them nothing becomes less safe.
const LATER_SECTIONS: &[&str] =
    &["api", "metrics", "profiling", "tls", "loggers", "recorders", "sds", "caches", "rewriters"];
/// Sections that decide who may do what: only their use is refused, where a service names them.
const UNUSED_SECTIONS: &[&str] = &[
    "authers",
    "admissions",
    "bypasses",
    "limiters",
    "climiters",
    "rlimiters",
    "quotas",
    "observers",
    "resolvers",
    "hosts",
    "routers",
];

/// What services refer to.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) chains: Chains<'a>,
    pub(crate) ingresses: &'a [Ingress],
    /// Whether there is a plugin folder to take plugins from by name.
    pub(crate) folder: bool,
}

/// Checks parsed files together: lists of several files are joined.
pub(crate) fn check(sources: &[Source], trees: &[Tree]) -> Result<Loaded, Problems> {
    let reader = Reader { sources, problems: RefCell::default() };
    let config = config(&reader, trees);
    let problems = reader.problems.into_inner();
    let errors = problems.iter().any(|p| p.severity == Severity::Error);
    if errors { Err(Problems(problems)) } else { Ok(Loaded { config, warnings: problems }) }
}

/// The sections of all files, lists joined.
#[derive(Default)]
struct Sections<'a> {
    services: Vec<Field<'a>>,
    ingresses: Vec<Field<'a>>,
    chains: Vec<Field<'a>>,
    hops: Vec<Field<'a>>,
    plugins: Plugins,
    log: crate::telemetry::Settings,
}

impl<'a> Sections<'a> {
    fn join(&mut self, root: &Field<'a>) {
        let Some(map) = root.map() else { return };
        let list = |key| map.get(&[key]).map(|field| field.list()).unwrap_or_default();
        self.services.extend(list("services"));
        self.ingresses.extend(list("ingresses"));
        self.chains.extend(list("chains"));
        self.hops.extend(list("hops"));
        if let Some(section) = map.get(&["plugins"]).and_then(|f| f.map()) {
            self.plugins = plugins::section(section);
        }
        if let Some(section) = map.get(&["log"]).and_then(|f| f.map()) {
            self.log = log::read(section);
        }
        map.finish(&[LATER_SECTIONS, UNUSED_SECTIONS].concat(), &[]);
    }
}

fn config<'a>(reader: &'a Reader<'a>, trees: &'a [Tree]) -> Config {
    let mut sections = Sections::default();
    for tree in trees {
        sections.join(&Field { reader, tree, path: String::new() });
    }
    let Sections { services, ingresses: rules, chains, hops, plugins, log } = sections;
    let folder = plugins.folder.is_some();
    let ingresses: Vec<_> = rules.iter().filter_map(|field| ingress::read(field, folder)).collect();
    no_twins(&rules);
    no_twins(&services);
    let scope = Scope { chains: Chains::new(chains, hops), ingresses: &ingresses, folder };
    let read = |(index, field)| service::read(index, field, &scope);
    let checked = services.iter().enumerate().filter_map(read).collect();
    if services.is_empty() {
        let help = "expected a list `services:`";
        reader.report(Severity::Error, Place::default(), "", "no services".to_owned(), help);
    }
    no_port_twice(&services);
    Config { services: checked, ingresses, plugins, log }
}

/// Two objects of one name: which of them is meant?
fn no_twins(fields: &[Field<'_>]) {
    let mut seen = HashMap::new();
    for field in fields {
        let Some(name) = text_at(field.tree, "name").filter(|name| !name.is_empty()) else { continue };
        if let Some(first) = seen.insert(name.to_owned(), &field.path) {
            field.error(format!("name {name:?} is taken by {first}"), "expected a name of its own");
        }
    }
}

fn no_port_twice(services: &[Field<'_>]) {
    let mut seen: HashMap<HostPort, &str> = HashMap::new();
    for field in services {
        let Value::Map(entries) = &field.tree.value else { continue };
        let listener = entries.iter().find(|(k, _)| k.text.eq_ignore_ascii_case("listener"));
        if listener.is_some_and(|(_, tree)| text_at(tree, "type").is_some_and(|t| t != "tcp")) {
            continue;
        }
        let addr = text_at(field.tree, "addr").and_then(|text| HostPort::parse(text, 0).ok());
        if let Some(addr) = addr.filter(|addr| addr.port != 0)
            && let Some(first) = seen.insert(addr.clone(), &field.path)
        {
            field.error(format!("address {addr} is taken by {first}"), "expected a port of its own");
        }
    }
}

fn text_at<'t>(tree: &'t Tree, name: &str) -> Option<&'t str> {
    let Value::Map(entries) = &tree.value else { return None };
    let found = entries.iter().find(|(key, _)| key.text.eq_ignore_ascii_case(name))?;
    if let Value::Scalar(text) = &found.1.value { text.as_deref() } else { None }
}

/// Problems that belong to no place in a file.
pub(crate) fn whole_file(sources: &[Source], source: usize, message: String, help: &str) -> Problem {
    Problem::new(sources, Severity::Error, Place { source, ..Place::default() }, "", message, help)
}
