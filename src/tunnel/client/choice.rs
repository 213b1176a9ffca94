//! Which of several servers a client turns to: the selector of its hop, with its marks.

use crate::addr::Host;
use crate::route::hop::{Hop, HopSettings, Tried};
use crate::route::{Extra, Forwarder, Node, Protocol, Request, Verdict};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::warn;

pub(super) struct Choice<'a> {
    hop: Hop,
    since: Instant,
    request: Request<'a>,
    plugin: Option<Arc<dyn Forwarder>>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(service: &'a str, settings: &HopSettings, plugin: Option<Arc<dyn Forwarder>>) -> Self {
        // No visitor is there to be hashed, only this client: it stays with one server, others with others, as in GOST.
        let client = SocketAddr::new(Ipv4Addr::from_bits(fastrand::u32(..)).into(), 0);
        let hostname = Host::empty();
        let extra = Extra::default();
        let request = Request { hostname, protocol: Protocol::Tcp, client, service, http: None, extra };
        Self { hop: Hop::new(settings.clone()), since: Instant::now(), request, plugin }
    }

    /// The next server to try, by its place: the plugin's choice where there is one and it has an opinion, else one that is alive,
    /// else the one that failed longest ago. `None`: all were tried, or the plugin lets nobody try.
    pub(super) async fn next(&self, tried: &mut Tried) -> Option<(usize, Arc<Node>)> {
        let now = self.since.elapsed();
        let node = match &self.plugin {
            None => self.hop.choose(&self.request, tried, now)?,
            Some(plugin) => match self.hop.choose_with(&**plugin, &self.request, tried, now).await {
                Ok(Verdict::Use(node)) => node,
                Ok(Verdict::Pass) => return None,
                Ok(Verdict::Refuse(refusal)) => {
                    warn!(
                        service = self.request.service,
                        reason = refusal.reason,
                        "no server: the plugin refuses"
                    );
                    return None;
                }
                Err(error) => {
                    warn!(service = self.request.service, %error, "no server");
                    return None;
                }
            },
        };
        let index = self.hop.nodes().iter().position(|known| Arc::ptr_eq(known, &node))?;
        Some((index, node))
    }

    pub(super) fn mark(&self, node: &Node, good: bool) {
        if good { node.health.succeeded() } else { node.health.failed(self.since.elapsed()) }
    }
}
