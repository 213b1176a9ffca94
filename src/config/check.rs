//! The documents of all files to one checked configuration; every problem is reported, not only the first.
//!
//! Keys are those of GOST v3 (the wire specification, section 8). This module joins the sections of several files and sees to
//! what belongs to no single object: names, references, ports. What stands in a section is read by the module of its name.

use super::hop::Hops;
use super::named::Named;
use super::nodes::{Place, View};
use super::problem::{Collector, Severity};
use super::reader::{Field, nearest};
use super::{
    Auther, Chain, Config, Ingress, Plugins, admission, auth, chain, channels, ingress, log, plugins, service,
};
use crate::addr::{Host, HostPort};
use crate::channel::tls;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv6Addr;

/// Sections of GOST's that may stand in a file: without them nothing becomes less safe.
const LATER_SECTIONS: &[&str] =
    &["api", "metrics", "profiling", "loggers", "recorders", "sds", "caches", "rewriters"];
/// Sections that decide who may do what: only their use is refused, where a service names them.
const UNUSED_SECTIONS: &[&str] = &[
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

/// What services refer to, and what only one of them may have.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) hops: Hops<'a>,
    pub(crate) admissions: Named<'a, crate::admission::Settings>,
    pub(crate) authers: Named<'a, Auther>,
    pub(crate) chains: Named<'a, Chain>,
    ingresses: Vec<Ingress>,
    /// Addresses that are listened on, and where the file says so.
    ports: RefCell<HashMap<(&'static str, HostPort), String>>,
    /// Whether there is a plugin folder to take plugins from by name.
    pub(crate) folder: bool,
    /// `tls`: for listeners that say nothing else.
    pub(crate) tls: Option<tls::ServerSettings>,
}

impl<'a> Scope<'a> {
    /// Whether there is an ingress of that name, and if not, which one may be meant.
    pub(crate) fn ingress(&self, name: &str) -> Result<(), String> {
        let mut known = self.ingresses.iter().map(|ingress| ingress.name.as_str());
        if known.clone().any(|known| known == name) { Ok(()) } else { Err(nearest(name, &mut known)) }
    }

    /// Reads an address to listen on by TCP; no two may be the same.
    pub(crate) fn port(&self, field: &Field<'_>) -> Option<HostPort> {
        self.port_of("tcp", field)
    }

    /// The same of that network, `tcp` or `udp`: each has its own ports.
    pub(crate) fn port_of(&self, network: &'static str, field: &Field<'_>) -> Option<HostPort> {
        let addr = field.address(None)?;
        let any = |ip: std::net::IpAddr| ip.is_unspecified();
        let host = if addr.host.is_empty() || addr.host.ip().is_some_and(any) {
            Host::from(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        } else {
            addr.host.clone()
        };
        if addr.port != 0
            && let Some(first) =
                self.ports.borrow_mut().insert((network, HostPort::new(host, addr.port)), field.path())
        {
            field.error(format!("address {addr} is taken by {first}"), "expected a port of its own");
        }
        Some(addr)
    }
}

/// The sections of all files, lists joined.
#[derive(Default)]
struct Sections<'a> {
    services: Vec<Field<'a>>,
    ingresses: Vec<Field<'a>>,
    chains: Vec<Field<'a>>,
    hops: Vec<Field<'a>>,
    admissions: Vec<Field<'a>>,
    authers: Vec<Field<'a>>,
    plugins: Plugins,
    log: crate::telemetry::Settings,
    tls: Option<tls::ServerSettings>,
}

impl<'a> Sections<'a> {
    fn join(&mut self, root: &Field<'a>) {
        let Some(map) = root.map() else { return };
        let list = |key| map.get(&[key]).map(|field| field.list()).unwrap_or_default();
        self.services.extend(list("services"));
        self.ingresses.extend(list("ingresses"));
        self.chains.extend(list("chains"));
        self.hops.extend(list("hops"));
        self.admissions.extend(list("admissions"));
        self.authers.extend(list("authers"));
        if let Some(section) = map.filled(&["plugins"]).and_then(|f| f.map()) {
            self.plugins = plugins::section(section);
        }
        if let Some(section) = map.filled(&["log"]).and_then(|f| f.map()) {
            self.log = log::read(section);
        }
        if let Some(section) = map.filled(&["tls"]) {
            self.tls = channels::server(&section);
        }
        map.finish(&[LATER_SECTIONS, UNUSED_SECTIONS].concat(), &[]);
    }
}

/// Checks the documents of all files as one configuration.
pub(crate) fn config<'a>(problems: &'a Collector<'a>, documents: &[View<'a>]) -> Config {
    let mut sections = Sections::default();
    for document in documents {
        sections.join(&Field::root(problems, *document));
    }
    let Sections { services, ingresses, chains, hops, admissions, authers, plugins, log, tls } = sections;
    [&services, &ingresses, &chains, &hops, &admissions, &authers]
        .into_iter()
        .for_each(|fields| no_twins(fields));
    let folder = plugins.folder.is_some();
    let ingresses = ingresses.iter().filter_map(|field| ingress::read(field, folder)).collect();
    let hops = Hops::new(hops);
    let chains = Named::new("chain", chains, |_, field| chain::read(field, &hops, folder));
    let admissions = Named::new("admission", admissions, admission::read);
    let authers = Named::new("auther", authers, auth::auther);
    let scope =
        Scope { hops, admissions, authers, chains, ingresses, ports: RefCell::default(), folder, tls };
    let read = |(index, field)| service::read(index, field, &scope);
    let checked = services.iter().enumerate().filter_map(read).collect();
    // With an error before it, that is the reason.
    if services.is_empty() && !problems.has_errors() {
        let help = "expected services: [{ name: service-0, addr: :80, handler: { type: tcp }, ... }]";
        problems.report(
            Severity::Error,
            Place::default(),
            "",
            "no services: nothing to run".to_owned(),
            help,
        );
    }
    scope.hops.warn_of_unused();
    Config {
        services: checked,
        ingresses: scope.ingresses,
        admissions: scope.admissions.into_used(),
        authers: scope.authers.into_used(),
        chains: scope.chains.into_used(),
        plugins,
        log,
    }
}

/// Two objects of one name: which of them is meant?
fn no_twins(fields: &[Field<'_>]) {
    let mut seen = HashMap::new();
    for field in fields {
        let Some(name) = field.name() else { continue };
        if let Some(first) = seen.insert(name, field) {
            field.error(format!("name {name:?} is taken by {}", first.path()), "expected a name of its own");
        }
    }
}
