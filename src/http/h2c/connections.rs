//! The connections to targets that the requests of one visitor's connection share; never those of two visitors.

use super::super::failure::Failure;
use super::super::pool::MAX_IDLE;
use super::super::upstream::{Fresh, Key, Pool};
use super::{CONNECTION_WINDOW, MAX_STREAMS, STREAM_WINDOW, failed};
use crate::http::Settings;
use crate::net::BoxStream;
use crate::record::Route;
use bytes::Bytes;
use h2::client::SendRequest;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::debug;

/// Connections to one target: more than one only where it takes fewer streams on one than the visitor has.
const MAX_CONNECTIONS: usize = 4;

/// Requests to a target that is being dialled wait so long for the connection, then dial their own: a target that is slow
/// to reach must not make them queue.
const DIAL_TURN: Duration = Duration::from_secs(1);

/// The connections to one target; locked while one is being made.
type Slot = Arc<tokio::sync::Mutex<Vec<Connection>>>;

/// All connections of one visitor.
#[derive(Debug)]
pub(super) struct Connections<'a> {
    settings: &'a Settings,
    slots: Mutex<HashMap<Key, Slot>>,
    /// What moves their frames; ends with the visitor.
    drivers: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Bytes>,
    route: Route,
    heard: Arc<AtomicBool>,
    /// One clone for each request that uses it.
    uses: Arc<()>,
    last_used: Instant,
}

/// One request's use of a connection.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) key: Key,
    pub(super) route: Route,
    /// After so long without a word from the target, try another.
    pub(super) silence: Option<Duration>,
    heard: Arc<AtomicBool>,
    _counted: Arc<()>,
}

impl Use {
    /// Whether the target has ever sent anything.
    pub(super) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

impl<'a> Connections<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, slots: Mutex::default(), drivers: Mutex::default() }
    }

    pub(super) fn lease(&self) -> Lease<'_> {
        Lease { connections: self, failed: Vec::new(), slot: None }
    }

    fn slot(&self, key: &Key) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// Ends what is closed, or has been without requests for too long, or is one too many without; for after a request.
    pub(super) fn prune(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut idle = Vec::new();
        slots.retain(|key, slot| {
            // Somebody who holds it is about to use it.
            let Some(slot) = Arc::get_mut(slot).map(tokio::sync::Mutex::get_mut) else { return true };
            slot.retain_mut(|c| c.is_open() && (c.uses() > 0 || c.idle() < self.settings.idle_timeout));
            idle.extend(slot.iter().filter(|c| c.uses() == 0).map(|c| (c.last_used, key.clone())));
            !slot.is_empty()
        });
        idle.sort_by_key(|(last_used, _)| *last_used);
        for (_, key) in &idle[..idle.len().saturating_sub(MAX_IDLE)] {
            slots.remove(key);
        }
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
    }

    /// Begins HTTP/2 on a new stream.
    async fn connect(&self, fresh: Fresh) -> Result<(Connection, Use), Failure> {
        let limit = self.settings.reply_timeout;
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(MAX_STREAMS as usize)
            .max_header_list_size(u32::try_from(self.settings.limits.max_bytes).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let heard = Arc::new(AtomicBool::new(false));
        let io = Heard { io: fresh.stream, heard: Arc::clone(&heard) };
        let handshake = timeout(limit, builder.handshake::<_, Bytes>(io)).await;
        let (sender, driver) = handshake.map_err(|_| Failure::Silent)?.map_err(|e| failed(&e))?;
        let key = fresh.key.clone();
        // Those who wait on its streams are told that it ended.
        let driver = async move {
            if let Err(error) = driver.await {
                debug!(target = %key.target, %error, "connection to a target");
            }
        };
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner).spawn(driver);
        let (route, uses) = (fresh.route, Arc::new(()));
        let connection = Connection { sender, route, heard, uses, last_used: Instant::now() };
        let used = connection.lend(&fresh.key, fresh.silence);
        Ok((connection, used))
    }
}

impl Connection {
    fn lend(&self, key: &Key, silence: Option<Duration>) -> Use {
        Use {
            sender: self.sender.clone(),
            key: key.clone(),
            route: self.route.clone(),
            silence,
            heard: Arc::clone(&self.heard),
            _counted: Arc::clone(&self.uses),
        }
    }

    fn uses(&self) -> usize {
        Arc::strong_count(&self.uses) - 1
    }

    fn idle(&self) -> Duration {
        self.last_used.elapsed()
    }

    /// Neither ended nor told by GOAWAY to take no more requests.
    fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }
}

/// How one request comes to its connections.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    connections: &'a Connections<'a>,
    /// Targets whose shared connections have failed this request.
    failed: Vec<Key>,
    /// Held while the connection that others wait for is made.
    slot: Option<OwnedMutexGuard<Vec<Connection>>>,
}

impl Pool for Lease<'_> {
    type Kept = Use;

    async fn take(&mut self, key: &Key) -> Option<Use> {
        self.slot = None;
        let locked = timeout(DIAL_TURN, self.connections.slot(key).lock_owned());
        let mut slot = locked.await.ok()?;
        slot.retain_mut(Connection::is_open);
        if !self.failed.iter().any(|failed| failed == key) {
            let full = slot.len() >= MAX_CONNECTIONS;
            let fit = |c: &&mut Connection| full || c.uses() < c.sender.current_max_send_streams();
            if let Some(connection) = slot.iter_mut().filter(fit).min_by_key(|c| c.uses()) {
                connection.last_used = Instant::now();
                return Some(connection.lend(key, None));
            }
        }
        self.slot = Some(slot);
        None
    }
}

impl Lease<'_> {
    /// Makes a connection of the stream that was opened when there was none to take, and lets others use it too.
    pub(super) async fn connect(&mut self, fresh: Fresh) -> Result<Use, Failure> {
        let slot = self.slot.take();
        let (connection, used) = self.connections.connect(fresh).await?;
        if let Some(mut slot) = slot
            && slot.len() < MAX_CONNECTIONS
        {
            slot.push(connection);
        }
        Ok(used)
    }

    /// The next try is not to go the same way.
    pub(super) fn avoid(&mut self, key: Key) {
        self.failed.push(key);
    }
}

/// A stream that notes when something has come from the far end.
#[derive(Debug)]
struct Heard {
    io: BoxStream,
    heard: Arc<AtomicBool>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
