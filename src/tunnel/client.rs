//! The listeners `rtcp` and `rudp`: one session with a tunnel or relay server, kept alive for ever, whose streams are
//! connections or flows of datagrams.
//!
//! A stream that is bad (no header in time, a status that is no success) ends alone; the session and the other streams
//! go on. What is done with a connection is the handler's business.

mod association;
mod backoff;
#[cfg(test)]
mod tests;

use crate::addr::{Host, HostPort};
use crate::chain::{Ask, Auth, Chain, ChainError, Chosen, Connector, Server, unbroken};
use crate::channel::Dialed;
use crate::handshake::{HandshakeError, read_message, write_message};
use crate::mux;
use crate::net::udp::{Flow, flows};
use crate::net::{BoxStream, Conn, Via, buffer};
use crate::route::hop::Tried;
use crate::route::{Extra, Protocol, Request};
use crate::shutdown::Shutdown;
use crate::wire::relay::{self, Command, Feature, Status, TunnelFeature};
use backoff::{Backoff, LASTED, Round};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};
use uuid::Uuid;

/// A listener of type `rtcp` or `rudp`: a session with a tunnel or relay server that hands us streams, or datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The service's `addr`: the bind address that is asked for.
    pub bind: HostPort,
    /// `handshakeTimeout`: for the BIND reply, and for the header of each stream.
    pub handshake_timeout: Duration,
    /// `connectTimeout` for the server.
    pub connect_timeout: Duration,
    /// `rudp`: the flows of a port that a relay server opens.
    pub udp: Option<flows::Settings>,
}

/// What comes by a session: one kind for `rtcp`, the other for `rudp`.
#[derive(Debug)]
pub(crate) enum Accepted {
    Conn(Conn),
    Flow(Flow),
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the server refuses the bind: {status:?}{}", advice(*status))]
    Refused { status: Status },
    #[error("the request cannot be written: {0}")]
    Encode(#[from] relay::EncodeError),
}

impl SessionError {
    fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Refused { status: Status::Unauthorized })
    }
}

fn advice(status: Status) -> &'static str {
    match status {
        Status::Unauthorized => {
            " (wrong user name or password: mend connector.auth; the next try is up to 30 s away)"
        }
        Status::Forbidden => {
            " (not to this user, or not this tunnel; a relay server opens ports only with metadata bind: true)"
        }
        Status::ServiceUnavailable => " (the address may be in use at the server)",
        _ => "",
    }
}

/// A session that is up.
struct Bound {
    stream: BoxStream,
    /// Bytes behind the reply: the first stream may have come with it.
    received: Bytes,
    local: SocketAddr,
    tunnel: Option<Uuid>,
    connector: Option<Uuid>,
    /// The name or address under which the server takes visitors.
    endpoint: Option<HostPort>,
}

/// The listener of one service.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) service: String,
    pub(crate) settings: Settings,
    /// The way to the servers; the nodes of its last hop are these.
    pub(crate) chain: Arc<Chain>,
    pub(crate) shutdown: Shutdown,
}

