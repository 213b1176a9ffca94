//! The listener `rtcp`: one session with a tunnel or relay server, kept alive for ever, whose streams are connections.
//!
//! A stream that is bad (no header in time, a status that is no success) ends alone; the session and the other streams
//! go on. What is done with a connection is the handler's business.

mod backoff;
mod choice;
#[cfg(test)]
mod tests;

use super::{HandshakeError, read_message, write_message};
use crate::addr::{Host, HostPort};
use crate::channel::tls::TlsError;
use crate::channel::{self, ChannelError, Dialed, Dialer};
use crate::mux;
use crate::net::{BoxStream, Conn, Via};
use crate::route::Forwarder;
use crate::route::hop::{HopSettings, Tried};
use crate::shutdown::Shutdown;
use crate::wire::relay::{self, Command, Feature, Status, TunnelFeature};
use backoff::{Backoff, LASTED, Round};
use bytes::{Bytes, BytesMut};
use choice::Choice;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};
use uuid::Uuid;

/// A listener of type `rtcp`: a session with a tunnel or relay server that hands us streams.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The service's `addr`: the bind address that is asked for.
    pub bind: HostPort,
    pub servers: Vec<Server>,
    /// How to choose among them: one node for each, in the same order.
    pub choice: HopSettings,
    /// `handshakeTimeout`: for the BIND reply, and for the header of each stream.
    pub handshake_timeout: Duration,
    /// `connectTimeout` for the server.
    pub connect_timeout: Duration,
}

/// One node of the hop towards the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The node's name.
    pub name: String,
    /// `addr`.
    pub addr: HostPort,
    /// `connector`.
    pub connector: Connector,
    /// `connector.auth`.
    pub auth: Option<Auth>,
    /// `connector.metadata` `mux.*`.
    pub mux: mux::Settings,
    /// `dialer`.
    pub channel: channel::ClientSettings,
}

/// `connector.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connector {
    /// `tunnel`, with `tunnel.id` (absent: a time-based UUID made once at start) and `tunnel.weight`.
    Tunnel {
        /// The tunnel to serve.
        id: Uuid,
        /// 0 counts as 1, 255 takes all.
        weight: u8,
    },
    /// `relay`: the server opens the bind address as a port.
    Relay,
}

/// User name and password; `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// At most 255 bytes.
    pub username: String,
    /// At most 255 bytes.
    pub password: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).field("password", &"***").finish()
    }
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
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
        Status::Forbidden => " (a relay server opens ports only with metadata bind: true)",
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
    service: String,
    settings: Settings,
    /// One for each server.
    dialers: Vec<Dialer>,
    /// Asked which server.
    plugin: Option<Arc<dyn Forwarder>>,
    shutdown: Shutdown,
}

impl Client {
    /// Reads the files that the dialers need.
    pub(crate) fn new(
        service: &str,
        settings: &Settings,
        plugin: Option<Arc<dyn Forwarder>>,
        shutdown: &Shutdown,
    ) -> Result<Self, TlsError> {
        let dialer = |server: &Server| Dialer::new(&server.channel, &server.name, shutdown);
        let dialers = settings.servers.iter().map(dialer).collect::<Result<_, _>>()?;
        let (service, settings) = (service.to_owned(), settings.clone());
        Ok(Self { service, settings, dialers, plugin, shutdown: shutdown.clone() })
    }

