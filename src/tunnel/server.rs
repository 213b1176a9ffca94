//! The tunnel port: BIND registers a connector, CONNECT brings a visitor that knows the tunnel's ID.
//!
//! Section numbers are those of the wire specification. Public visitors come through `entrypoint`; the handler `relay`,
//! which opens ports for its clients, is in `relay`.

use super::TunnelId;
use super::gate::{Admitted, Gate, auth, while_allowed};
use super::reach::{Reached, Wanted};
use super::registry::{Connector, Registration, Registry};
use crate::addr::{Host, HostPort};
use crate::auth::Login;
use crate::handshake::{HandshakeError, read_message, write_message};
use crate::mux;
use crate::net::listen::Permit;
use crate::net::{Conn, pipe};
use crate::record::{Record, Route, seconds};
use crate::route::{Endpoint, Extra, Ingress, Opening, Pairs, Protocol, Request, Verdict};
use crate::shutdown::Shutdown;
use crate::wire::relay::{self, Feature, Status, TunnelFeature};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

/// Flag of a connector ID in a BIND reply: registered for UDP (section 1.2).
const FLAG_UDP: u8 = 0x01;

/// `handler: tunnel`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `ingress`: name of the ingress that decides for visitors; `None`: the inline rules of `tunnel`, if any.
    pub ingress: Option<String>,
    /// `entrypoint.id`: the tunnel ID that stands for "a public entrypoint elsewhere".
    pub entrypoint_id: Option<Uuid>,
    /// `tunnel.direct`: visitors that know a tunnel ID need no ingress rule.
    pub direct: bool,
    /// `handshakeTimeout` (GOST: `readTimeout`): for a whole relay request.
    pub handshake_timeout: Duration,
    /// `tunnel.maxConnectors`: connectors in one tunnel.
    pub max_connectors: usize,
    /// `tunnel.silence`: after this long without a sign that a connector has read a request, another one is tried.
    pub silence: Duration,
    /// `halfCloseTimeout`, `idleTimeout` for visitors of this port.
    pub half_close_timeout: Duration,
    /// Both sides silent for this long; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// `mux.*`.
    pub mux: mux::Settings,
}

/// The tunnel port of one service.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) service: String,
    pub(crate) settings: Settings,
    pub(crate) ingress: Option<Arc<dyn Ingress>>,
    /// What the service's `metadata` says, for plugins to ask for.
    pub(crate) metadata: Arc<Pairs>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) gate: Gate,
    pub(crate) shutdown: Shutdown,
}

impl Server {
    /// Serves one connection until it ends.
    pub(crate) fn serve(self: Arc<Self>, conn: Conn, mut permit: Permit) -> impl Future<Output = ()> + Send {
        // What the handshake needs is not held for as long as the connection lasts.
        let conn = Box::new(conn);
        async move {
            if let Some(rest) = Box::pin(self.begin(*conn, &mut permit)).await {
                rest.await;
            }
        }
    }