impl Client {
    /// Keeps a session up until the process stops, and gives each of its streams to `serve`.
    pub(crate) async fn run<S, F>(&self, serve: S)
    where
        S: Fn(Accepted) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Self { service, shutdown, .. } = self;
        let mut backoff = Backoff::default();
        let request = self.request();
        while !shutdown.stop.is_cancelled() {
            let round = self.try_servers(&request, &serve).await;
            if shutdown.stop.is_cancelled() {
                return;
            }
            let wait = backoff.after(round, fastrand::f64());
            debug!(service, ?round, ?wait, "next try");
            tokio::select! {
                () = sleep(wait) => {}
                () = shutdown.stop.cancelled() => {}
            }
        }
    }

    /// What the hops choose by. No visitor is there to be hashed, only this client: it stays with one server, others with others,
    /// as in GOST.
    fn request(&self) -> Request<'_> {
        let client = SocketAddr::new(Ipv4Addr::from_bits(fastrand::u32(..)).into(), 0);
        let (hostname, extra) = (Host::empty(), Extra::default());
        Request { hostname, protocol: Protocol::Tcp, client, service: &self.service, http: None, extra }
    }

    /// Tries one server after the other without a wait between them, until a session has lasted.
    async fn try_servers<S, F>(&self, request: &Request<'_>, serve: &S) -> Round
    where
        S: Fn(Accepted) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Self { service, settings, shutdown, .. } = self;
        let mut round = None;
        let mut tried = Tried::new();
        let ask = Ask { request, connect_timeout: settings.connect_timeout, visitor: None };
        loop {
            let chosen = match self.chain.server(request, &mut tried).await {
                Ok(Some(chosen)) => chosen,
                Ok(None) => break,
                Err(error) => {
                    warn!(service, %error, "no server");
                    break;
                }
            };
            let bound = tokio::select! {
                // In a box, for what it needs is not held while a session lasts.
                bound = Box::pin(self.bind(&chosen, ask)) => bound,
                () = shutdown.stop.cancelled() => break,
            };
            match bound {
                Ok(bound) => {
                    let since = Instant::now();
                    session(service, settings, &chosen, bound, shutdown, serve).await;
                    chosen.forget().await;
                    let lasted = since.elapsed() >= LASTED;
                    // A server that sends its clients away at once is no better than one that is down.
                    if lasted {
                        chosen.succeeded()
                    } else {
                        chosen.mark_failed()
                    }
                    if lasted || shutdown.stop.is_cancelled() {
                        return Round::Lasted;
                    }
                    round = Some(Round::Short);
                }
                // Which node it was that failed, the chain has told.
                Err(SessionError::Chain(ChainError::Node(_))) => round = after_failure(round, false),
                // The other servers are behind the same.
                Err(SessionError::Chain(error)) => {
                    warn!(service, %error, "no way to the server");
                    round = after_failure(round, false);
                    break;
                }
                Err(error) => {
                    chosen.failed(service, &error).await;
                    round = after_failure(round, error.is_unauthorized());
                }
            }
        }
        round.unwrap_or(Round::Failed)
    }

    async fn bind(&self, chosen: &Chosen<'_>, ask: Ask<'_>) -> Result<Bound, SessionError> {
        let Dialed { stream, local, way } = self.chain.reach(chosen, ask).await?;
        let bound = bind(&self.settings, chosen.server, stream, local).await;
        if bound.is_err() {
            unbroken(&way)?;
        }
        bound
    }
}

fn after_failure(before: Option<Round>, unauthorized: bool) -> Option<Round> {
    match (before, unauthorized) {
        (None | Some(Round::Unauthorized), true) => Some(Round::Unauthorized),
        (Some(Round::Short), _) => before,
        _ => Some(Round::Failed),
    }
}

async fn bind(
    settings: &Settings,
    server: &Server,
    mut stream: BoxStream,
    local: SocketAddr,
) -> Result<Bound, SessionError> {
    let mut message = BytesMut::new();
    request(settings, server, local).encode(&mut message)?;
    write_message(&mut stream, &message, settings.handshake_timeout).await?;
    let mut buf = BytesMut::new();
    let limit = settings.handshake_timeout;
    let reply = read_message(&mut stream, &mut buf, limit, relay::Response::decode).await?;
    if reply.status != Status::Ok {
        return Err(SessionError::Refused { status: reply.status });
    }
    Ok(Bound {
        stream,
        received: buf.freeze(),
        local,
        tunnel: match server.connector {
            Connector::Tunnel { id, .. } => Some(id),
            _ => None,
        },
        connector: reply.tunnel().map(|t| t.id),
        endpoint: reply.addrs().next().and_then(relay::RelayAddr::to_host_port),
    })
}

