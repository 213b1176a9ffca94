//! The same for flows of datagrams: handlers `udp` and `rudp`.
//!
//! One flow is one choice of a node: of QUIC, by the server name in its ClientHello. A node is known to be down when its system says so, which ends the flow: the next
//! datagram of its visitor begins another one, at another node.

use super::{Forward, route_of};
use crate::addr::Host;
use crate::net::Via;
use crate::net::udp::{Datagrams, Flow};
use crate::record::Record;
use crate::route::hop::Active;
use crate::route::{Node, Protocol, Request};
use crate::sniff::flow::Begun;
use crate::sniff::{self, SniffError};
use crate::wire::tls::ClientHello;
use std::net::SocketAddr;
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
        let record = Record::new(&self.port.service, flow.client, Instant::now()).protocol(Protocol::Udp);
        let Flow { mut datagrams, client, via, ttl, .. } = flow;
        let (via, begun) = (via.as_deref(), self.begun(&mut *datagrams).await);
        let Begun { hello, held } = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let record = record.route(route_of(None, via));
                return record.failed(error.outcome(), &error).connection();
            }
        };
        let request = self.flow_request(client, via, hello);
        let record = record.host(&request.hostname).protocol(request.protocol);
        let port = via.and_then(|via| via.destination.as_ref()).map_or(0, |d| d.port);
        let mut node = None;
        let reached = self.reach_datagrams(&request, port, &mut node).await;
        let record = record.route(route_of(node.as_deref(), via));
        match reached {
            Ok(target) => {
                let silence = self.silence(ttl, request.protocol);
                let flow = record.exchange(datagrams, target, held, silence);
                self.judge(node.as_ref(), flow).await;
            }
            Err(failure) => record.failed(failure.outcome(), &failure).connection(),
        }
    }

    async fn begun(&self, datagrams: &mut dyn Datagrams) -> Result<Begun, SniffError> {
        match &self.settings.sniff {
            Some(settings) => sniff::flow::sniff(datagrams, settings).await,
            None => Ok(Begun::default()),
        }
    }

    /// The host is the one that the hello names, else the one that the stream's header names, if it came through a tunnel.
    fn flow_request(&self, client: SocketAddr, via: Option<&Via>, hello: Option<ClientHello>) -> Request<'_> {
        let asked = via.and_then(|via| via.destination.as_ref());
        let mut request = Request {
            hostname: asked.map_or_else(Host::empty, |asked| asked.host.clone()),
            protocol: Protocol::Udp,
            client,
            service: &self.port.service,
            http: None,
            extra: self.extra(via),
        };
        if let Some(hello) = hello {
            request.protocol = Protocol::Quic;
            request.extra.alpn = Some(hello.alpn.into());
            request.hostname = hello.server_name.unwrap_or(request.hostname);
        }
        request
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
}