    /// Does the handshake; what is left to do then, if anything.
    async fn begin(&self, mut conn: Conn, permit: &mut Permit) -> Option<BoxFuture<'_, ()>> {
        let record = Record::new(&self.service, conn.client, Instant::now());
        let mut buf = BytesMut::from(conn.prefix.split_off(0));
        let read =
            read_message(&mut conn.stream, &mut buf, self.settings.handshake_timeout, relay::Request::decode);
        let request = match read.await {
            Ok(request) => request,
            // The reference closes without a word, and so do its peers expect it (section 1.1).
            Err(error) => {
                record.failed("bad_handshake", &error).connection();
                return None;
            }
        };
        conn.prefix = buf.freeze();
        let outcome = match (request.command, request.tunnel()) {
            (relay::Command::Bind, Some(tunnel)) if !tunnel.id.is_nil() => {
                record.discard();
                self.bind(conn, &request, *tunnel, permit).await
            }
            (relay::Command::Connect, Some(tunnel)) if !tunnel.id.is_nil() => {
                self.connect(conn, &request, tunnel.id, (record, permit)).await
            }
            _ => {
                record.failed("bad_handshake", "neither BIND nor CONNECT to a tunnel").connection();
                self.refuse(&mut conn, Status::BadRequest).await
            }
        };
        match outcome {
            Ok(rest) => rest,
            Err(error) => {
                debug!(service = self.service, %error, "handshake");
                None
            }
        }
    }

    async fn refuse(&self, conn: &mut Conn, status: Status) -> Handshake<'_> {
        reply(conn, status, Vec::new(), self.settings.handshake_timeout).await?;
        Ok(None)
    }

    /// Section 2.1: answers, and lets the connector in.
    async fn bind(
        &self,
        mut conn: Conn,
        request: &relay::Request,
        tunnel: TunnelFeature,
        permit: &mut Permit,
    ) -> Handshake<'_> {
        let (Some(_), Some(wanted)) = (request.source(), request.destination()) else {
            info!(service = self.service, client = %conn.client, tunnel = %tunnel.id, "BIND without two addresses");
            return Ok(None);
        };
        let limit = self.settings.handshake_timeout;
        let opening = self.opening(wanted, tunnel.id, &conn, request);
        let admitted = match self.gate.connector(auth(request), opening, limit).await {
            Ok(admitted) => admitted,
            Err(denied) => {
                warn!(service = self.service, client = %conn.client, tunnel = %tunnel.id, error = %denied, "connector refused");
                return self.refuse(&mut conn, denied.status).await;
            }
        };
        permit.established();
        let max_connectors = admitted.max_connectors.unwrap_or(self.settings.max_connectors);
        let mut registration = match self.registry.reserve(tunnel.id, max_connectors) {
            Ok(registration) => registration,
            Err(error) => {
                warn!(service = self.service, client = %conn.client, tunnel = %tunnel.id, %error, "connector refused");
                return self.refuse(&mut conn, Status::ServiceUnavailable).await;
            }
        };
        let udp = request.is_udp_network();
        let id = Uuid::new_v4();
        let flags = if udp { FLAG_UDP } else { 0 };
        let endpoint = self.endpoint(wanted, tunnel.id, &admitted, &conn, request).await;
        let login = admitted.login;
        let features = vec![
            Feature::addr(&endpoint),
            Feature::Tunnel(TunnelFeature { id, flags, weight: tunnel.weight }),
        ];
        reply(&mut conn, Status::Ok, features, limit).await?;

        let Conn { stream, prefix, client, .. } = conn;
        let (session, incoming, driver) = mux::start(stream, prefix, mux::Role::Client, &self.settings.mux);
        registration.enter(Arc::new(Connector {
            id,
            weight: tunnel.weight,
            udp,
            session: session.clone(),
            registry: Arc::downgrade(&self.registry),
            tunnel: tunnel.id,
            service: self.service.clone(),
            silence: self.settings.silence,
            silent: Mutex::default(),
            probed: Mutex::default(),
        }));
        let tunnel_id = tunnel.id;
        info!(service = self.service, client = %client, tunnel = %tunnel_id, connector = %id, weight = tunnel.weight, user = login.as_ref().map(|login| &*login.user), "connector up");
        let joined = Joined { session, registration, tunnel: tunnel_id, id, host: endpoint.host, login };
        Ok(Some(Box::pin(self.serve_session(joined, incoming, mux::drive(driver)))))
    }

    /// Runs a session, whose connector is registered while it lives.
    async fn serve_session(
        &self,
        joined: Joined,
        mut incoming: mux::Incoming,
        driving: impl Future<Output = ()>,
    ) {
        let Joined { session, registration, tunnel, id, host, login } = joined;
        let since = Instant::now();
        // A connector opens no streams; whatever it tries is dropped, which answers FIN (section 2.3).
        let refuse = async { while incoming.accept().await.is_some() {} };
        // In boxes, which go when they are done: soon, and at once where nobody has logged in.
        let revoke = Box::pin(async {
            let Some(login) = &login else { return };
            while_allowed(Some(login), async { drop(session.closed().await) }).await;
            session.close();
        });
        let announce = Box::pin(async {
            tokio::select! {
                () = self.announce(tunnel, &host) => {}
                _ = session.closed() => {}
            }
        });
        tokio::join!(driving, refuse, session.drain(&self.shutdown), revoke, announce);
        drop(registration);
        if login.is_some_and(|login| login.revoked.is_cancelled()) {
            info!(service = self.service, %tunnel, connector = %id, "its user may no longer serve this tunnel");
        }
        let reason = session.closed().await;
        info!(service = self.service, %tunnel, connector = %id, elapsed = seconds(since.elapsed()), %reason, "connector down");
    }

    /// The question whether a client may serve a tunnel, as whoever it is.
    fn opening(
        &self,
        wanted: &relay::RelayAddr,
        tunnel: TunnelId,
        conn: &Conn,
        request: &relay::Request,
    ) -> Opening {
        Opening {
            service: self.service.as_str().into(),
            tunnel,
            user: "".into(),
            hostname: named(wanted).map_or_else(Host::empty, |wanted| wanted.host),
            client: conn.client,
            udp: request.is_udp_network(),
            extra: Extra::of_service(&self.metadata, told(request)),
        }
    }

    /// The name that a BIND is answered with: what was asked for, unless it says nothing or belongs to another.
    async fn endpoint(
        &self,
        wanted: &relay::RelayAddr,
        tunnel: TunnelId,
        admitted: &Admitted,
        conn: &Conn,
        request: &relay::Request,
    ) -> HostPort {
        let own = || {
            HostPort::new(
                Host::parse(&relay::endpoint_name(&tunnel)).unwrap_or_else(|_| Host::empty()),
                wanted.port(),
            )
        };
        let Some(wanted) = named(wanted).filter(|_| self.ingress.is_some()) else { return own() };
        if !admitted.may_be_called(&wanted.host) {
            warn!(service = self.service, client = %conn.client, %tunnel, host = %wanted.host, "not among the hostnames of the tunnel");
            return own();
        }
        match self.lookup(&wanted.host, conn, request).await {
            Some(endpoint) if endpoint.tunnel != tunnel || endpoint.private => own(),
            _ => wanted,
        }
    }

    /// Section 2.1: an ingress that keeps names is told the one made from the ID, and the one that was asked for and granted.
    async fn announce(&self, tunnel: TunnelId, granted: &Host) {
        let Some(ingress) = &self.ingress else { return };
        let own = Host::parse(&relay::endpoint_name(&tunnel)).ok();
        let granted = Some(granted.clone()).filter(|granted| Some(granted) != own.as_ref());
        for name in own.into_iter().chain(granted) {
            if let Some(told) = ingress.announce(&name, tunnel, &self.service) {
                told.await;
            }
        }
    }

    async fn lookup(&self, host: &Host, conn: &Conn, asked: &relay::Request) -> Option<Endpoint> {
        let request = Request {
            hostname: host.clone(),
            protocol: Protocol::Tcp,
            client: conn.client,
            service: &self.service,
            http: None,
            extra: Extra::of_service(&self.metadata, told(asked)),
        };
        match self.ingress.as_ref()?.resolve(&request).wait().await {
            Ok(Verdict::Use(endpoint)) => Some(endpoint),
            Ok(Verdict::Pass | Verdict::Refuse(_)) => None,
            Err(error) => {
                // The plugin has told, and how often.
                tracing::debug!(service = self.service, %host, %error, "ingress failed");
                None
            }
        }
    }

    /// Section 2.5: a visitor that knows the tunnel.
    async fn connect<'s>(
        &'s self,
        mut conn: Conn,
        request: &relay::Request,
        asked: TunnelId,
        (record, permit): (Record<'s>, &mut Permit),
    ) -> Handshake<'s> {
        let limit = self.settings.handshake_timeout;
        let (Some(source), Some(destination)) =
            (request.source(), request.destination().and_then(|d| d.to_host_port()))
        else {
            record.failed("bad_handshake", "CONNECT without a source and a host to reach").connection();
            return self.refuse(&mut conn, Status::HostUnreachable).await;
        };
        let record = record.host(&destination.host);
        let record = record.route(Route { tunnel: Some(asked), ..Route::default() });
        let login = match self.gate.visitor(request, asked, conn.client, limit).await {
            Ok(login) => login,
            Err(denied) => {
                record.failed("unauthorized", &denied).connection();
                return self.refuse(&mut conn, denied.status).await;
            }
        };
        permit.established();
        let tunnel = match self.authorise(&destination, asked, &conn, request).await {
            Ok(tunnel) => tunnel,
            Err(status) => {
                record
                    .failed("refused", format_args!("no such host in this tunnel: {status:?}"))
                    .connection();
                return self.refuse(&mut conn, status).await;
            }
        };
        let source = source.to_host_port().unwrap_or_else(|| conn.client.into());
        let header = match stream_header(&source, &destination) {
            Ok(header) => header,
            Err(error) => {
                record.failed("refused", error).connection();
                return self.refuse(&mut conn, Status::HostUnreachable).await;
            }
        };
        let wanted = Wanted {
            service: &self.service,
            registry: &self.registry,
            tunnel,
            udp: request.is_udp_network(),
            header,
        };
        let mut tried = Vec::new();
        let opened = match wanted.open(&mut tried) {
            Ok(opened) => opened,
            Err(error) => {
                record.failed("no_connector", &error).connection();
                return self.refuse(&mut conn, Status::ServiceUnavailable).await;
            }
        };
        reply(&mut conn, Status::Ok, Vec::new(), limit).await?;
        let visitor = pipe::Side::new(conn.stream, conn.prefix);
        let limits = pipe_limits(self.settings.half_close_timeout, self.settings.idle_timeout);
        let served = Box::pin(async move {
            let reached = Box::pin(async { wanted.reach(opened, &mut tried, visitor).await }).await;
            let Reached { visitor, target, connector, sent } = match reached {
                Ok(reached) => reached,
                Err(error) => return record.failed(error.outcome(), &error).connection(),
            };
            let route = Route { tunnel: Some(tunnel), connector: Some(connector.id), ..Route::default() };
            Box::pin(record.route(route).pipe(visitor, target, limits, sent)).await;
        });
        Ok(Some(Box::pin(async move { while_allowed(login.as_ref(), served).await })))
    }

    /// Which tunnel a visitor may reach: the one its host is mapped to and whose ID it knows.
    async fn authorise(
        &self,
        destination: &HostPort,
        asked: TunnelId,
        conn: &Conn,
        request: &relay::Request,
    ) -> Result<TunnelId, Status> {
        let rule = self.lookup(&destination.host, conn, request).await;
        if self.settings.entrypoint_id == Some(asked) {
            return match rule {
                None => Err(Status::NetworkUnreachable),
                Some(endpoint) if endpoint.private => Err(Status::HostUnreachable),
                Some(endpoint) => Ok(endpoint.tunnel),
            };
        }
        if self.settings.direct || rule.is_some_and(|endpoint| endpoint.tunnel == asked) {
            return Ok(asked);
        }
        Err(Status::HostUnreachable)
    }
}

