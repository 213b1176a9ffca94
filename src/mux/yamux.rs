//! yamux (hashicorp's, by the crate of that name) behind the face of `mux`.
//!
//! The driver task owns the connection; `open` leaves a request for it. The crate answers the peer's pings and has no
//! windows or pings of our choosing: `mux.maxStreamWindow` and `mux.keepaliveInterval` have no effect here, and a peer
//! that vanishes without closing is noticed by TCP only.

use super::{CloseReason, OpenError, Role, Settings};
use crate::net::BoxStream;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

/// Streams being opened, and streams of the peer that nobody accepted yet; more are refused.
const BACKLOG: usize = 1024;
/// Bytes looked ahead when only readability was asked for.
const PEEK: usize = 2048;
/// How long an ending session may take to send what it still has.
const CLOSE_LINGER: Duration = Duration::from_secs(5);

/// What handles, streams and driver share.
#[derive(Debug)]
struct Shared {
    max_streams: usize,
    streams: AtomicUsize,
    epoch: Instant,
    /// Milliseconds after `epoch`.
    heard: AtomicU64,
    closing: AtomicBool,
    wake: Notify,
    reason: OnceLock<CloseReason>,
    over: watch::Sender<bool>,
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
        self.shared.epoch + Duration::from_millis(self.shared.heard.load(Ordering::Relaxed))
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
        wake: Notify::new(),
        reason: OnceLock::new(),
        over: watch::Sender::new(false),
    });
    let mode = if role == Role::Client { Mode::Client } else { Mode::Server };
    let heard = Heard { io, received, shared: shared.clone() };
    let connection = Connection::new(heard.compat(), config(settings), mode);
    let (open_sender, opens) = mpsc::channel(BACKLOG);
    let (accepted, streams) = mpsc::channel(BACKLOG);
    let driver = Driver { shared: shared.clone(), connection, opens, waiting: VecDeque::new(), accepted };
    let incoming = YamuxIncoming { shared: shared.clone(), streams };
    (YamuxSession { shared, opens: open_sender }, incoming, driver.run())
}

/// No stream's window grows beyond the first 256 KiB: the crate's own growth has no bound per stream.
fn config(settings: &Settings) -> Config {
    let mut config = Config::default();
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(settings.max_streams);
    let least = settings.max_streams.saturating_mul(yamux::DEFAULT_CREDIT as usize);
    config.set_max_connection_receive_window(Some(least));
    config.set_split_send_size(settings.max_frame_size.max(1));
    config
}

struct Driver {
    shared: Arc<Shared>,
    connection: Connection<Compat<Heard>>,
    opens: mpsc::Receiver<OpenRequest>,
    /// Requests that the crate does not grant yet.
    waiting: VecDeque<OpenRequest>,
    accepted: mpsc::Sender<YamuxStream>,
}

impl Driver {
    async fn run(mut self) {
        let shared = self.shared.clone();
        let closed = async {
            while !shared.closing.load(Ordering::Relaxed) {
                shared.wake.notified().await;
            }
        };
        let reason = tokio::select! {
            reason = poll_fn(|cx| self.poll(cx)) => reason,
            () = closed => CloseReason::Local,
        };
        if reason == CloseReason::Local {
            // What the peer does not take in time is its loss.
            let _ = tokio::time::timeout(CLOSE_LINGER, poll_fn(|cx| self.connection.poll_close(cx))).await;
        }
        let _ = self.shared.reason.set(reason);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let unused = self.poll_opens(cx);
            match self.connection.poll_next_inbound(cx) {
                Poll::Pending => {
                    let idle = unused && self.accepted.is_closed();
                    return if idle && self.shared.streams.load(Ordering::Relaxed) == 0 {
                        Poll::Ready(CloseReason::Local)
                    } else {
                        Poll::Pending
                    };
                }
                Poll::Ready(None) => return Poll::Ready(CloseReason::Ended),
                Poll::Ready(Some(Err(e))) => {
                    return Poll::Ready(CloseReason::Transport(e.to_string().into()));
                }
                Poll::Ready(Some(Ok(stream))) => {
                    if self.shared.streams.load(Ordering::Relaxed) < self.shared.max_streams {
                        let stream = YamuxStream::new(self.shared.clone(), State::Open(stream.compat()));
                        // A full backlog, or nobody there to accept: dropping it refuses it.
                        let _ = self.accepted.try_send(stream);
                    }
                }
            }
        }
    }

    /// Opens what was asked for; true when nobody can ask any more.
    fn poll_opens(&mut self, cx: &mut Context<'_>) -> bool {
        let unused = loop {
            // The channel bounds what waits here as well.
            if self.waiting.len() >= BACKLOG {
                break false;
            }
            match self.opens.poll_recv(cx) {
                Poll::Ready(Some(request)) => self.waiting.push_back(request),
                Poll::Ready(None) => break true,
                Poll::Pending => break false,
            }
        };
        while let Some(request) = self.waiting.front() {
            let Poll::Ready(Ok(mut stream)) = self.connection.poll_new_outbound(cx) else { break };
            if write_header(&mut stream, &request.header, cx)
                && let Some(request) = self.waiting.pop_front()
            {
                // The asker may have given up.
                let _ = request.reply.send(stream);
            } else {
                self.waiting.pop_front();
            }
        }
        unused
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.shared.reason.set(CloseReason::Local);
        self.shared.over.send_replace(true);
    }
}

/// Writes a header to a fresh stream, whose window is larger than any header.
fn write_header(stream: &mut yamux::Stream, mut header: &[u8], cx: &mut Context<'_>) -> bool {
    let mut stream = stream.compat();
    while !header.is_empty() {
        match Pin::new(&mut stream).poll_write(cx, header) {
            Poll::Ready(Ok(n)) if n > 0 => header = &header[n..],
            _ => return false,
        }
    }
    true
}

#[derive(Debug)]
enum State {
    Opening(oneshot::Receiver<yamux::Stream>),
    Open(Compat<yamux::Stream>),
}

#[derive(Debug)]
pub(super) struct YamuxStream {
    shared: Arc<Shared>,
    state: State,
    /// Bytes read ahead.
    peeked: Bytes,
}

impl YamuxStream {
    fn new(shared: Arc<Shared>, state: State) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        Self { shared, state, peeked: Bytes::new() }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Compat<yamux::Stream>>>> {
        if let State::Opening(opened) = &mut self.state {
            match ready!(Pin::new(opened).poll(cx)) {
                Ok(stream) => self.state = State::Open(stream.compat()),
                Err(_) => {
                    let text = "the mux session is over";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
                }
            }
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            State::Opening(_) => Poll::Pending,
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.peeked.is_empty() {
            let n = self.peeked.len().min(buf.remaining());
            buf.put_slice(&self.peeked.split_to(n));
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }

    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peeked.is_empty() {
            let mut room = [0; PEEK];
            let mut buf = ReadBuf::new(&mut room);
            ready!(ready!(self.poll_open(cx))?.poll_read(cx, &mut buf))?;
            self.peeked = Bytes::copy_from_slice(buf.filled());
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_readable(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.peeked)))
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_shutdown(cx)
    }
}

impl Drop for YamuxStream {
    fn drop(&mut self) {
        self.shared.streams.fetch_sub(1, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }
}

/// The transport with bytes put back in front; notes when something was heard.
#[derive(Debug)]
struct Heard {
    io: BoxStream,
    received: Bytes,
    shared: Arc<Shared>,
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
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let millis = u64::try_from(self.shared.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.heard.store(millis, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
