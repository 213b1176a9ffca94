//! The UDP socket of a connection that goes out, which hears when nobody is there.

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// A socket that is connected, so that the kernel tells of ports that nobody listens on. That ends a handshake. Later it is a
/// reason to begin anew and none to end what there is, for whoever is on the way could say so. Other failures are what QUIC
/// sends again for.
#[derive(Debug)]
pub(super) struct Connected {
    socket: UdpSocket,
    state: UdpSocketState,
    refused: CancellationToken,
}

impl Connected {
    pub(super) fn new(to: SocketAddr) -> io::Result<Arc<Self>> {
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(to)?;
        // Which makes it one that does not block.
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Self { socket: UdpSocket::from_std(socket)?, state, refused: CancellationToken::new() }))
    }

    /// Ends when the other machine says that there is nobody.
    pub(super) async fn refused(&self) -> io::Error {
        self.refused.cancelled().await;
        ErrorKind::ConnectionRefused.into()
    }

    /// Whether it has said so.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_cancelled()
    }

    fn failed(&self, error: &io::Error) {
        if error.kind() == ErrorKind::ConnectionRefused {
            self.refused.cancel();
        }
    }
}

impl AsyncUdpSocket for Connected {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = || self.state.try_send((&self.socket).into(), transmit);
        match self.socket.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.failed(&error);
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let receive = || self.state.recv((&self.socket).into(), bufs, meta);
            match self.socket.try_io(Interest::READABLE, receive) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => self.failed(&error),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits for room in the socket; there is one connection, and so one that waits.
#[derive(Debug)]
struct Writable(Arc<Connected>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.socket.poll_send_ready(cx)
    }
}
