//! GOST v3's YAML to the settings of each part: files in, a checked [`Config`] or all their problems out.

mod admission;
mod auth;
mod chain;
mod channels;
mod check;
mod document;
mod duration;
mod file;
mod forwarder;
mod handler;
mod hop;
mod ingress;
mod log;
mod named;
mod node;
mod nodes;
mod path;
mod plugins;
mod problem;
mod reader;
mod service;
mod settings;
mod shorthand;
mod source;
mod termination;
mod tree;
mod tunnel;

pub use auth::Auth;
pub use document::Format;
pub use duration::parse_duration;
pub use plugins::{Plugin, PluginFile, Plugins};
pub use problem::{MAX_FILE_SIZE, Problem, Severity, Source};
pub use shorthand::Shorthand;

use crate::addr::HostPort;
use crate::chain::HopSettings as ChainHopSettings;
use crate::net::listen;
use crate::net::udp::flows;
use crate::route::Pairs;
use crate::route::hop::HopSettings;
use crate::route::ingress::{Rule, Table};
use crate::source::{OnError, PluginSettings};
use crate::tunnel::gate::Owned;
use crate::tunnel::{client, relay, server};
use crate::{channel, entrypoint, forward, http, telemetry, terminate};
use nodes::{Document, Place, View};
use problem::{Collector, Origin};
use std::collections::HashMap;
use std::sync::Arc;
use tree::Tree;

/// A checked configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `services`, in the order of the files.
    pub services: Vec<Service>,
    /// `ingresses`.
    pub ingresses: Vec<Ingress>,
    /// `admissions` by name, without those that nothing names.
    pub admissions: HashMap<String, crate::admission::Settings>,
    /// `authers` by name, without those that nothing names.
    pub authers: HashMap<String, Auther>,
    /// `chains` by name, without those that nothing names.
    pub chains: HashMap<String, Chain>,
    /// `plugins`.
    pub plugins: Plugins,
    /// `log`.
    pub log: telemetry::Settings,
}

/// One service: where connections come from and what is done with them.
#[derive(Debug, Clone)]
pub struct Service {
    /// `name`, or `service-N` where the file has none.
    pub name: String,
    /// `listener`.
    pub listener: Listener,
    /// `handler` (with the forwarder, where there is one).
    pub handler: Handler,
    /// `admission` and `admissions`: who may connect to its port.
    pub admissions: Vec<String>,
    /// `metadata`, as written, and its `labels`: what plugins may ask for.
    pub metadata: Arc<Pairs>,
}

/// `listener.type`.
#[derive(Debug, Clone)]
pub enum Listener {
    /// `tcp` and the other data channels.
    Port {
        /// Where, and how many.
        listen: listen::Settings,
        /// What lies on TCP.
        channel: Box<channel::ServerSettings>,
    },
    /// `rtcp` and `rudp`: a session with the server at the end of a chain.
    Rtcp {
        /// The session.
        client: client::Settings,
        /// `chain`, one of [`Config::chains`].
        chain: String,
    },
    /// `udp`: a port for datagrams.
    Udp {
        /// Where.
        addr: HostPort,
        /// How many, and how long they live.
        flows: flows::Settings,
    },
}

impl Listener {
    /// Whether its visitors come by datagrams.
    pub fn is_udp(&self) -> bool {
        matches!(self, Self::Udp { .. } | Self::Rtcp { client: client::Settings { udp: Some(_), .. }, .. })
    }
}

/// `handler.type`.
#[derive(Debug, Clone)]
pub enum Handler {
    /// `tcp` and `rtcp`; `udp` and `rudp`, where the listener takes datagrams.
    Forward(Box<Targets>),
    /// `tunnel`.
    Tunnel {
        /// The tunnel port.
        settings: server::Settings,
        /// `entrypoint` and `entrypoints`.
        entrypoints: Vec<entrypoint::Settings>,
        /// `tls`: certificates of the entrypoints.
        tls: Option<Box<terminate::Settings>>,
        /// Inline rules: metadata `tunnel: "host:uuid,..."`.
        rules: Vec<Rule>,
        /// `auth`, `auther`, `authers`, and `skipauth`.
        auth: Auth,
        /// `tunnels`: the only ones there are, and their owners.
        owned: Option<Vec<Owned>>,
        /// `plugin`, asked before the owners.
        plugin: Option<Box<Plugin>>,
    },
    /// `relay`.
    Relay {
        /// Binds.
        settings: relay::Settings,
        /// `auth`, `auther`, `authers`, and `skipauth`.
        auth: Auth,
        /// Connects.
        targets: Box<Targets>,
        /// Whether the targets are the nodes of a forwarder; else they are what a client names.
        fixed: bool,
    },
    /// `whoami`: answers with what it saw.
    Whoami(http::Settings),
}

/// Where a handler connects to.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Times and bounds.
    pub settings: forward::Settings,
    /// `tls`: TLS that ends here.
    pub tls: Option<terminate::Settings>,
    /// `forwarder`.
    pub hop: HopSettings,
    /// What is done with connections to its nodes, by their place.
    pub nodes: Vec<forward::NodeSettings>,
    /// `forwarder.plugin`, asked before the hop's own strategy.
    pub plugin: Option<Plugin>,
    /// `chain`, one of [`Config::chains`]: the way to the nodes.
    pub chain: Option<String>,
}

impl Handler {
    /// Where it connects to, if it does.
    pub fn targets(&self) -> Option<&Targets> {
        match self {
            Self::Forward(targets) | Self::Relay { targets, .. } => Some(targets),
            Self::Tunnel { .. } | Self::Whoami(_) => None,
        }
    }
}

