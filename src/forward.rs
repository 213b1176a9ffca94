//! The target side: sniff, find the nodes that match, dial one, pipe. Handlers `tcp` and `rtcp`, in `flow`
//! also `udp` and `rudp`.
//!
//! HTTP/1 is routed request by request; TLS by its server name, SSH by its protocol, anything else (and everything without
//! sniffing) by the host that the stream's header names, if it came through a tunnel.

mod flow;
mod reach;
mod treatment;
mod visitor;

pub use treatment::NodeSettings;

use crate::addr::Host;
use crate::addr::HostPort;
use crate::chain::{Ask, Chain, ChainError};
use crate::channel::Dialed;
use crate::http::failure::Failure;
use crate::http::{self, Fresh, Key, Place, Pool, Way};
use crate::net::listen::Permit;
use crate::net::{BoxStream, Conn, Via, pipe};
use crate::record::{Record, Route};
use crate::route::hop::{Active, Hop, Tried};
use crate::route::{Extra, Forwarder, Node, Pairs, Protocol, Request, Verdict};
use crate::sniff::{self, SniffError, Sniffed};
use crate::terminate::Terminator;
use crate::wire::proxy;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
pub(crate) use treatment::Treatments;
use visitor::Visitor;

/// Times and bounds of handlers `tcp` and `rtcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `sniffing`; without it every connection is raw.
    pub sniff: Option<sniff::Settings>,
    /// HTTP/1 on it.
    pub http: http::Settings,
    /// `connectTimeout`: for one attempt at one node.
    pub connect_timeout: Duration,
    /// `halfCloseTimeout`.
    pub half_close_timeout: Duration,
    /// `idleTimeout`; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// `proxyProtocol`: each connection to a node begins with a header that says who the visitor is.
    pub proxy_protocol: Option<proxy::Version>,
}

/// One service's targets.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) settings: Settings,
    /// `handler.tls`.
    pub(crate) terminator: Option<Arc<Terminator>>,
    pub(crate) hop: Hop,
    pub(crate) treatments: Treatments,
    /// Asked before the hop's own strategy.
    pub(crate) forwarder: Option<Arc<dyn Forwarder>>,
    /// The way to the nodes.
    pub(crate) chain: Arc<Chain>,
    /// What connections have in common, and those to nodes that wait for requests.
    pub(crate) port: http::Port,
    /// What the service's `metadata` says, for whom `forwarder` asks.
    pub(crate) metadata: Arc<Pairs>,
    /// When the hop was made: failure marks are counted from here.
    pub(crate) since: Instant,
}

impl Forward {
    /// Serves one connection; `permit` is there for those that came to a port of ours.
    pub(crate) fn serve(
        self: Arc<Self>,
        conn: Conn,
        mut permit: Option<Permit>,
    ) -> impl Future<Output = ()> + Send {
        // What the beginning needs, and what it hands on, is not held for as long as the connection lasts.
        let conn = Box::new(conn);
        async move {
            if let Some(rest) = Box::pin(self.begin(conn, &mut permit)).await {
                rest.await;
            }
        }
    }

