//! Placeholder.
use crate::addr::HostPort;
use std::time::Duration;

/// Failure marks of a node.
#[derive(Debug, Default)]
pub struct Health {}

/// `forwarder` or a hop, as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct HopSettings {
    /// `nodes`.
    pub nodes: Vec<NodeSettings>,
    /// `selector.strategy`.
    pub strategy: Strategy,
}

/// `selector.strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// `round`, `rr`.
    #[default]
    Round,
    /// `random`, `rand`: by weight.
    Random,
    /// `fifo`, `ha`: the first live node.
    Fifo,
    /// `hash`: CRC-32 of the client address.
    Hash,
}

/// One node, as configured; selector defaults already applied.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// `name`.
    pub name: String,
    /// `addr`; `None`: forward to the request's own host.
    pub addr: Option<HostPort>,
    /// `filter.host` or `host`, as written; empty: any.
    pub host: String,
    /// `filter.protocol` or `protocol`: `http`, `tls`, `ssh`; empty: any.
    pub protocol: String,
    /// `filter.path` or `path`; empty: any.
    pub path: String,
    /// `matcher.rule`, compiled.
    pub rule: Option<super::rule::Rule>,
    /// `matcher.priority`; 0: the length of the rule's text.
    pub priority: i64,
    /// `metadata.weight`, at least 1.
    pub weight: u32,
    /// `metadata.backup`.
    pub backup: bool,
    /// `maxFails`, at least 1.
    pub max_fails: u32,
    /// `failTimeout`.
    pub fail_timeout: Duration,
}
