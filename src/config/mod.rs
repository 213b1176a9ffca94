//! GOST v3's YAML to the settings of each part.

pub mod check;
pub mod file;

use crate::addr::HostPort;
use crate::route::hop::HopSettings;
use crate::route::ingress::Rule;
use crate::{entrypoint, forward, net::listen, telemetry, tunnel};

/// A checked configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `services`, in the order of the files.
    pub services: Vec<Service>,
    /// `ingresses`.
    pub ingresses: Vec<Ingress>,
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
    Rtcp(tunnel::client::Settings),
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
    },
    /// `tunnel`.
    Tunnel {
        /// The tunnel port.
        settings: tunnel::server::Settings,
        /// `entrypoint` and `entrypoints`.
        entrypoints: Vec<entrypoint::Settings>,
        /// Inline rules: metadata `tunnel: "host:uuid,..."`.
        rules: Vec<Rule>,
    },
    /// `relay`.
    Relay(tunnel::server::RelaySettings),
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
}

/// Only for the compiler until every part is written.
pub type Bind = HostPort;