    /// Finds out what a connection is, and for one that is not HTTP its target; `None`: it is over.
    async fn begin(&self, conn: Box<Conn>, permit: &mut Option<Permit>) -> Option<BoxFuture<'_, ()>> {
        let mut conn = *conn;
        let record = Record::new(&self.port.service, conn.client, Instant::now());
        let sniffed = self.sniff(&mut conn).await;
        if let Some(permit) = permit {
            permit.established();
        }
        let ends = match (&self.terminator, &sniffed) {
            (Some(terminator), Ok(Sniffed::Tls(hello))) => terminator.ends(hello).zip(Some(terminator)),
            _ => None,
        };
        if let Some((name, terminator)) = ends {
            return Box::pin(self.terminated(conn, name, terminator, record)).await;
        }
        let asked = conn.via.as_ref().and_then(|via| via.destination.as_ref()).map(|d| d.host.clone());
        self.sniffed(conn, sniffed, asked.unwrap_or_else(Host::empty), record).await
    }

    async fn sniff(&self, conn: &mut Conn) -> Result<Sniffed, SniffError> {
        match &self.settings.sniff {
            Some(settings) => sniff::look(conn, settings).await,
            None => Ok(Sniffed::Unknown),
        }
    }

    /// Serves what is inside of TLS that ends here.
    async fn terminated<'r>(
        &'r self,
        conn: Conn,
        name: Host,
        terminator: &Terminator,
        record: Record<'r>,
    ) -> Option<BoxFuture<'r, ()>> {
        let record = record.host(&name).protocol(Protocol::Tls);
        let mut conn = match terminator.accept(conn, &name).await {
            Ok(conn) => conn,
            Err(error) => {
                record.failed(error.outcome(), &error).connection();
                return None;
            }
        };
        let sniffed = self.sniff(&mut conn).await;
        self.sniffed(conn, sniffed, name, record).await
    }

    /// `asked`: the host, as far as it is known without what was sniffed. What others than HTTP need is in boxes.
    async fn sniffed<'r>(
        &'r self,
        conn: Conn,
        sniffed: Result<Sniffed, SniffError>,
        asked: Host,
        record: Record<'r>,
    ) -> Option<BoxFuture<'r, ()>> {
        match sniffed {
            Ok(version @ (Sniffed::Http1 | Sniffed::Http2)) => {
                record.discard();
                Some(self.http(conn, version == Sniffed::Http2))
            }
            Ok(Sniffed::Tls(hello)) => {
                let extra = Extra { alpn: Some(hello.alpn.into()), ..self.extra(conn.via.as_deref()) };
                let name = hello.server_name.unwrap_or(asked);
                Box::pin(self.raw(conn, Protocol::Tls, name, extra, record)).await
            }
            Ok(Sniffed::Ssh) => Box::pin(self.opaque(conn, Protocol::Ssh, asked, record)).await,
            Ok(Sniffed::Unknown) => {
                let looked = self.settings.sniff.is_some();
                let protocol = if looked { Protocol::Unknown } else { Protocol::Tcp };
                Box::pin(self.opaque(conn, protocol, asked, record)).await
            }
            Err(error) => {
                let route = route_of(None, conn.via.as_deref());
                record.route(route).failed(error.outcome(), &error).connection();
                None
            }
        }
    }

    fn http(&self, conn: Conn, h2: bool) -> BoxFuture<'_, ()> {
        let Conn { stream, prefix, client, local, secure, via } = conn;
        let context = http::Context { port: &self.port, client, secure };
        let extra = self.forwarder.as_ref().map(|_| Box::new(self.extra(via.as_deref())));
        let router = Visitor { forward: self, local, via, extra };
        match h2 {
            true => Box::pin(async move { http::h2c::serve(stream, prefix, &router, &context).await }),
            false => Box::pin(http::serve(stream, prefix, router, context)),
        }
    }

    async fn opaque<'r>(
        &'r self,
        conn: Conn,
        protocol: Protocol,
        hostname: Host,
        record: Record<'r>,
    ) -> Option<BoxFuture<'r, ()>> {
        let extra = self.extra(conn.via.as_deref());
        self.raw(conn, protocol, hostname, extra, record).await
    }

    async fn raw<'r>(
        &'r self,
        conn: Conn,
        protocol: Protocol,
        hostname: Host,
        extra: Extra,
        record: Record<'r>,
    ) -> Option<BoxFuture<'r, ()>> {
        let client = conn.client;
        let record = record.host(&hostname).protocol(protocol);
        let request = Request { hostname, protocol, client, service: &self.port.service, http: None, extra };
        let port = conn.via.as_ref().and_then(|via| via.destination.as_ref()).map_or(0, |d| d.port);
        let mut node = None;
        let reached = self.reach_once(&request, port, conn.local, &mut node).await;
        let record = record.route(route_of(node.as_deref(), conn.via.as_deref()));
        let stream = match reached {
            Ok(stream) => stream,
            Err(failure) => {
                record.failed(failure.outcome(), &failure).connection();
                return None;
            }
        };
        let active = node.as_ref().map(Active::new);
        let visitor = pipe::Side { stream: conn.stream, prefix: conn.prefix };
        let target = pipe::Side { stream, prefix: Bytes::new() };
        let piping = record.pipe(visitor, target, self.port.pipe, 0);
        Some(Box::pin(piping.map(move |()| drop(active))))
    }

    /// What is known of the service and was told by a tunnel server about a stream, where there is somebody to ask for it.
    pub(crate) fn extra(&self, via: Option<&Via>) -> Extra {
        if self.forwarder.is_none() {
            return Extra::default();
        }
        let ids = via.map(|via| [("tunnel.id", via.tunnel), ("tunnel.connector", via.connector)]);
        let ids = ids.into_iter().flatten();
        let told = ids.filter_map(|(name, id)| Some((name.into(), id?.to_string().into())));
        Extra::of_service(&self.metadata, told)
    }

    /// The next node to try: the forwarder's choice where there is one and it has an opinion, else the hop's own.
    async fn choose(&self, request: &Request<'_>, tried: &mut Tried) -> Result<Option<Arc<Node>>, Failure> {
        let now = self.since.elapsed();
        let Some(forwarder) = &self.forwarder else { return Ok(self.hop.choose(request, tried, now)) };
        match self.hop.choose_with(&**forwarder, request, tried, now).await {
            Ok(Verdict::Use(node)) => Ok(Some(node)),
            Ok(Verdict::Pass) => Ok(None),
            Ok(Verdict::Refuse(refusal)) => Err(refusal.into()),
            Err(error) => Err(Failure::Routing(error.to_string())),
        }
    }

    /// What a connection to a node begins with for this visitor: nothing, or a PROXY header.
    fn announce(&self, node: &Node, client: SocketAddr, local: SocketAddr) -> Bytes {
        let own = self.treatments.of(node).and_then(|treatment| treatment.proxy_protocol);
        let version = own.or(self.settings.proxy_protocol);
        version.map_or_else(Bytes::new, |version| proxy::encode(version, client, local))
    }

    /// A connection to a node for a visitor that is passed on as it is; `last` becomes the node that was chosen last.
    pub(crate) async fn reach_once(
        &self,
        request: &Request<'_>,
        port: u16,
        local: SocketAddr,
        last: &mut Option<Arc<Node>>,
    ) -> Result<BoxStream, Failure> {
        match self.reach(request, port, local, &mut Tried::new(), last, &mut http::NoPool).await? {
            Way::Fresh(fresh) => Ok(fresh.stream),
        }
    }

    /// Chooses and dials until a node answers, or one is found that `pool` leads to; those that do not answer are marked.
    /// `last` becomes the node that was chosen last. `local` is where the visitor's connection arrived.
    async fn reach<P: Pool>(
        &self,
        request: &Request<'_>,
        port: u16,
        local: SocketAddr,
        tried: &mut Tried,
        last: &mut Option<Arc<Node>>,
        pool: &mut P,
    ) -> Result<Way<P::Kept>, Failure> {
        let mut failure = None;
        loop {
            let before = tried.clone();
            let (node, target) = self.next(request, port, tried, last, &mut failure).await?;
            // Who the visitor is was said when the connection began: it serves no other one.
            let announce = self.announce(&node, request.client, local);
            // A chain may choose its ways by who the visitor is.
            let told = !announce.is_empty() || !self.chain.is_straight();
            let visitor = told.then_some(request.client);
            let key = Key { place: Place::Node(node.place), target: target.clone(), visitor };
            if let Some(kept) = pool.take(&key).await {
                // Should it turn out to be stale, the node deserves a fresh connection.
                *tried = before;
                return Ok(Way::Kept(kept));
            }
            let (limit, visitor) = (self.settings.connect_timeout, Some((request.client, local)));
            let ask = Ask { request, connect_timeout: limit, visitor };
            // In a box, as most requests find a kept connection and need no room for this.
            match Box::pin(self.connect(&node, &target, ask, &announce)).await {
                Ok(stream) => {
                    return Ok(Way::Fresh(Fresh {
                        stream,
                        key,
                        route: Route::default(),
                        silence: None,
                        between: None,
                    }));
                }
                Err(error) => failure = Some(self.failed(&node, error)?),
            }
        }
    }

    /// A connection to a node that begins with `announce`, ready for what the visitor sends.
    async fn connect(
        &self,
        node: &Node,
        target: &HostPort,
        ask: Ask<'_>,
        announce: &[u8],
    ) -> Result<BoxStream, ChainError> {
        let protocol = ask.request.protocol;
        let dialed = match self.chain.connect(target, ask).await {
            // What only waits gives its descriptors to what is needed.
            Err(ChainError::Exhausted(_))
                if self.port.shared.as_ref().is_some_and(|shared| shared.clear()) =>
            {
                self.chain.connect(target, ask).await
            }
            dialed => dialed,
        };
        let Dialed { mut stream, .. } = dialed?;
        // Into the empty buffer of a new connection; one that is lost already says so when it is used.
        let _ = stream.write_all(announce).await;
        match self.treatments.of(node) {
            Some(treatment) => treatment
                .secure(stream, target, protocol, self.settings.connect_timeout)
                .await
                .map_err(ChainError::Target),
            None => Ok(stream),
        }
    }

    /// Where to connect to; a port that neither the node nor its protocol names is the one that was asked for. To a tunnel a port
    /// says nothing, and 0 is one as well.
    fn target(&self, node: &Node, request: &Request<'_>, port: u16) -> Option<HostPort> {
        let asked = || HostPort::new(request.hostname.clone(), port);
        let chained = !self.chain.is_straight();
        node.target(request)
            .or_else(|| node.addr.clone().filter(|_| chained))
            .or_else(|| node.addr.is_none().then(asked))
            .filter(|t| !t.host.is_empty() && (t.port != 0 || chained))
    }
}

/// The node, and what the tunnel server told about the stream.
pub(crate) fn route_of(node: Option<&Node>, via: Option<&Via>) -> Route {
    Route {
        rule: node.map(|node| Arc::clone(&node.condition)),
        node: node.map(|node| Arc::clone(&node.name)),
        tunnel: via.and_then(|via| via.tunnel),
        connector: via.and_then(|via| via.connector),
    }
}
