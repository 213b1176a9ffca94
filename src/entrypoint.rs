//! A public port of a tunnel server: sniff, ask the ingress, open a stream on a connector, pipe.
//!
//! HTTP/1 is routed request by request, TLS once by its server name. Everything else is closed: without a host there is no
//! tunnel to choose. Unlike the reference, a relay request here is closed too: it would pass by ingress and private marks.

use crate::addr::{Host, HostPort};
use crate::http::failure::Failure;
use crate::http::rewrite::Changes;
use crate::http::{self, Asked, Fresh, Intermediary, Key, Place, Pool, Way};
use crate::net::listen::{self, Permit};
use crate::net::{Conn, pipe};
use crate::record::{Record, Route};
use crate::route::{Endpoint, Extra, HttpParts, Ingress, Pairs, Protocol, Request, Verdict};
use crate::sniff::{self, Sniffed};
use crate::terminate::Terminator;
use crate::tunnel::reach::{Reached, Unreached, Wanted};
use crate::tunnel::registry::{Connector, Opened, Registry};
use crate::tunnel::server::stream_header;
use crate::wire::tls::ClientHello;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// One public port of a tunnel server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where it listens and how much it takes.
    pub listen: listen::Settings,
    /// `entrypoint.admission`: who may connect.
    pub admissions: Vec<String>,
    /// Name of the ingress that decides for it; `None`: the handler's own inline rules.
    pub ingress: Option<String>,
    /// Waiting for the first bytes.
    pub sniff: sniff::Settings,
    /// HTTP/1 on it.
    pub http: http::Settings,
    /// `halfCloseTimeout`: one side has ended and the other is silent for this long.
    pub half_close_timeout: Duration,
    /// `idleTimeout`: both sides silent for this long; `None`: no limit (GOST's default).
    pub idle_timeout: Option<Duration>,
    /// `entrypoint.forwardedNode`: append this node to `Gost-Forwarded-Node` and answer 508 where it is already named.
    pub forwarded_node: bool,
}

/// The port's parts: who decides, and whom it can reach.
#[derive(Debug)]
pub(crate) struct Entrypoint {
    /// What connections have in common. No two visitors share an upstream: the header of each stream names its visitor.
    pub(crate) port: http::Port,
    pub(crate) settings: Settings,
    /// `handler.tls`.
    pub(crate) terminator: Option<Arc<Terminator>>,
    pub(crate) ingress: Option<Arc<dyn Ingress>>,
    /// What the service's `metadata` says, for plugins to ask for.
    pub(crate) metadata: Arc<Pairs>,
    pub(crate) registry: Arc<Registry>,
    /// This process in `Gost-Forwarded-Node`.
    pub(crate) node: Uuid,
}

impl Entrypoint {
    /// Serves one visitor's connection.
    pub(crate) fn serve(self: Arc<Self>, conn: Conn, mut permit: Permit) -> impl Future<Output = ()> + Send {
        // What the beginning needs, and what it hands on, is not held for as long as the connection lasts.
        let conn = Box::new(conn);
        async move {
            if let Some(rest) = Box::pin(self.begin(conn, &mut permit)).await {
                rest.await;
            }
        }
    }