/// The BIND request, its features in the order in which GOST writes them (section 1.3).
fn request(settings: &Settings, server: &Server, local: SocketAddr) -> relay::Request {
    let mut bind = settings.bind.clone();
    if bind.host.is_empty() {
        bind.host = Host::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    let udp = settings.udp.is_some();
    let auth = server.auth.as_ref().map(Auth::feature).into_iter();
    let features = match server.connector {
        Connector::Tunnel { id, weight } => {
            let tunnel = Feature::Tunnel(TunnelFeature { id, flags: 0, weight });
            let rest = [Feature::addr(&local.into()), Feature::addr(&bind), tunnel];
            udp.then_some(Feature::UDP).into_iter().chain(auth).chain(rest).collect()
        }
        // The configuration lets no other connector stand here.
        _ => auth.chain([Feature::Network(udp.into()), Feature::addr(&bind)]).collect(),
    };
    relay::Request { command: Command::Bind, udp, features }
}

async fn session<S, F>(
    service: &str,
    settings: &Settings,
    chosen: &Chosen<'_>,
    bound: Bound,
    shutdown: &Shutdown,
    serve: &S,
) where
    S: Fn(Accepted) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let Bound { stream, received, local, tunnel, connector, endpoint } = bound;
    info!(
        service,
        node = chosen.name,
        tunnel = tunnel.map(tracing::field::display),
        connector = connector.map(tracing::field::display),
        addr = endpoint.map(tracing::field::display),
        "connected"
    );
    let since = Instant::now();
    let bound = Bound { stream, received, local, tunnel, connector, endpoint: None };
    let reason = match (&settings.udp, &chosen.server.connector) {
        (Some(flows), Connector::Relay) => association::run(bound, flows, shutdown, serve).await,
        _ => streams(settings, chosen, bound, shutdown, serve).await,
    };
    info!(service, node = chosen.name, elapsed = crate::record::seconds(since.elapsed()), %reason, "disconnected");
}

/// Serves the streams of a session until it ends, and says why.
async fn streams<S, F>(
    settings: &Settings,
    chosen: &Chosen<'_>,
    bound: Bound,
    shutdown: &Shutdown,
    serve: &S,
) -> String
where
    S: Fn(Accepted) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let Bound { stream, received, local, tunnel, connector, .. } = bound;
    let (session, mut incoming, driver) = mux::start(stream, received, mux::Role::Server, &chosen.server.mux);
    let accept = async {
        while let Some(stream) = incoming.accept().await {
            if shutdown.stop.is_cancelled() {
                continue;
            }
            // In a box, for what the header needs is not held for as long as the connection lasts.
            let conn = conn(Box::new(stream), local, tunnel, connector, settings.handshake_timeout);
            let (conn, serve, udp) = (Box::pin(conn), serve.clone(), settings.udp.is_some());
            shutdown.spawn_connection(async move {
                let accepted = match conn.await {
                    Ok(conn) if udp => Accepted::Flow(conn.into()),
                    Ok(conn) => Accepted::Conn(conn),
                    Err(error) => return debug!(%error, "stream"),
                };
                serve(accepted).await;
            });
        }
    };
    tokio::join!(mux::drive(driver), accept, session.drain(shutdown));
    session.closed().await.to_string()
}

/// Reads a stream's header (section 2.3) and makes a connection of it.
async fn conn(
    mut stream: BoxStream,
    local: SocketAddr,
    tunnel: Option<Uuid>,
    connector: Option<Uuid>,
    limit: Duration,
) -> Result<Conn, HandshakeError> {
    // What the visitor says first comes with it.
    let mut buf = buffer::take_block();
    let header = read_message(&mut stream, &mut buf, limit, relay::Response::decode).await?;
    if buf.is_empty() {
        buffer::give_block(std::mem::take(&mut buf));
    }
    if header.status != Status::Ok {
        return Err(crate::wire::Malformed("stream header with an error status").into());
    }
    let mut addrs = header.addrs().map(relay::RelayAddr::to_host_port);
    let source = addrs.next().flatten();
    // A name would have to be resolved, and nobody needs it: the address of a visitor is an IP address.
    let client = source.map_or_else(|| unknown(0), |s| s.socket_addr().unwrap_or_else(|| unknown(s.port)));
    let via = Via { tunnel, connector, destination: addrs.next().flatten() };
    Ok(Conn { stream, prefix: buf.freeze(), client, local, secure: false, via: Some(Arc::new(via)) })
}

fn unknown(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}
