//! Listening ports: bounds on what is open, and recovery when descriptors run out.
//!
//! [`Listener::accept`] hands out sockets with a [`Permit`]; whoever serves the connection keeps the permit and drops it
//! at the end. Who the peer is and what it wants is for later stages.

use super::probation::{Candidate, Probation};
use crate::addr::HostPort;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tracing::warn;

/// A public or tunnel port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; an empty host is every address, IPv4 and IPv6.
    pub addr: HostPort,
    /// `maxConnections`: connections open at once; more are closed at accept.
    pub max_connections: usize,
    /// `maxHandshakes`: connections that have not said yet what they want; more are closed at accept.
    pub max_handshakes: usize,
    /// `proxyProtocol`: a PROXY header may stand in front of everything else, and says who the visitor is.
    pub proxy_protocol: bool,
}

impl Settings {
    /// The default bounds for a port.
    pub fn new(addr: HostPort) -> Self {
        Self { addr, max_connections: 20_000, max_handshakes: 4_096, proxy_protocol: false }
    }
}

/// Waits between tries when accepting fails for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// Descriptors held back for turning connections away. More than one, for whoever connects to a target at that moment may be
/// quicker to take what was given up.
const SPARES: usize = 4;

/// Connections closed one after another before the spare descriptor is taken back.
const MAX_SHED: usize = 64;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// A peer that vanished without a word is noticed by the kernel after about two minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// At most one line a second tells of connections that were turned away.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}{}", advice(source))]
pub struct BindError {
    addr: HostPort,
    source: io::Error,
}

impl BindError {
    pub(super) fn new(addr: &HostPort, source: io::Error) -> Self {
        Self { addr: addr.clone(), source }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has this port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// The right to one connection; dropping it makes room for another.
#[derive(Debug)]
pub struct Permit {
    _connection: OwnedSemaphorePermit,
    handshake: Option<OwnedSemaphorePermit>,
    /// Of a stream on a connection that was not let in yet.
    candidate: Option<Candidate>,
}

impl Permit {
    /// The peer has said what it wants, and may have it: it no longer counts as an unfinished handshake.
    pub fn established(&mut self) {
        self.handshake = None;
        if let Some(candidate) = self.candidate.take() {
            candidate.let_in();
        }
    }
}

/// The rights to connections that one port gives away. Clones stand for the same ones.
#[derive(Debug, Clone)]
pub struct Permits {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    max_handshakes: usize,
}

impl Permits {
    /// All of one port.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(settings.max_connections)),
            handshakes: Arc::new(Semaphore::new(settings.max_handshakes)),
            max_handshakes: settings.max_handshakes,
        }
    }

    /// Whether more than half of the handshakes that there may be are unfinished.
    pub(crate) fn is_busy(&self) -> bool {
        self.handshakes.available_permits() < self.max_handshakes.div_ceil(2)
    }

    /// One, or the setting that has been reached.
    pub fn take(&self) -> Result<Permit, &'static str> {
        let connection = Arc::clone(&self.connections).try_acquire_owned().map_err(|_| "maxConnections")?;
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned().map_err(|_| "maxHandshakes")?;
        Ok(Permit { _connection: connection, handshake: Some(handshake), candidate: None })
    }

    /// One for a stream: when it is established, the connection below it is let in.
    pub fn take_on(&self, connection: &Probation) -> Result<Permit, &'static str> {
        let candidate = connection.candidate();
        Ok(Permit { candidate, ..self.take()? })
    }
}

/// An open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    proxy_protocol: bool,
    permits: Permits,
    /// One is given up for a moment when there are no descriptors left, to accept and close what is waiting.
    spares: Vec<OwnedFd>,
    warned: Option<Instant>,
}

impl Listener {
    /// Opens the port.
    pub async fn bind(settings: &Settings) -> Result<Self, BindError> {
        let error = |source| BindError::new(&settings.addr, source);
        let socket = bind(&settings.addr, listen).await.map_err(error)?;
        let mut listener = Self {
            local: socket.local_addr().map_err(error)?,
            socket,
            proxy_protocol: settings.proxy_protocol,
            permits: Permits::new(settings),
            spares: Vec::new(),
            warned: None,
        };
        listener.refill().map_err(error)?;
        Ok(listener)
    }

    /// The address that was bound, with the port that the kernel chose for 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether a PROXY header may stand in front of what visitors say.
    pub fn proxy_protocol(&self) -> bool {
        self.proxy_protocol
    }

    /// What its connections are counted by.
    pub fn permits(&self) -> &Permits {
        &self.permits
    }

