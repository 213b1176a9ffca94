//! yamux (hashicorp's, by the crate of that name) behind the face of `mux`.
//!
//! The driver task owns the connection; `open` leaves a request for it. The crate answers the peer's pings, and sends one
//! of its own whenever it is polled 10 s after the last answer, whatever `mux.keepaliveInterval` says. So the driver polls
//! a quiet connection, and ends it when nothing at all was heard for `mux.keepaliveTimeout`.

mod driver;
mod stream;

use super::{CloseReason, OpenError, Role, Settings};
use crate::net::BoxStream;
use bytes::{Buf, Bytes};
use driver::Driver;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use stream::State;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::{Config, Connection, Mode};

pub(super) use stream::YamuxStream;

/// Streams being opened, and streams of the peer that nobody accepted yet; more are refused.
const BACKLOG: usize = 1024;
/// Streams that the crate may count and `mux.maxStreams` does not: dropped ones that it has not collected yet while as
/// many as it opens without acknowledgement are added. At its own bound the crate ends the whole session.
const UNCOLLECTED: usize = 256;

/// What handles, streams and driver share.
#[derive(Debug)]
struct Shared {
    max_streams: usize,
    streams: AtomicUsize,
    epoch: Instant,
    /// Milliseconds after `epoch`.
    heard: AtomicU64,
    closing: AtomicBool,
    /// The connection broke: the end of a stream may not be the end of its data.
    lost: AtomicBool,
    wake: Notify,
    reason: OnceLock<CloseReason>,
    over: watch::Sender<bool>,
}

impl Shared {
    fn last_heard(&self) -> Instant {
        self.epoch + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Notes that something was heard.
    fn hear(&self) {
        let millis = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(millis, Ordering::Relaxed);
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct OpenRequest {
    header: Bytes,
    reply: oneshot::Sender<yamux::Stream>,
}

#[derive(Debug, Clone)]
pub(super) struct YamuxSession {
    shared: Arc<Shared>,
    opens: mpsc::Sender<OpenRequest>,
}

impl YamuxSession {
    pub(super) fn open(&self, header: Bytes) -> Result<YamuxStream, OpenError> {
        if let Some(reason) = self.shared.reason.get() {
            return Err(OpenError::Closed(reason.clone()));
        }
        if self.shared.closing.load(Ordering::Relaxed) {
            return Err(OpenError::Closed(CloseReason::Local));
        }
        let max = self.shared.max_streams;
        if self.streams() >= max {
            return Err(OpenError::TooMany(max));
        }
        let (reply, opened) = oneshot::channel();
        self.opens.try_send(OpenRequest { header, reply }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => OpenError::TooMany(max),
            mpsc::error::TrySendError::Closed(_) => OpenError::Closed(CloseReason::Ended),
        })?;
        Ok(YamuxStream::new(self.shared.clone(), State::Opening(opened)))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shared.reason.get().is_some()
    }

    pub(super) async fn closed(&self) -> CloseReason {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.shared.over.subscribe().wait_for(|over| *over).await;
        self.shared.reason.get().cloned().unwrap_or(CloseReason::Local)
    }

    pub(super) fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    pub(super) fn streams(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.shared.last_heard()
    }
}

#[derive(Debug)]
pub(super) struct YamuxIncoming {
    shared: Arc<Shared>,
    streams: mpsc::Receiver<YamuxStream>,
}

impl Drop for YamuxIncoming {
    fn drop(&mut self) {
        // It may have been the last handle.
        self.streams.close();
        self.shared.wake.notify_one();
    }
}

impl YamuxIncoming {
    pub(super) async fn accept(&mut self) -> Option<YamuxStream> {
        self.streams.recv().await
    }
}

pub(super) fn start(
    io: BoxStream,
    received: Bytes,
    role: Role,
    settings: &Settings,
) -> (YamuxSession, YamuxIncoming, impl Future<Output = ()> + Send + 'static) {
    let shared = Arc::new(Shared {
        max_streams: settings.max_streams,
        streams: AtomicUsize::new(0),
        epoch: Instant::now(),
        heard: AtomicU64::new(0),
        closing: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        wake: Notify::new(),
        reason: OnceLock::new(),
        over: watch::Sender::new(false),
    });
    let mode = if role == Role::Client { Mode::Client } else { Mode::Server };
    let heard = Heard { io, received, shared: shared.clone(), shut: false };
    let connection = Connection::new(heard.compat(), config(settings), mode);
    let (open_sender, opens) = mpsc::channel(BACKLOG);
    let (accepted, streams) = mpsc::channel(BACKLOG);
    let driver = Driver::new(shared.clone(), connection, opens, accepted, settings);
    let incoming = YamuxIncoming { shared: shared.clone(), streams };
    (YamuxSession { shared, opens: open_sender }, incoming, driver.run())
}

/// The crate lets windows grow out of a store that all streams share and has no bound for one: a store of what
/// `mux.maxStreamWindow` is above the least keeps any stream within it, and the memory of all near the least.
fn config(settings: &Settings) -> Config {
    let credit = yamux::DEFAULT_CREDIT as usize;
    let max_streams = settings.max_streams.min(u32::MAX as usize) + UNCOLLECTED;
    let mut config = Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(max_streams);
    let growth = settings.max_stream_window.saturating_sub(credit);
    config.set_max_connection_receive_window(Some(max_streams.saturating_mul(credit).saturating_add(growth)));
    config.set_split_send_size(settings.max_frame_size.max(1));
    config
}

/// The transport with bytes put back in front; notes when something was heard.
#[derive(Debug)]
struct Heard {
    io: BoxStream,
    received: Bytes,
    shared: Arc<Shared>,
    /// The peer was told that no more comes.
    shut: bool,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let n = self.received.len().min(buf.remaining());
            buf.put_slice(&self.received[..n]);
            self.received.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        // Told before the crate ends the streams.
        if read.is_err() || buf.filled().len() == before {
            self.shared.lose();
        } else {
            self.shared.hear();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(flushed)
    }

    /// Ready when the peer has ended as well: what it still sends (a window update is enough) would reset a socket that is closed,
    /// and the reset would destroy what the peer has not read.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.shut = true;
        }
        loop {
            let mut room = [0; 2048];
            let mut rest = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Heard {
    /// A connection that breaks may show in a write first.
    fn wrote<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            self.shared.lose();
        }
        result
    }
}
