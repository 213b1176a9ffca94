//! Which of several servers a client turns to: the selector of its hop, with its marks.

use crate::addr::Host;
use crate::route::hop::{Hop, HopSettings, Tried};
use crate::route::{Extra, Node, Protocol, Request};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct Choice<'a> {
    hop: Hop,
    since: Instant,
    request: Request<'a>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(service: &'a str, settings: &HopSettings) -> Self {
        // No visitor is there to be hashed, only this client: it stays with one server, others with others, as in GOST.
        let client = SocketAddr::new(Ipv4Addr::from_bits(fastrand::u32(..)).into(), 0);
        let hostname = Host::empty();
        let extra = Extra::default();
        let request = Request { hostname, protocol: Protocol::Tcp, client, service, http: None, extra };
        Self { hop: Hop::new(settings.clone()), since: Instant::now(), request }
    }

    /// The next server to try, by its place: one that is alive, else the one that failed longest ago. `None`: all were tried.
    pub(super) fn next(&self, tried: &mut Tried) -> Option<(usize, Arc<Node>)> {
        let node = self.hop.choose(&self.request, tried, self.since.elapsed())?;
        let index = self.hop.nodes().iter().position(|known| Arc::ptr_eq(known, &node))?;
        Some((index, node))
    }

    pub(super) fn mark(&self, node: &Node, good: bool) {
        if good { node.health.succeeded() } else { node.health.failed(self.since.elapsed()) }
    }
}