    /// The next connection that there is room for.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr, Permit) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) if self.refill().is_err() => {
                    // The first descriptors that come back are for turning others away.
                    drop(stream);
                    let _ = self.refill();
                }
                Ok((stream, peer)) => match self.permits.take() {
                    Ok(permit) => {
                        // Elsewhere than on Linux they are not all inherited.
                        if !cfg!(target_os = "linux") {
                            tune(&stream);
                        }
                        return (stream, canonical(peer), permit);
                    }
                    Err(setting) => self.warn(format_args!("connection closed at accept: {setting} reached")),
                },
                Err(error) if out_of_resources(&error) => {
                    self.warn(format_args!("cannot accept: {error}"));
                    self.shed().await;
                }
                // The peer went away before it was accepted.
                Err(_) => {}
            }
        }
    }

    /// Out of descriptors: closes the connections that wait now by way of a spare one, then lets others give theirs back.
    async fn shed(&mut self) {
        if self.spares.pop().is_some() {
            for _ in 0..MAX_SHED {
                let waiting = poll_fn(|cx| Poll::Ready(self.socket.poll_accept(cx))).await;
                if !matches!(waiting, Poll::Ready(Ok(_))) {
                    break;
                }
            }
        }
        sleep(ACCEPT_BACKOFF).await;
        // What cannot be had now is had when the next connection is accepted.
        let _ = self.refill();
    }

    fn refill(&mut self) -> io::Result<()> {
        while self.spares.len() < SPARES {
            self.spares.push(self.socket.as_fd().try_clone_to_owned()?);
        }
        Ok(())
    }

    fn warn(&mut self, what: std::fmt::Arguments<'_>) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            warn!(addr = %self.local, "{what}");
        }
    }
}

pub(super) fn out_of_resources(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS))
}

/// Small writes go out at once, and a vanished peer is noticed.
pub(super) fn tune(stream: &impl AsFd) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    // A socket that refuses options is already dead, and the first read says so.
    drop(socket.set_tcp_nodelay(true));
    drop(socket.set_tcp_keepalive(&keepalive));
}

/// An IPv4 address as such, where a socket for both families gives it as one of IPv6.
pub(crate) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Binds a UDP port; it does not block.
pub(crate) async fn bind_udp(addr: &HostPort) -> Result<std::net::UdpSocket, BindError> {
    let bound = bind(addr, |addr| Ok(socket(addr, Type::DGRAM)?.into())).await;
    bound.map_err(|source| BindError::new(addr, source))
}

async fn bind<T>(addr: &HostPort, listen: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    if addr.host.is_empty() {
        let port = addr.port;
        return listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
            .or_else(|_| listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
    }
    if let Some(addr) = addr.socket_addr() {
        return listen(addr);
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in lookup_host((addr.host.as_str(), addr.port)).await? {
        match listen(addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr, Type::STREAM)?;
    // What is accepted has the options of the port.
    tune(&socket);
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Bound, of both families where that is asked for.
fn socket(addr: SocketAddr, kind: Type) -> io::Result<Socket> {
    let stream = kind == Type::STREAM;
    let protocol = if stream { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking(), Some(protocol))?;
    // Of datagrams, two sockets would share a port in this way.
    socket.set_reuse_address(stream)?;
    if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn any_port() -> Settings {
        Settings::new(HostPort::parse("127.0.0.1:0", 0).unwrap())
    }

    #[tokio::test]
    async fn bounds_close_what_is_too_much() {
        let settings = Settings { max_connections: 2, max_handshakes: 1, ..any_port() };
        let mut listener = Listener::bind(&settings).await.unwrap();
        let addr = listener.local_addr();
        let serve = tokio::spawn(async move {
            let (first, _, mut permit) = listener.accept().await;
            permit.established();
            let (second, _, second_permit) = listener.accept().await;
            drop((first, permit));
            // The second still counts as a handshake: the third is closed, and the fourth taken once it has left.
            let third = tokio::time::timeout(Duration::from_secs(5), listener.accept());
            tokio::select! { _ = third => panic!("accepted beyond maxHandshakes"), () = closed(addr) => {} }
            drop((second, second_permit));
            listener.accept().await.1
        });
        let _first = TcpStream::connect(addr).await.unwrap();
        let _second = TcpStream::connect(addr).await.unwrap();
        let mut last = Vec::new();
        while !serve.is_finished() {
            last.push(TcpStream::connect(addr).await.unwrap());
            tokio::task::yield_now().await;
        }
        assert!(serve.await.unwrap().ip().is_loopback());
    }

    async fn closed(addr: SocketAddr) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = Listener::bind(&any_port()).await.unwrap();
        let addr = HostPort::from(first.local_addr());
        let error = Listener::bind(&Settings::new(addr.clone())).await.unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("another program"), "{error}");
    }
}
