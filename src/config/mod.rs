//! GOST v3's YAML to the settings of each part: files in, a checked [`Config`] or all their problems out.

mod chain;
mod check;
mod file;
mod forwarder;
mod handler;
mod ingress;
mod log;
mod plugins;
mod problem;
mod reader;
mod service;
mod settings;
mod tunnel;

pub use plugins::{Plugin, PluginFile, Plugins};
pub use problem::{Problem, Severity, Source};
pub use reader::parse_duration;

use crate::net::listen;
use crate::route::hop::HopSettings;
use crate::route::ingress::Rule;
use crate::tunnel::{client, relay, server};
use crate::{entrypoint, forward, telemetry};

/// A checked configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `services`, in the order of the files.
    pub services: Vec<Service>,
    /// `ingresses`.
    pub ingresses: Vec<Ingress>,
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
}

/// `listener.type`.
#[derive(Debug, Clone)]
pub enum Listener {
    /// `tcp`.
    Tcp(listen::Settings),
    /// `rtcp`: a session with the server that the chain names.
    Rtcp(client::Settings),
}

/// `handler.type`.
#[derive(Debug, Clone)]
pub enum Handler {
    /// `tcp` and `rtcp`.
    Forward {
        /// Times and bounds.
        settings: forward::Settings,
        /// `forwarder`.
        hop: HopSettings,
        /// `forwarder.plugin`, asked before the hop's own strategy.
        plugin: Option<Plugin>,
    },
    /// `tunnel`.
    Tunnel {
        /// The tunnel port.
        settings: server::Settings,
        /// `entrypoint` and `entrypoints`.
        entrypoints: Vec<entrypoint::Settings>,
        /// Inline rules: metadata `tunnel: "host:uuid,..."`.
        rules: Vec<Rule>,
    },
    /// `relay`.
    Relay(relay::Settings),
    /// `whoami`: answers with what it saw.
    Whoami,
}

/// `ingresses[]`.
#[derive(Debug, Clone)]
pub struct Ingress {
    /// `name`.
    pub name: String,
    /// `rules`.
    pub rules: Vec<Rule>,
    /// `plugin`, asked before the rules.
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

/// Reads and checks files that together are one configuration.
pub fn load(sources: &[Source]) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut trees = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        match file::parse(&source.text, index) {
            Ok(Some(tree)) => trees.push(tree),
            Ok(None) => {
                problems.push(check::whole_file(
                    sources,
                    index,
                    "the file is empty".to_owned(),
                    "expected `services:`",
                ));
            }
            Err(file::SyntaxError { at, message }) => {
                problems.push(Problem::new(sources, Severity::Error, at, "", message, ""));
            }
        }
    }
    if problems.is_empty() { check::check(sources, &trees) } else { Err(Problems(problems)) }
}
