//! A UDP socket with one peer.

use super::Datagrams;
use crate::addr::HostPort;
use crate::net::dial::DialError;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{Interest, ReadBuf};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;
use tokio_util::sync::ReusableBoxFuture;

/// The longest datagram there can be; a socket that is read into less cuts what is longer.
pub(super) const MAX_DATAGRAM: usize = 65_535;

thread_local! {
    /// What sockets are read into, before a datagram gets a buffer of its own size.
    static SCRATCH: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; MAX_DATAGRAM].into());
}

/// A socket that sends to one address, and takes nothing from others.
#[derive(Debug)]
pub struct Connected {
    socket: Arc<UdpSocket>,
    /// Ready when an error has come: the runtime does not wake a reader for it.
    error: ReusableBoxFuture<'static, ()>,
}

impl Connected {
    /// A socket for `target`, whose name is resolved in `limit`. Nothing is sent: whether anybody is there is not known.
    pub async fn dial(target: &HostPort, limit: Duration) -> Result<Self, DialError> {
        let failed = |error| DialError::Connect(target.clone(), error);
        if let Some(addr) = target.socket_addr() {
            return connect(addr).await.map(Self::new).map_err(failed);
        }
        let found = timeout(limit, lookup_host((target.host.as_str(), target.port))).await;
        let found = found.map_err(|_| DialError::Timeout(target.clone(), limit))?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for addr in found.map_err(|error| DialError::Resolve(target.clone(), error))? {
            match connect(addr).await {
                Ok(socket) => return Ok(Self::new(socket)),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn new(socket: UdpSocket) -> Self {
        let socket = Arc::new(socket);
        Self { error: ReusableBoxFuture::new(error(Arc::clone(&socket))), socket }
    }

    /// Ready with what a router or the peer's own system said of an earlier datagram.
    fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.error.poll(cx));
            // There may be more to come; the error itself is taken here.
            let cleared = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.socket.try_io(Interest::ERROR, cleared);
            self.error.set(error(Arc::clone(&self.socket)));
            match self.socket.take_error() {
                Ok(Some(error)) | Err(error) => return Poll::Ready(error),
                Ok(None) => {}
            }
        }
    }
}

async fn error(socket: Arc<UdpSocket>) {
    // That it cannot be waited for is an error that the reader gets, too.
    let _ = socket.ready(Interest::ERROR).await;
}

async fn connect(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    Ok(socket)
}

/// Reads one datagram by `read`, and copies it into a buffer of its own size: it may wait in a queue.
pub(super) fn poll_read<T>(
    mut read: impl FnMut(&mut ReadBuf<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<(Bytes, T)>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        let from = ready!(read(&mut buf))?;
        Poll::Ready(Ok((BytesMut::from(buf.filled()).freeze(), from)))
    })
}

/// Whether an error is about one datagram, or about what may pass: the socket itself is as good as before. Nobody listening
/// at a connected socket's peer is not among these.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, PermissionDenied};
    const EMSGSIZE: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
    const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
    matches!(error.kind(), HostUnreachable | NetworkDown | NetworkUnreachable | PermissionDenied)
        || matches!(error.raw_os_error(), Some(EMSGSIZE | ENOBUFS))
}

impl Datagrams for Connected {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let error = match poll_read(|buf| self.socket.poll_recv(cx, buf)) {
                Poll::Ready(Ok((datagram, ()))) => return Poll::Ready(Ok(Some(datagram))),
                Poll::Ready(Err(error)) => error,
                Poll::Pending => ready!(self.poll_error(cx)),
            };
            if !is_passing(&error) {
                return Poll::Ready(Err(error));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &Bytes) -> Poll<io::Result<()>> {
        match ready!(self.socket.poll_send(cx, datagram)) {
            Err(error) if !is_passing(&error) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
