//! A UDP port: one flow for each peer.

use super::Flow;
use super::flows::{Flows, Settings, Sink};
use super::socket::poll_read;
use crate::addr::HostPort;
use crate::net::listen::{BindError, canonical};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::sleep;

/// What the kernel is asked to hold for the port while it is not read; it may grant less.
const RECEIVE_BUFFER: usize = 1024 * 1024;
/// Between two tries to read a socket that cannot be read.
const BACKOFF: Duration = Duration::from_millis(20);

/// An open port.
#[derive(Debug)]
pub struct Port {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    flows: Flows,
}

impl Port {
    /// Opens the port; an empty host is every address, IPv4 and IPv6.
    pub async fn bind(addr: &HostPort, settings: Settings) -> Result<Self, BindError> {
        let error = |source| BindError::new(addr, source);
        let socket = bind(addr).await.map_err(error)?;
        let local = socket.local_addr().map_err(error)?;
        Ok(Self { socket: Arc::new(socket), local, flows: Flows::new(settings) })
    }

    /// The address that was bound, with the port that the kernel chose for 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next flow that begins. Datagrams of those that there are, are delivered meanwhile, and only then.
    pub async fn accept(&mut self) -> Flow {
        loop {
            if let Some(flow) = self.read(true).await {
                return flow;
            }
        }
    }

    /// Goes on delivering until there are no flows, and lets none begin.
    pub async fn drain(&mut self) {
        /// How often is looked whether the last one has gone: nothing else tells.
        const LOOK: Duration = Duration::from_millis(50);
        while !self.flows.is_empty() {
            tokio::select! {
                _ = self.read(false) => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn read(&mut self, new: bool) -> Option<Flow> {
        let socket = &self.socket;
        let read = poll_fn(|cx| poll_read(|buf| socket.poll_recv_from(cx, buf))).await;
        let Ok((datagram, from)) = read else {
            sleep(BACKOFF).await;
            return None;
        };
        let sink = || Sink::Socket(Arc::clone(socket));
        let flow = self.flows.deliver(from, datagram, new, sink)?;
        Some(Flow {
            datagrams: Box::new(flow),
            client: canonical(from),
            local: self.local,
            ttl: Some(self.flows.ttl()),
            via: None,
        })
    }
}

/// Opens a port; an empty host is every address, IPv4 and IPv6.
pub async fn bind(addr: &HostPort) -> io::Result<UdpSocket> {
    if addr.host.is_empty() {
        let port = addr.port;
        return open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
            .or_else(|_| open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)));
    }
    if let Some(addr) = addr.socket_addr() {
        return open(addr);
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in lookup_host((addr.host.as_str(), addr.port)).await? {
        match open(addr) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // A wish: a smaller buffer loses more in a burst, and nothing else.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}
