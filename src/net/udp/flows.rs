//! The flows of one port by their peers: bounded in number, in what waits for each, and in what waits for all.
//!
//! Whoever reads the port hands each datagram to [`Flows::deliver`]; a peer that is new begins a flow. Flows end when they are
//! dropped, and nothing of them is left. A queue that is full loses what comes, as a network does.

use super::Datagrams;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::PollSender;
use tracing::warn;

/// Bytes that wait for all flows of a port, each datagram with [`OVERHEAD`]: without it strangers could fill the queues of
/// thousands of flows.
const MAX_QUEUED: usize = 32 * 1024 * 1024;
/// What a datagram costs beside its bytes.
const OVERHEAD: usize = 128;
/// At most one line a second tells of flows that there was no room for.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// How many flows there may be, and how long they live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `ttl`: a flow that has been silent in both directions for so long is over.
    pub ttl: Duration,
    /// `keepalive`: without it a flow is over after its first answer.
    pub keepalive: bool,
    /// `maxConnections`: flows at once.
    pub max_flows: usize,
    /// `readQueueSize`: datagrams that wait for one flow.
    pub queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(5), keepalive: true, max_flows: 20_000, queue: 128 }
    }
}

/// The flows of one port.
#[derive(Debug)]
pub struct Flows {
    settings: Settings,
    table: Arc<Mutex<Table>>,
    /// What is left of [`MAX_QUEUED`].
    room: Arc<Semaphore>,
    warned: Option<Instant>,
}

/// By peer: which flow it has, and the way to it.
type Table = HashMap<SocketAddr, (u64, mpsc::Sender<Queued>)>;

/// A datagram that waits, and the room that it takes.
type Queued = (Bytes, OwnedSemaphorePermit);

/// How a flow answers its peer.
#[derive(Debug, Clone)]
pub enum Sink {
    /// From the port itself.
    Socket(Arc<UdpSocket>),
    /// By whoever has the port.
    Queue(PollSender<(SocketAddr, Bytes)>),
}

/// One peer of a port.
#[derive(Debug)]
pub struct PeerFlow {
    peer: SocketAddr,
    queue: mpsc::Receiver<Queued>,
    sink: Sink,
    keepalive: bool,
    over: bool,
    id: u64,
    table: Arc<Mutex<Table>>,
}

impl Flows {
    /// None yet.
    pub fn new(settings: Settings) -> Self {
        let room = Arc::new(Semaphore::new(MAX_QUEUED));
        Self { settings, table: Arc::default(), room, warned: None }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        lock(&self.table).is_empty()
    }

    /// `ttl`.
    pub fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// Hands a datagram to its peer's flow. A peer without one begins one, if `new` allows it and there is room; it answers
    /// by `sink`.
    pub fn deliver(
        &mut self,
        peer: SocketAddr,
        datagram: Bytes,
        new: bool,
        sink: impl FnOnce() -> Sink,
    ) -> Option<PeerFlow> {
        let size = u32::try_from(datagram.len() + OVERHEAD).ok()?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(size).ok()?;
        let mut table = lock(&self.table);
        let count = table.len();
        match table.entry(peer) {
            Entry::Occupied(mut entry) => match entry.get().1.try_send((datagram, room)) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => None,
                Err(mpsc::error::TrySendError::Closed(queued)) if new => {
                    let (flow, way) = self.flow(peer, queued, sink());
                    entry.insert(way);
                    Some(flow)
                }
                Err(mpsc::error::TrySendError::Closed(_)) => None,
            },
            Entry::Vacant(entry) if new && count < self.settings.max_flows => {
                let (flow, way) = self.flow(peer, (datagram, room), sink());
                entry.insert(way);
                Some(flow)
            }
            Entry::Vacant(_) => {
                drop(table);
                if new {
                    self.warn();
                }
                None
            }
        }
    }

    fn flow(&self, peer: SocketAddr, first: Queued, sink: Sink) -> (PeerFlow, (u64, mpsc::Sender<Queued>)) {
        let (sender, queue) = mpsc::channel(self.settings.queue);
        // Room for one there always is.
        let _ = sender.try_send(first);
        let (id, table) = (fastrand::u64(..), Arc::clone(&self.table));
        let keepalive = self.settings.keepalive;
        (PeerFlow { peer, queue, sink, keepalive, over: false, id, table }, (id, sender))
    }

    fn warn(&mut self) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            warn!(
                max = self.settings.max_flows,
                "datagrams of new peers are dropped: maxConnections reached"
            );
        }
    }
}

impl PeerFlow {
    /// Whose it is.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl Datagrams for PeerFlow {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.over {
            return Poll::Ready(Ok(None));
        }
        self.queue.poll_recv(cx).map(|queued| Ok(queued.map(|(datagram, _)| datagram)))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &Bytes) -> Poll<io::Result<()>> {
        match &mut self.sink {
            // What a shared socket says of one datagram is no reason to end the flow.
            Sink::Socket(socket) => drop(ready!(socket.poll_send_to(cx, datagram, self.peer))),
            Sink::Queue(sender) => {
                let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
                ready!(sender.poll_reserve(cx)).map_err(gone)?;
                sender.send_item((self.peer, datagram.clone())).map_err(gone)?;
            }
        }
        self.over = !self.keepalive;
        Poll::Ready(Ok(()))
    }
}

impl Drop for PeerFlow {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if table.get(&self.peer).is_some_and(|(id, _)| *id == self.id) {
            table.remove(&self.peer);
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