    /// Keeps a session up until the process stops, and gives each of its streams to `serve`.
    pub(crate) async fn run<S, F>(&self, serve: S)
    where
        S: Fn(Conn) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Self { service, settings, shutdown, .. } = self;
        let mut backoff = Backoff::default();
        let choice = Choice::new(service, &settings.choice, self.plugin.clone());
        while !shutdown.stop.is_cancelled() {
            let round = self.try_servers(&choice, &serve).await;
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

    /// Tries one server after the other without a wait between them, until a session has lasted.
    async fn try_servers<S, F>(&self, choice: &Choice<'_>, serve: &S) -> Round
    where
        S: Fn(Conn) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Self { service, settings, shutdown, .. } = self;
        let mut round = None;
        let mut tried = Tried::new();
        while let Some((index, node)) = choice.next(&mut tried).await {
            let (Some(server), Some(dialer)) = (settings.servers.get(index), self.dialers.get(index)) else {
                break;
            };
            let bound = tokio::select! {
                bound = bind(settings, server, dialer) => bound,
                () = shutdown.stop.cancelled() => break,
            };
            match bound {
                Ok(bound) => {
                    let since = Instant::now();
                    session(service, settings, server, bound, shutdown, serve).await;
                    dialer.forget().await;
                    let lasted = since.elapsed() >= LASTED;
                    // A server that sends its clients away at once is no better than one that is down.
                    choice.mark(&node, lasted);
                    if lasted || shutdown.stop.is_cancelled() {
                        return Round::Lasted;
                    }
                    round = Some(Round::Short);
                }
                Err(error) => {
                    // What carried it may be dead without knowing.
                    dialer.forget().await;
                    choice.mark(&node, false);
                    warn!(service, node = server.name, addr = %server.addr, %error, "cannot connect");
                    round = match (round, error.is_unauthorized()) {
                        (None | Some(Round::Unauthorized), true) => Some(Round::Unauthorized),
                        (Some(Round::Short), _) => round,
                        _ => Some(Round::Failed),
                    };
                }
            }
        }
        round.unwrap_or(Round::Failed)
    }
}

async fn bind(settings: &Settings, server: &Server, dialer: &Dialer) -> Result<Bound, SessionError> {
    let Dialed { mut stream, local } = dialer.connect(&server.addr, settings.connect_timeout).await?;
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
            Connector::Relay => None,
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
    let auth = server.auth.as_ref().map(|auth| Feature::Auth {
        username: auth.username.clone().into_bytes(),
        password: auth.password.clone().into_bytes(),
    });
    let rest = match server.connector {
        Connector::Tunnel { id, weight } => vec![
            Feature::addr(&local.into()),
            Feature::addr(&bind),
            Feature::Tunnel(TunnelFeature { id, flags: 0, weight }),
        ],
        Connector::Relay => vec![Feature::Network(0), Feature::addr(&bind)],
    };
    relay::Request { command: Command::Bind, udp: false, features: auth.into_iter().chain(rest).collect() }
}

async fn session<S, F>(
    service: &str,
    settings: &Settings,
    server: &Server,
    bound: Bound,
    shutdown: &Shutdown,
    serve: &S,
) where
    S: Fn(Conn) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let Bound { stream, received, local, tunnel, connector, endpoint } = bound;
    info!(
        service,
        node = server.name,
        tunnel = tunnel.map(tracing::field::display),
        connector = connector.map(tracing::field::display),
        addr = endpoint.map(tracing::field::display),
        "connected"
    );
    let since = Instant::now();
    let (session, mut incoming, driver) = mux::start(stream, received, mux::Role::Server, &server.mux);
    let accept = async {
        while let Some(stream) = incoming.accept().await {
            if shutdown.stop.is_cancelled() {
                continue;
            }
            let conn = conn(Box::new(stream), local, tunnel, connector, settings.handshake_timeout);
            let serve = serve.clone();
            shutdown.spawn_connection(async move {
                match conn.await {
                    Ok(conn) => serve(conn).await,
                    Err(error) => debug!(%error, "stream"),
                }
            });
        }
    };
    tokio::join!(driver, accept, session.drain(shutdown));
    let reason = session.closed().await;
    info!(service, node = server.name, elapsed = crate::record::seconds(since.elapsed()), %reason, "disconnected");
}

/// Reads a stream's header (section 2.3) and makes a connection of it.
async fn conn(
    mut stream: BoxStream,
    local: SocketAddr,
    tunnel: Option<Uuid>,
    connector: Option<Uuid>,
    limit: Duration,
) -> Result<Conn, HandshakeError> {
    let mut buf = BytesMut::new();
    let header = read_message(&mut stream, &mut buf, limit, relay::Response::decode).await?;
    if header.status != Status::Ok {
        return Err(crate::wire::Malformed("stream header with an error status").into());
    }
    let mut addrs = header.addrs().map(relay::RelayAddr::to_host_port);
    let source = addrs.next().flatten();
    // A name would have to be resolved, and nobody needs it: the address of a visitor is an IP address.
    let client = source.map_or_else(|| unknown(0), |s| s.socket_addr().unwrap_or_else(|| unknown(s.port)));
    let via = Via { tunnel, connector, destination: addrs.next().flatten() };
    Ok(Conn { stream, prefix: buf.freeze(), client, local, via: Some(Arc::new(via)) })
}

fn unknown(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}