    /// Finds out what a connection is, and for one that is not HTTP its target; `None`: it is over. What others than HTTP need is
    /// in boxes.
    async fn begin(&self, conn: Box<Conn>, permit: &mut Permit) -> Option<BoxFuture<'_, ()>> {
        let mut conn = *conn;
        let record = Record::new(&self.port.service, conn.client, Instant::now());
        match sniff::look(&mut conn, &self.settings.sniff).await {
            Ok(version @ (Sniffed::Http1 | Sniffed::Http2)) => {
                permit.established();
                record.discard();
                return Some(self.http(conn, version == Sniffed::Http2));
            }
            Ok(Sniffed::Tls(hello)) if hello.server_name.is_some() => {
                permit.established();
                match self.terminator.as_ref().and_then(|t| Some((t.ends(&hello)?, t))) {
                    Some((name, terminator)) => {
                        return Box::pin(self.terminated(conn, name, terminator, record)).await;
                    }
                    None => return Box::pin(self.tls(conn, hello, record)).await,
                }
            }
            Ok(_) => record.failed("no_host", NO_HOST).connection(),
            Err(error) => record.failed(error.outcome(), &error).connection(),
        }
        None
    }

    /// Serves what is inside of TLS that ends here; what is no HTTP goes where its server name leads.
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
        match sniff::look(&mut conn, &self.settings.sniff).await {
            Ok(version @ (Sniffed::Http1 | Sniffed::Http2)) => {
                record.discard();
                return Some(self.http(conn, version == Sniffed::Http2));
            }
            Ok(_) => return self.raw(conn, name, Protocol::Unknown, self.extra(), record).await,
            Err(error) => record.failed(error.outcome(), &error).connection(),
        }
        None
    }

    fn http(&self, conn: Conn, h2: bool) -> BoxFuture<'_, ()> {
        let Conn { stream, prefix, client, secure, .. } = conn;
        let context = http::Context { port: &self.port, client, secure };
        let router = Visitor { entrypoint: self };
        match h2 {
            true => Box::pin(async move { http::h2c::serve(stream, prefix, &router, &context).await }),
            false => Box::pin(http::serve(stream, prefix, router, context)),
        }
    }

    async fn tls<'r>(
        &'r self,
        conn: Conn,
        hello: ClientHello,
        record: Record<'r>,
    ) -> Option<BoxFuture<'r, ()>> {
        let name = hello.server_name?;
        let extra = Extra { alpn: Some(hello.alpn.into()), ..self.extra() };
        self.raw(conn, name, Protocol::Tls, extra, record).await
    }

    async fn raw<'r>(
        &'r self,
        conn: Conn,
        name: Host,
        protocol: Protocol,
        extra: Extra,
        record: Record<'r>,
    ) -> Option<BoxFuture<'r, ()>> {
        let Conn { stream, prefix, client, .. } = conn;
        let record = record.host(&name).protocol(protocol);
        let request = Request {
            hostname: name.clone(),
            protocol,
            client,
            service: &self.port.service,
            http: None,
            extra,
        };
        let destination = HostPort::new(name, 443);
        let decided = self.decide(&request).await.and_then(|endpoint| {
            let choice = Choice::new(&endpoint, client, &destination);
            Ok((choice.header()?, choice))
        });
        let (header, mut choice) = match decided {
            Ok(decided) => decided,
            Err(failure) => {
                record.failed(failure.outcome(), &failure).connection();
                return None;
            }
        };
        let reached = self.reach(&mut choice, header, pipe::Side::new(stream, prefix)).await;
        let record = record.route(choice.route());
        let Reached { visitor, target, sent, .. } = match reached {
            Ok(reached) => reached,
            Err(error) => {
                record.failed(error.outcome(), &error).connection();
                return None;
            }
        };
        Some(Box::pin(record.pipe(visitor, target, self.port.pipe, sent)))
    }

    /// A stream for a raw visitor.
    async fn reach(
        &self,
        choice: &mut Choice,
        header: Bytes,
        visitor: pipe::Side,
    ) -> Result<Reached, Unreached> {
        let wanted = Wanted {
            service: &self.port.service,
            registry: &self.registry,
            tunnel: choice.tunnel,
            udp: false,
            header,
        };
        let opened = wanted.open(&mut choice.tried)?;
        let reached = wanted.reach(opened, &mut choice.tried, visitor).await?;
        choice.last = Some(Arc::clone(&reached.connector));
        Ok(reached)
    }

    fn extra(&self) -> Extra {
        Extra::of_service(&self.metadata, [])
    }

    /// Asks the ingress for a public tunnel.
    async fn decide(&self, request: &Request<'_>) -> Result<Endpoint, Failure> {
        let no_route = || Failure::NoRoute(request.hostname.to_string());
        let ingress = self.ingress.as_ref().ok_or_else(no_route)?;
        match ingress.resolve(request).wait().await {
            Ok(Verdict::Use(endpoint)) if !endpoint.private => Ok(endpoint),
            // What is private does not exist for the public.
            Ok(Verdict::Use(_) | Verdict::Pass) => Err(no_route()),
            Ok(Verdict::Refuse(refusal)) => Err(refusal.into()),
            Err(error) => Err(Failure::Routing(error.to_string())),
        }
    }
}

const NO_HOST: &str =
    "neither HTTP nor TLS with a server name (or nothing within sniffing.timeout): no tunnel to choose";

/// A tunnel, and how far its connectors have been tried.
#[derive(Debug)]
struct Choice {
    tunnel: Uuid,
    /// The ingress rule that named it.
    rule: Arc<str>,
    client: SocketAddr,
    /// Streams to the same host of the same tunnel may be used again.
    key: Key,
    tried: Vec<Uuid>,
    last: Option<Arc<Connector>>,
}