/// What is left to do once a connection has been answered; `None`: nothing.
type Handshake<'s> = Result<Option<BoxFuture<'s, ()>>, HandshakeError>;

/// A connector that was let in.
struct Joined {
    session: mux::Session,
    registration: Registration,
    tunnel: TunnelId,
    id: Uuid,
    /// The name that it was given.
    host: Host,
    login: Option<Login>,
}

/// The name that a client asks for, unless what it sent says nothing.
fn named(wanted: &relay::RelayAddr) -> Option<HostPort> {
    let says_nothing = |host: &Host| host.is_empty() || host.ip().is_some_and(|ip| ip.is_unspecified());
    wanted.to_host_port().filter(|wanted| !says_nothing(&wanted.host))
}

/// The first bytes of a stream towards a connector (section 2.3); made before the stream is opened, so that a host
/// that cannot be encoded costs nothing.
pub(crate) fn stream_header(source: &HostPort, destination: &HostPort) -> Result<Bytes, relay::EncodeError> {
    encode(Status::Ok, vec![Feature::addr(source), Feature::addr(destination)])
}

/// The pairs of a request's Metadata feature, as `relay.KEY`.
fn told(request: &relay::Request) -> impl Iterator<Item = (Box<str>, Box<str>)> {
    let pairs = request.features.iter().filter_map(|feature| match feature {
        Feature::Metadata(pairs) => Some(pairs),
        _ => None,
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    pairs.flatten().map(move |(key, value)| (format!("relay.{}", text(key)).into(), text(value).into()))
}

/// Bytes that hold most responses: two addresses, one of them with a name.
const USUAL: usize = 128;

pub(super) fn encode(status: Status, features: Vec<Feature>) -> Result<Bytes, relay::EncodeError> {
    let mut buf = BytesMut::with_capacity(USUAL);
    relay::Response { status, features }.encode(&mut buf)?;
    Ok(buf.freeze())
}

/// Answers a request; a refusal ends the stream.
pub(super) async fn reply(
    conn: &mut Conn,
    status: Status,
    features: Vec<Feature>,
    limit: Duration,
) -> Result<(), HandshakeError> {
    let Ok(bytes) = encode(status, features) else {
        return Err(crate::wire::Malformed("address that cannot be encoded").into());
    };
    write_message(&mut conn.stream, &bytes, limit).await?;
    if status != Status::Ok {
        // The last word. A stream of HTTP/2 that is dropped without an end loses it.
        timeout(limit, conn.stream.shutdown()).await.map_err(|_| HandshakeError::Timeout)??;
    }
    Ok(())
}

/// The two time-outs of a pipe.
pub(crate) fn pipe_limits(half_close_timeout: Duration, idle_timeout: Option<Duration>) -> pipe::Limits {
    pipe::Limits { half_close_timeout, idle_timeout }
}
