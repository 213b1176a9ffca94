//! The handler `relay` (section 5): connects clients on, and opens a port for each that asks, whose visitors are handed over as
//! streams, or as datagrams.

mod association;

use super::gate::{Gate, auth, in_time, while_allowed};
use super::server::{encode, pipe_limits, reply};
use crate::addr::{Host, HostPort};
use crate::auth::Login;
use crate::forward::{Forward, route_of};
use crate::handshake::read_message;
use crate::http::failure::Failure;
use crate::mux;
use crate::net::listen::{self, Listener, Permit};
use crate::net::udp::framed::Framed;
use crate::net::udp::{BoxDatagrams, flows, port};
use crate::net::{BoxStream, Conn, pipe};
use crate::record::Record;
use crate::route::hop::Active;
use crate::route::{self, Protocol};
use crate::shutdown::Shutdown;
use crate::wire::relay::{Command, Feature, Request, Status};
use association::Association;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::{debug, info};

/// `handler: relay`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `bind`: without it BIND is refused with status 3.
    pub bind: bool,
    /// For a whole relay request.
    pub handshake_timeout: Duration,
    /// Bounds of each port that a client opens (its address comes from the request).
    pub listen: listen::Settings,
    /// `ttl` and bounds of each UDP port that a client opens.
    pub flows: flows::Settings,
    /// One side ended, the other silent.
    pub half_close_timeout: Duration,
    /// Both sides silent; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// `mux.*`.
    pub mux: mux::Settings,
}

/// The relay port of one service.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) service: String,
    pub(crate) settings: Settings,
    pub(crate) targets: Targets,
    pub(crate) gate: Gate,
    pub(crate) shutdown: Shutdown,
}

/// Where clients are connected to.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) forward: Forward,
    /// Whether they are the nodes of a forwarder; else they are what a client names.
    pub(crate) fixed: bool,
}

impl Server {
    /// Serves one client until its session ends.
    pub(crate) async fn serve(&self, mut conn: Conn, mut permit: Permit) {
        let record = Record::new(&self.service, conn.client, Instant::now());
        let limit = self.settings.handshake_timeout;
        let mut buf = BytesMut::from(conn.prefix.split_off(0));
        let request = match read_message(&mut conn.stream, &mut buf, limit, Request::decode).await {
            Ok(request) => request,
            Err(error) => return record.failed("bad_handshake", &error).connection(),
        };
        conn.prefix = buf.freeze();
        let auth = auth(&request);
        let login = match in_time(self.gate.login(auth, conn.client), auth, limit).await {
            Ok(login) => login,
            Err(denied) => {
                record.failed("unauthorized", &denied).connection();
                return self.tell(&mut conn, denied.status).await;
            }
        };
        permit.established();
        let refused = match request.command {
            Command::Bind if self.settings.bind => match request.address().and_then(|addr| addr.to_bind()) {
                Some(addr) if request.is_udp() => {
                    record.discard();
                    return self.bind_udp(conn, addr, login).await;
                }
                Some(addr) => {
                    record.discard();
                    return self.bind(conn, addr, login).await;
                }
                None => Status::BadRequest,
            },
            Command::Connect => {
                return while_allowed(login.as_ref(), self.connect(conn, &request, record)).await;
            }
            Command::Bind => Status::Forbidden,
            Command::Other(_) => Status::BadRequest,
        };
        record.failed("refused", format_args!("{:?}: {refused:?}", request.command)).connection();
        self.tell(&mut conn, refused).await;
    }

    async fn connect(&self, mut conn: Conn, asked: &Request, record: Record<'_>) {
        let (forward, limit) = (&self.targets.forward, self.settings.handshake_timeout);
        let wanted = asked.address().and_then(|addr| addr.to_host_port());
        let (hostname, port) = match wanted {
            Some(addr) => (addr.host, addr.port),
            None if self.targets.fixed => (Host::empty(), 0),
            None => {
                record.failed("refused", "CONNECT without an address").connection();
                return self.tell(&mut conn, Status::BadRequest).await;
            }
        };
        let protocol = if asked.is_udp() { Protocol::Udp } else { Protocol::Tcp };
        let record = record.host(&hostname).protocol(protocol);
        let request = route::Request {
            hostname,
            protocol,
            client: conn.client,
            service: &self.service,
            http: None,
            extra: forward.extra(None),
        };
        let mut node = None;
        let reached = if asked.is_udp() {
            forward.reach_datagrams(&request, port, &mut node).await.map(End::Datagrams)
        } else {
            forward.reach_once(&request, port, conn.local, &mut node).await.map(End::Stream)
        };
        let record = record.route(route_of(node.as_deref(), None));
        let target = match reached {
            Ok(target) => target,
            Err(failure) => {
                record.failed(failure.outcome(), &failure).connection();
                return self.tell(&mut conn, self.targets.status(&failure)).await;
            }
        };
        if let Err(error) = reply(&mut conn, Status::Ok, Vec::new(), limit).await {
            return record.failed("visitor_failed", &error).connection();
        }
        match target {
            End::Stream(target) => {
                let _active = node.as_ref().map(Active::new);
                let visitor = pipe::Side::new(conn.stream, conn.prefix);
                record.pipe(visitor, target.into(), forward.port.pipe, 0).await;
            }
            End::Datagrams(target) => {
                let visitor = Box::new(Framed::new(conn.stream, conn.prefix));
                let silence = forward.silence(None, protocol);
                forward.judge(node.as_ref(), record.exchange(visitor, target, Vec::new(), silence)).await;
            }
        }
    }