impl Choice {
    fn new(endpoint: &Endpoint, client: SocketAddr, destination: &HostPort) -> Self {
        let (tunnel, rule) = (endpoint.tunnel, Arc::clone(&endpoint.rule));
        // The stream's header says who the visitor is.
        let (target, visitor) = (destination.clone(), Some(client));
        let key = Key { place: Place::Tunnel(tunnel), target, visitor };
        Self { tunnel, rule, client, key, tried: Vec::new(), last: None }
    }

    /// The first bytes of a stream; made before one is opened, for a host may be too long for them.
    fn header(&self) -> Result<Bytes, Failure> {
        let header = stream_header(&self.client.into(), &self.key.target);
        header.map_err(|error| Failure::Routing(error.to_string()))
    }

    fn route(&self) -> Route {
        Route {
            rule: Some(Arc::clone(&self.rule)),
            tunnel: Some(self.tunnel),
            connector: self.last.as_ref().map(|connector| connector.id),
            ..Route::default()
        }
    }

    fn open(&mut self, registry: &Registry) -> Result<Opened, Failure> {
        let header = self.header()?;
        let opened = registry.open(self.tunnel, false, &header, &mut self.tried);
        let opened = opened.map_err(|error| Failure::NoConnector(error.to_string()))?;
        self.last = Some(Arc::clone(&opened.connector));
        Ok(opened)
    }
}

/// Routes the requests of one visitor.
struct Visitor<'a> {
    entrypoint: &'a Entrypoint,
}

impl http::Router for Visitor<'_> {
    type Choice = Choice;

    async fn choose(&self, asked: &Asked<'_>) -> Result<Choice, Failure> {
        let entrypoint = self.entrypoint;
        if let Some(answer) = entrypoint.terminator.as_ref().and_then(|t| t.answer(asked)) {
            return Err(answer);
        }
        let destination = asked.destination();
        if entrypoint.settings.forwarded_node && passed(asked.parts, entrypoint.node) {
            return Err(Failure::Loop);
        }
        let request = Request {
            hostname: destination.host.clone(),
            protocol: asked.protocol,
            client: asked.client,
            service: &entrypoint.port.service,
            http: Some(asked.parts),
            extra: Extra { port: destination.port, ..entrypoint.extra() },
        };
        Ok(Choice::new(&entrypoint.decide(&request).await?, asked.client, &destination))
    }

    async fn open<P: Pool>(
        &self,
        choice: &mut Choice,
        _: &Asked<'_>,
        pool: &mut P,
    ) -> Result<Way<P::Kept>, Failure> {
        if let Some(kept) = pool.take(&choice.key).await {
            return Ok(Way::Kept(kept));
        }
        let registry = &self.entrypoint.registry;
        let opened = choice.open(registry)?;
        let silence =
            registry.has_other(choice.tunnel, false, &choice.tried).then_some(opened.connector.silence);
        let (stream, key, route) = (Box::new(opened.stream), choice.key.clone(), choice.route());
        Ok(Way::Fresh(Fresh { stream, key, route, silence, between: Some(opened.connector) }))
    }

    fn report(&self, choice: &mut Choice, answered: Result<u16, &Failure>) {
        if let (Err(Failure::Silent), Some(connector)) = (answered, &choice.last) {
            connector.pass_over();
        }
    }

    fn route(&self, choice: &Choice) -> Route {
        choice.route()
    }

    fn changes(&self, _: &Choice, asked: &Asked<'_>, route: &Route) -> Changes<'_> {
        let mut fields = Vec::new();
        if self.entrypoint.port.settings.route_header {
            fields.push(http::route_field(asked.client, route));
        }
        if self.entrypoint.settings.forwarded_node {
            let passed =
                http::text_of(asked.parts, FORWARDED_NODE).map(|nodes| nodes + ", ").unwrap_or_default();
            fields.push((FORWARDED_NODE.into(), Some(format!("{passed}{}", self.entrypoint.node))));
        }
        Changes { fields, rewrite: None }
    }
}

const FORWARDED_NODE: &str = "Gost-Forwarded-Node";

/// Whether the request has been through this node.
fn passed(parts: &dyn HttpParts, node: Uuid) -> bool {
    let node = node.to_string();
    http::text_of(parts, FORWARDED_NODE).is_some_and(|nodes| nodes.split(',').any(|n| n.trim() == node))
}
