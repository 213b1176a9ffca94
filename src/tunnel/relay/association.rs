//! BIND for UDP: a port whose datagrams go to a client and back in form B (section 1.4), each with the address of its peer.
//!
//! The connection is the association: with it the port is closed. Peers are counted and forgotten one by one, each with a
//! line in the log. Unless the client may go everywhere, it can answer only those that have sent something.

use crate::addr::HostPort;
use crate::net::Conn;
use crate::net::listen::canonical;
use crate::net::udp::flows;
use crate::record::{Moved, Record};
use crate::route::Protocol;
use crate::shutdown::Shutdown;
use crate::wire::relay::RelayAddr;
use crate::wire::relay::datagram::{put_addressed, take_addressed};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{debug, warn};

/// A client that takes nothing for so long is left.
const STALL: Duration = Duration::from_secs(30);
/// For the address of a name; the client's other datagrams wait as long.
const LOOKUP: Duration = Duration::from_secs(5);
/// Names whose addresses are remembered. Without a bound a client could make us remember any number.
const MAX_NAMES: usize = 256;
/// Between two tries to read a port that cannot be read.
const BACKOFF: Duration = Duration::from_millis(20);
/// At most one line a second tells of peers that there was no room for.
const WARN_EVERY: Duration = Duration::from_secs(1);
/// Read from the connection at once.
const READ_SIZE: usize = 4096;
/// The longest datagram there is.
const MAX_DATAGRAM: usize = 65_535;

/// One client's port.
#[derive(Debug)]
pub(super) struct Association<'a> {
    service: &'a str,
    settings: &'a flows::Settings,
    socket: UdpSocket,
    /// Whether datagrams may go to addresses from which none has come.
    everywhere: bool,
    shutdown: &'a Shutdown,
    peers: Mutex<Peers<'a>>,
}

#[derive(Debug, Default)]
struct Peers<'a> {
    known: HashMap<SocketAddr, Peer<'a>>,
    warned: Option<Instant>,
}

#[derive(Debug)]
struct Peer<'a> {
    record: Record<'a>,
    last: Instant,
}

impl<'a> Association<'a> {
    pub(super) fn new(
        service: &'a str,
        settings: &'a flows::Settings,
        socket: UdpSocket,
        everywhere: bool,
        shutdown: &'a Shutdown,
    ) -> Self {
        Self { service, settings, socket, everywhere, shutdown, peers: Mutex::default() }
    }

    /// Moves datagrams until the client leaves, or the process stops and nobody is left.
    pub(super) async fn run(self, conn: Conn) {
        let client = conn.client;
        let (read, write) = tokio::io::split(conn.stream);
        let end = tokio::select! {
            end = self.to_client(write) => end,
            end = self.to_peers(read, conn.prefix) => end,
            () = self.expire() => Ok(()),
        };
        if let Err(error) = end {
            debug!(service = self.service, %client, %error, "association");
        }
        let peers = self.peers.into_inner().unwrap_or_else(PoisonError::into_inner);
        peers.known.into_values().for_each(|peer| peer.record.connection());
    }

    /// What peers send, to the client.
    async fn to_client(&self, mut client: impl AsyncWrite + Unpin) -> io::Result<()> {
        let (mut buf, mut frame) = (vec![0; MAX_DATAGRAM], BytesMut::new());
        loop {
            let Ok((len, from)) = self.socket.recv_from(&mut buf).await else {
                sleep(BACKOFF).await;
                continue;
            };
            let (peer, datagram) = (canonical(from), &buf[..len]);
            let known = self.touch(peer, true, |moved| moved.bytes_in += len as u64);
            // What does not fit a frame is lost.
            if known && put_addressed(&RelayAddr::from(&peer.into()), datagram, &mut frame).is_ok() {
                let write = async {
                    client.write_all(&frame).await?;
                    client.flush().await
                };
                timeout(STALL, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                frame.clear();
            }
        }
    }

    /// What the client sends, to peers.
    async fn to_peers(&self, mut client: impl AsyncRead + Unpin, prefix: Bytes) -> io::Result<()> {
        let mut names = Names::default();
        let mut buf = BytesMut::from(prefix);
        loop {
            let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            while let Some((to, datagram)) = take_addressed(&mut buf).map_err(malformed)? {
                let Some(peer) = names.resolve(to.to_host_port()).await else { continue };
                let count = |moved: &mut Moved| moved.bytes_out += datagram.len() as u64;
                if self.touch(peer, self.everywhere, count) {
                    // That one datagram cannot be sent says nothing of the next.
                    let _ = self.socket.send_to(&datagram, self.family(peer)).await;
                }
            }
            buf.reserve(READ_SIZE);
            if client.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Forgets peers that have been silent for too long; ends when the process stops and there are none.
    async fn expire(&self) {
        let ttl = self.settings.ttl;
        let mut look = interval((ttl / 2).clamp(Duration::from_millis(10), Duration::from_secs(1)));
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = self.shutdown.stop.cancelled(), if !self.shutdown.stop.is_cancelled() => {}
            }
            let mut peers = self.peers();
            for (_, peer) in peers.known.extract_if(|_, peer| peer.last.elapsed() >= ttl) {
                peer.record.connection();
            }
            if self.shutdown.stop.is_cancelled() && peers.known.is_empty() {
                return;
            }
        }
    }

    /// Counts a datagram of that peer; `false`: it is not known, and may not become so.
    fn touch(&self, peer: SocketAddr, may_be_new: bool, count: impl FnOnce(&mut Moved)) -> bool {
        let mut peers = self.peers();
        if !peers.known.contains_key(&peer) {
            if !may_be_new || self.shutdown.stop.is_cancelled() {
                return false;
            }
            if peers.known.len() >= self.settings.max_flows {
                peers.warn(self.service, self.settings.max_flows);
                return false;
            }
            let record = Record::new(self.service, peer, Instant::now()).protocol(Protocol::Udp);
            peers.known.insert(peer, Peer { record, last: Instant::now() });
        }
        if let Some(peer) = peers.known.get_mut(&peer) {
            peer.last = Instant::now();
            count(peer.record.moved());
        }
        true
    }

    fn peers(&self) -> MutexGuard<'_, Peers<'a>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address as the socket takes it: one for both families knows IPv4 only as a part of IPv6.
    fn family(&self, peer: SocketAddr) -> SocketAddr {
        match (self.socket.local_addr(), peer.ip()) {
            (Ok(SocketAddr::V6(_)), IpAddr::V4(ip)) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), peer.port())
            }
            _ => peer,
        }
    }
}

impl Peers<'_> {
    fn warn(&mut self, service: &str, max: usize) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            warn!(service, max, "datagrams of new peers are dropped: maxConnections reached");
        }
    }
}

/// Addresses of the names that the client uses.
#[derive(Debug, Default)]
struct Names(HashMap<HostPort, Option<SocketAddr>>);

impl Names {
    /// The address of a peer; `None`: it has none, or is none.
    async fn resolve(&mut self, peer: Option<HostPort>) -> Option<SocketAddr> {
        let peer = peer.filter(|peer| !peer.host.is_empty())?;
        if let Some(addr) = peer.socket_addr() {
            return Some(canonical(addr));
        }
        if let Some(addr) = self.0.get(&peer) {
            return *addr;
        }
        let found = timeout(LOOKUP, lookup_host((peer.host.as_str(), peer.port))).await;
        let addr = found.ok().and_then(Result::ok).and_then(|mut addrs| addrs.next()).map(canonical);
        if self.0.len() >= MAX_NAMES {
            self.0.clear();
        }
        self.0.insert(peer, addr);
        addr
    }
}
