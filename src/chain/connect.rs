//! Connectors: how a server is asked to connect on.

use super::{Auth, Connector, Server, http, socks5};
use crate::addr::HostPort;
use crate::handshake::{HandshakeError, read_message, write_message};
use crate::net::BoxStream;
use crate::net::prefixed::Prefixed;
use crate::wire::relay::{self, Command, Feature, Status, TunnelFeature};
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// A server that does not connect on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It does its work, but this target is out of its reach.
    #[error("{0}")]
    Refused(String),
    /// It does not do its work.
    #[error("{0}")]
    Broken(String),
}

impl From<HandshakeError> for Failed {
    fn from(error: HandshakeError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<relay::EncodeError> for Failed {
    fn from(error: relay::EncodeError) -> Self {
        Self::Refused(format!("the request cannot be written: {error}"))
    }
}

/// What a server is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Who wants it.
    pub(super) client: SocketAddr,
    /// Our own address.
    pub(super) local: SocketAddr,
    pub(super) target: &'a HostPort,
    /// Datagrams in form A (section 1.4) in place of a stream.
    pub(super) udp: bool,
}

/// Asks the server at the other end of `stream` for a connection to a target. A relay server has not answered then.
pub(super) async fn connect(
    server: &Server,
    stream: BoxStream,
    wanted: Wanted<'_>,
) -> Result<BoxStream, Failed> {
    let limit = server.connect_timeout;
    let auth = server.auth.as_ref();
    let connected = async {
        match &server.connector {
            Connector::Tunnel { id, .. } => tunnel(stream, *id, auth, wanted, limit).await,
            Connector::Relay => relay(stream, auth, wanted, limit).await,
            Connector::Http { .. } | Connector::Socks5 | Connector::Forward if wanted.udp => Err(
                Failed::Refused("this connector leads to no datagrams: expected tunnel or relay".to_owned()),
            ),
            Connector::Http { fields } => http::connect(stream, fields, auth, wanted.target).await,
            Connector::Socks5 => socks5::connect(stream, auth, wanted.target).await,
            Connector::Forward => Ok(stream),
        }
    };
    let late =
        || Err(Failed::Broken(format!("no answer within {limit:?} (connectTimeout of the connector)")));
    timeout(limit, connected).await.unwrap_or_else(|_| late())
}

/// The visitor's address where it is known.
fn source(client: SocketAddr, local: SocketAddr) -> SocketAddr {
    if client.ip().is_unspecified() { local } else { client }
}

/// A visitor of a tunnel (sections 1.3 and 2.5).
async fn tunnel(
    mut stream: BoxStream,
    id: Uuid,
    auth: Option<&Auth>,
    wanted: Wanted<'_>,
    limit: Duration,
) -> Result<BoxStream, Failed> {
    let tunnel = TunnelFeature { id, flags: 0, weight: 0 };
    let source = source(wanted.client, wanted.local);
    let rest = [Feature::addr(&source.into()), Feature::addr(wanted.target), Feature::Tunnel(tunnel)];
    write_message(&mut stream, &request(wanted.udp, auth, rest)?, limit).await?;
    let mut buf = BytesMut::new();
    let reply = read_message(&mut stream, &mut buf, limit, relay::Response::decode).await?;
    answer(reply.status, tunnel_advice(reply.status))?;
    Ok(if buf.is_empty() { stream } else { Box::new(Prefixed::new(buf.freeze(), stream)) })
}

/// The answer may come only with the first bytes of the target (section 1.5), so it is not waited for.
async fn relay(
    mut stream: BoxStream,
    auth: Option<&Auth>,
    wanted: Wanted<'_>,
    limit: Duration,
) -> Result<BoxStream, Failed> {
    let request = request(wanted.udp, auth, [Feature::addr(wanted.target)])?;
    write_message(&mut stream, &request, limit).await?;
    Ok(stream)
}

/// A CONNECT, its features in the order in which GOST writes them (section 1.3).
fn request(
    udp: bool,
    auth: Option<&Auth>,
    rest: impl IntoIterator<Item = Feature>,
) -> Result<BytesMut, relay::EncodeError> {
    let network = udp.then_some(Feature::UDP);
    let features = network.into_iter().chain(auth.map(Auth::feature)).chain(rest).collect();
    let mut message = BytesMut::new();
    relay::Request { command: Command::Connect, udp, features }.encode(&mut message)?;
    Ok(message)
}

impl Auth {
    /// As the relay protocol writes it.
    pub(crate) fn feature(&self) -> Feature {
        let (username, password) = (self.username.clone().into_bytes(), self.password.clone().into_bytes());
        Feature::Auth { username, password }
    }
}

/// What a status says of the server and of the target.
pub(super) fn answer(status: Status, advice: &str) -> Result<(), Failed> {
    match status {
        Status::Ok => Ok(()),
        Status::Unauthorized => {
            Err(Failed::Broken("wrong user name or password: mend connector.auth".to_owned()))
        }
        Status::BadRequest => Err(Failed::Broken(format!("the server refuses: {status:?}{advice}"))),
        _ => Err(Failed::Refused(format!("the server refuses: {status:?}{advice}"))),
    }
}

/// Who is to blame for what a relay server says. It cannot be asked through another server any more, so one whose own forwarder is
/// down counts as down itself.
pub(super) fn relay_answer(status: Status) -> Result<(), Failed> {
    match status {
        Status::HostUnreachable => Err(Failed::Broken(format!(
            "the server refuses: {status:?} (the nodes of its forwarder are down)"
        ))),
        Status::ServiceUnavailable => answer(status, " (no node of its forwarder takes this target)"),
        Status::NetworkUnreachable => answer(status, " (it cannot connect to the target)"),
        _ => answer(status, ""),
    }
}

fn tunnel_advice(status: Status) -> &'static str {
    match status {
        Status::ServiceUnavailable => " (no connector of the tunnel is there)",
        Status::HostUnreachable => " (its ingress does not lead this host to tunnel.id)",
        Status::NetworkUnreachable => " (its ingress knows no such host)",
        _ => "",
    }
}
