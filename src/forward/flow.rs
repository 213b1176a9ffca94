//! The same for flows of datagrams: handlers `udp` and `rudp`.
//!
//! One flow is one choice of a node: of QUIC, by the server name in its ClientHello. A node is known to be down when its system says so, which ends the flow: the next
//! datagram of its visitor begins another one, at another node.

use super::{Forward, nowhere, route_of};
use crate::addr::Host;
use crate::chain::Ask;
use crate::http::failure::Failure;
use crate::net::udp::{BoxDatagrams, Flow};
use crate::record::Record;
use crate::route::hop::{Active, Tried};
use crate::route::{Node, Protocol, Request};
use crate::sniff;
use crate::sniff::flow::Begun;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a flow may be silent that has another end than silence: RFC 4787 (section 4.3) recommends 5 minutes. A peer that
/// forgets to end its streams would else fill the session.
const SILENCE: Duration = Duration::from_secs(300);

/// The least `ttl` of a flow that has begun with a ClientHello: a connection of QUIC is silent for as long as 30 s by the usual
/// settings, and what comes behind the silence would name no host any more.
const QUIC_SILENCE: Duration = Duration::from_secs(60);

impl Forward {
    /// Serves one flow.
    pub(crate) async fn serve_flow(&self, flow: Flow) {
        let record = Record::new(&self.service, flow.client, Instant::now());
        let Flow { mut datagrams, client, via, ttl, .. } = flow;
        let destination = via.as_ref().and_then(|via| via.destination.as_ref());
        let (asked, port) = destination.map_or((Host::empty(), 0), |d| (d.host.clone(), d.port));
        let record = record.host(&asked).protocol(Protocol::Udp);
        let sniffed = match &self.settings.sniff {
            Some(settings) => sniff::flow::sniff(&mut *datagrams, settings).await,
            None => Ok(Begun::default()),
        };
        let Begun { hello, held } = match sniffed {
            Ok(begun) => begun,
            Err(error) => {
                let record = record.route(route_of(None, via.as_deref()));
                return record.failed(error.outcome(), &error).connection();
            }
        };
        let mut request = Request {
            hostname: asked,
            protocol: Protocol::Udp,
            client,
            service: &self.service,
            http: None,
            extra: self.extra(via.as_deref()),
        };
        if let Some(hello) = hello {
            request.protocol = Protocol::Quic;
            request.extra.alpn = Some(hello.alpn.into());
            request.hostname = hello.server_name.unwrap_or(request.hostname);
        }
        let record = record.host(&request.hostname).protocol(request.protocol);
        let mut node = None;
        let reached = self.reach_datagrams(&request, port, &mut node).await;
        let record = record.route(route_of(node.as_deref(), via.as_deref()));
        match reached {
            Ok(target) => {
                let silence = self.silence(ttl, request.protocol);
                let flow = record.exchange(datagrams, target, held, silence);
                self.judge(node.as_ref(), flow).await;
            }
            Err(failure) => record.failed(failure.outcome(), &failure).connection(),
        }
    }

    /// Runs a flow, and marks its node by whether it is there.
    pub(crate) async fn judge(&self, node: Option<&Arc<Node>>, flow: impl Future<Output = Option<bool>>) {
        let active = node.map(Active::new);
        let is_there = flow.await;
        drop(active);
        match node.zip(is_there) {
            Some((node, false)) => node.health.failed(self.since.elapsed()),
            Some((node, true)) => node.health.succeeded(),
            None => {}
        }
    }

    /// What silence ends a flow: the shorter one of those that are set.
    pub(crate) fn silence(&self, ttl: Option<Duration>, protocol: Protocol) -> Duration {
        let ttl = ttl.map(|ttl| if protocol == Protocol::Quic { ttl.max(QUIC_SILENCE) } else { ttl });
        [ttl, self.settings.idle_timeout].into_iter().flatten().min().unwrap_or(SILENCE)
    }

    /// Chooses a node and asks for a flow to it until one can be had; `last` becomes the node that was chosen last.
    pub(crate) async fn reach_datagrams(
        &self,
        request: &Request<'_>,
        port: u16,
        last: &mut Option<Arc<Node>>,
    ) -> Result<BoxDatagrams, Failure> {
        let (mut tried, mut failure) = (Tried::new(), None);
        loop {
            let Some(node) = self.choose(request, &mut tried).await? else {
                return Err(failure.unwrap_or_else(|| Failure::NoRoute(request.hostname.to_string())));
            };
            *last = Some(Arc::clone(&node));
            if let Some(treatment) = self.treatments.of(&node) {
                treatment.admit(request).await?;
            }
            let Some(target) = self.target(&node, request, port) else {
                failure = Some(nowhere(&node));
                continue;
            };
            let ask = Ask { request, connect_timeout: self.settings.connect_timeout, visitor: None };
            match self.chain.datagrams(&target, ask).await {
                Ok(datagrams) => return Ok(datagrams),
                Err(error) => failure = Some(self.failed(&node, error)?),
            }
        }
    }
}