    async fn tell(&self, conn: &mut Conn, status: Status) {
        if let Err(error) = reply(conn, status, Vec::new(), self.settings.handshake_timeout).await {
            debug!(service = self.service, %error, "handshake");
        }
    }

    async fn bind(&self, mut conn: Conn, addr: HostPort, login: Option<Login>) {
        let limit = self.settings.handshake_timeout;
        let listener = match Listener::bind(&listen::Settings { addr, ..self.settings.listen.clone() }).await
        {
            Ok(listener) => listener,
            Err(error) => {
                info!(service = self.service, client = %conn.client, %error, "bind refused");
                return drop(reply(&mut conn, Status::ServiceUnavailable, Vec::new(), limit).await);
            }
        };
        let addr = listener.local_addr();
        if let Err(error) = reply(&mut conn, Status::Ok, vec![Feature::addr(&addr.into())], limit).await {
            return debug!(service = self.service, %error, "handshake");
        }
        let user = login.as_ref().map(|login| &*login.user);
        info!(service = self.service, client = %conn.client, %addr, user, "port opened");
        let (session, mut incoming, driver) =
            mux::start(conn.stream, conn.prefix, mux::Role::Client, &self.settings.mux);
        let refuse = async { while incoming.accept().await.is_some() {} };
        let accept = async {
            tokio::select! {
                () = self.accept(listener, &session) => {}
                () = self.shutdown.stop.cancelled() => {}
                _ = session.closed() => {}
            }
        };
        let revoke = async {
            while_allowed(login.as_ref(), async { drop(session.closed().await) }).await;
            session.close();
        };
        tokio::join!(mux::drive(driver), refuse, accept, session.drain(&self.shutdown), revoke);
        info!(service = self.service, client = %conn.client, %addr, "port closed");
    }

    /// A UDP port, the connection its only way in and out. A client whose targets others choose, or the way to them, gets no way
    /// around these: it answers those that have sent something.
    async fn bind_udp(&self, mut conn: Conn, addr: HostPort, login: Option<Login>) {
        let limit = self.settings.handshake_timeout;
        let (socket, addr) = match port::bind(&addr).await {
            Ok(opened) => opened,
            Err(error) => {
                info!(service = self.service, client = %conn.client, %addr, %error, "bind refused");
                return drop(reply(&mut conn, Status::ServiceUnavailable, Vec::new(), limit).await);
            }
        };
        if let Err(error) = reply(&mut conn, Status::Ok, vec![Feature::addr(&addr.into())], limit).await {
            return debug!(service = self.service, %error, "handshake");
        }
        let (user, client) = (login.as_ref().map(|login| &*login.user), conn.client);
        info!(service = self.service, %client, %addr, user, network = "udp", "port opened");
        let everywhere = !self.targets.fixed && self.targets.forward.chain.is_straight();
        let association =
            Association::new(&self.service, &self.settings.flows, socket, everywhere, &self.shutdown);
        while_allowed(login.as_ref(), association.run(conn)).await;
        info!(service = self.service, %client, %addr, network = "udp", "port closed");
    }

    async fn accept(&self, mut listener: Listener, session: &mux::Session) {
        loop {
            let (stream, peer, mut permit) = listener.accept().await;
            permit.established();
            let limits = pipe_limits(self.settings.half_close_timeout, self.settings.idle_timeout);
            let visitor = visit(self.service.clone(), session.clone(), stream, peer, limits);
            self.shutdown.spawn_connection(async move {
                visitor.await;
                drop(permit);
            });
        }
    }
}

/// What a client was connected to.
enum End {
    Stream(BoxStream),
    Datagrams(BoxDatagrams),
}

impl Targets {
    /// What a client is told of a failure (section 5).
    fn status(&self, failure: &Failure) -> Status {
        match failure {
            Failure::NoRoute(_) | Failure::Exhausted(_) => Status::ServiceUnavailable,
            Failure::Refused(..) => Status::Forbidden,
            Failure::Routing(_) => Status::InternalError,
            _ if self.fixed => Status::HostUnreachable,
            _ => Status::NetworkUnreachable,
        }
    }
}

/// Pipes one visitor through a new stream, whose header names the visitor only (section 1.3).
async fn visit(
    service: String,
    session: mux::Session,
    stream: TcpStream,
    peer: SocketAddr,
    limits: pipe::Limits,
) {
    let record = Record::new(&service, peer, Instant::now());
    let header = encode(Status::Ok, vec![Feature::addr(&peer.into())]).map_err(|e| e.to_string());
    let target = match header.and_then(|header| session.open(header).map_err(|e| e.to_string())) {
        Ok(target) => target,
        Err(error) => return record.failed("no_connector", error).connection(),
    };
    let visitor = pipe::Side { stream: Box::new(stream), prefix: Bytes::new() };
    let target = pipe::Side { stream: Box::new(target), prefix: Bytes::new() };
    record.pipe(visitor, target, limits, 0).await;
}