/// `ingresses[]`.
#[derive(Debug, Clone)]
pub struct Ingress {
    /// `name`.
    pub name: String,
    /// `rules`, compiled.
    pub table: Arc<Table>,
    /// The same as written, for lists to be joined with; empty where there are none.
    pub rules: Vec<Rule>,
    /// `file` and `reload`: more rules.
    pub file: Option<crate::lines::Settings>,
    /// `redis` and `http`: more rules.
    pub lists: Vec<crate::source::Settings>,
    /// `plugin`, asked before the rules.
    pub plugin: Option<IngressPlugin>,
}

/// `authers[]`.
#[derive(Debug, Clone)]
pub enum Auther {
    /// Users that are listed.
    Listed {
        /// Here and in a file.
        settings: crate::auth::Settings,
        /// `redis` and `http`.
        lists: Vec<crate::source::Settings>,
    },
    /// `plugin`: a process that is asked.
    Process(Box<PluginSettings>),
}

/// `ingresses[].plugin`.
#[derive(Debug, Clone)]
pub enum IngressPlugin {
    /// `wasm`.
    Wasm(Plugin),
    /// `http` and `grpc`: a process of its own.
    Process {
        /// Where, and how long it may take.
        settings: Box<PluginSettings>,
        /// `onError`.
        on_error: OnError,
    },
}

/// `chains[]`.
#[derive(Debug, Clone)]
pub struct Chain {
    /// `hops`, from here to the end.
    pub hops: Vec<ChainHop>,
}

/// `chains[].hops[]`.
#[derive(Debug, Clone)]
pub struct ChainHop {
    /// The nodes and the choice among them.
    pub settings: ChainHopSettings,
    /// `plugin`, asked first.
    pub plugin: Option<Plugin>,
}

/// A configuration that can be run.
#[derive(Debug)]
pub struct Loaded {
    /// What the files say.
    pub config: Config,
    /// What they say in vain.
    pub warnings: Vec<Problem>,
}

/// A configuration that cannot be run, and all that is wrong with it (warnings among it).
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

/// A configuration as one document.
#[derive(Debug)]
pub struct Printed {
    /// It.
    pub text: String,
    /// What it says in vain.
    pub warnings: Vec<Problem>,
}

/// Reads and checks files that together are one configuration.
pub fn load(sources: &[Source]) -> Result<Loaded, Problems> {
    load_all(sources, &Shorthand::default())
}

/// Reads and checks files and what the command line adds to them.
pub fn load_all(sources: &[Source], shorthand: &Shorthand) -> Result<Loaded, Problems> {
    let collector = Collector::new(origins(sources, shorthand));
    // What a broken file holds is not known: complaints about what refers to it would mislead.
    let config = match read(&collector, sources, shorthand) {
        Some(said) => said.with(|documents| check::config(&collector, documents)),
        None => Config::default(),
    };
    Ok(Loaded { config, warnings: warnings(collector)? })
}

/// The same as one document, for a configuration that can be run.
pub fn print(sources: &[Source], shorthand: &Shorthand, format: Format) -> Result<Printed, Problems> {
    let collector = Collector::new(origins(sources, shorthand));
    let said = read(&collector, sources, shorthand).unwrap_or_default();
    let text = said.with(|documents| {
        check::config(&collector, documents);
        document::print(documents, &collector, format)
    });
    Ok(Printed { text, warnings: warnings(collector)? })
}

fn origins<'a>(sources: &'a [Source], shorthand: &'a Shorthand) -> Vec<Origin<'a>> {
    sources.iter().map(Origin::from).chain(shorthand.origins()).collect()
}

/// What is only warned of; `Err` when there are errors.
fn warnings(collector: Collector<'_>) -> Result<Vec<Problem>, Problems> {
    let problems = collector.finish();
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    if failed { Err(Problems(problems)) } else { Ok(problems) }
}

/// What the files say, and what the command line adds to it.
#[derive(Default)]
struct Said<'t> {
    files: Vec<Document<'t>>,
    arguments: Option<Tree>,
}

impl Said<'_> {
    /// Gives all documents, that of the command line behind those of the files.
    fn with<T>(&self, read: impl FnOnce(&[View<'_>]) -> T) -> T {
        let arguments = self.arguments.as_ref().map(Document::of);
        let views: Vec<_> = self.files.iter().chain(&arguments).map(Document::root).collect();
        read(&views)
    }
}

/// Reads all texts; `None` when one is broken.
fn read<'t>(collector: &Collector<'_>, sources: &'t [Source], shorthand: &Shorthand) -> Option<Said<'t>> {
    let (mut said, mut broken) = (Said::default(), false);
    for (source, Source { text, .. }) in sources.iter().enumerate() {
        match file::parse(text, source) {
            Ok(file) => {
                if file.documents.is_empty() {
                    let at = Place::new(source, 0, 0);
                    collector.report(Severity::Warning, at, "", "the file is empty".to_owned(), "");
                }
                said.files.extend(file.documents);
                file.mistakes.into_iter().for_each(|mistake| collector.syntax(mistake));
            }
            Err(error) => {
                broken = true;
                collector.syntax(error);
            }
        }
    }
    if !shorthand.is_empty() {
        let errors = collector.errors();
        let document = said.with(|files| shorthand::document(shorthand, sources.len(), collector, files));
        broken |= collector.errors() > errors;
        said.arguments = Some(document);
    }
    if !shorthand.is_empty() && !broken {
        // Read once for what becomes of the keys in the command line, and for nothing else.
        said.with(|documents| check::config(&collector.afresh(), documents));
        said.arguments.iter_mut().for_each(shorthand::settle);
    }
    (!broken).then_some(said)
}
