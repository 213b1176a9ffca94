//! A UDP port: one flow for each peer.

use super::Flow;
use super::flows::{Flows, Settings, Sink};
use super::socket::poll_read;
use crate::addr::HostPort;
use crate::net::listen::{BindError, bind_udp, canonical};
use socket2::SockRef;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
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
        let (socket, local) = bind(addr).await?;
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

/// Opens a port, and tells which; an empty host is every address, IPv4 and IPv6.
pub async fn bind(addr: &HostPort) -> Result<(UdpSocket, SocketAddr), BindError> {
    let error = |source| BindError::new(addr, source);
    let socket = bind_udp(addr).await?;
    // A wish: a smaller buffer loses more in a burst, and nothing else.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    let local = socket.local_addr().map_err(error)?;
    Ok((UdpSocket::from_std(socket).map_err(error)?, local))
}
