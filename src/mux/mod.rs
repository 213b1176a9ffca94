//! Many streams over one connection: smux versions 1 and 2, and yamux.
//!
//! [`Session`] opens streams, [`Incoming`] accepts them, a driver future that the caller spawns moves the bytes. The
//! smux protocol is the state machine in `session`; `driver` is the only part that touches the transport. yamux is the
//! crate of that name behind the same face.

mod driver;
mod flow;
#[cfg(test)]
mod model;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod yamux;

use crate::net::{BoxStream, ByteStream};
use crate::shutdown::Shutdown;
use crate::wire::Malformed;
use bytes::{Buf, Bytes, BytesMut};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use stream::{Handle, SmuxStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use yamux::{YamuxIncoming, YamuxSession, YamuxStream};

/// How often a stopping session looks whether its last stream has ended.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Which protocol both ends agreed on by configuration; there is no negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No windows per stream; relay BIND's default.
    SmuxV1,
    /// With windows per stream; the tunnel's default.
    SmuxV2,
    /// `mux.type: yamux`.
    Yamux,
}

/// Which ids the streams opened here get: odd from 3 for the client, even from 2 for the server (yamux: odd from 1, even from 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that opens streams in a tunnel: the tunnel *server*.
    Client,
    /// The side that accepts them: the connector.
    Server,
}

/// The `mux.*` keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `mux.type` and `mux.version`.
    pub kind: Kind,
    /// `mux.keepaliveInterval`: a NOP is sent this often (yamux: a ping every 10 s); `None` for `mux.keepaliveDisabled`.
    pub keepalive_interval: Option<Duration>,
    /// `mux.keepaliveTimeout`: without a byte from the peer for this long the session is dead (yamux: at least 15 s).
    pub keepalive_timeout: Duration,
    /// `mux.maxFrameSize`: largest payload sent in one frame, 1 to 65535.
    pub max_frame_size: usize,
    /// `mux.maxReceiveBuffer`: unread bytes that one session may hold.
    pub max_receive_buffer: usize,
    /// `mux.maxStreamBuffer`: unread bytes that one stream may hold, and the window advertised (smux v2).
    pub max_stream_buffer: usize,
    /// `mux.maxStreamWindow`: what the receive window of a stream may grow to on a long line, and by how much those of all
    /// streams of a session together (smux v2, yamux).
    pub max_stream_window: usize,
    /// `mux.stallTimeout`: how long a stream of which nobody reads may keep the others waiting, before it is ended (smux; one
    /// of version 1 by its own `max_stream_buffer`, which has no window).
    pub stall_timeout: Duration,
    /// `mux.maxStreams`: streams alive at once; more are refused with FIN.
    pub max_streams: usize,
}

impl Settings {
    /// What both ends of a tunnel start from (the wire specification, section 2.2).
    pub fn tunnel() -> Self {
        Self {
            kind: Kind::SmuxV2,
            keepalive_interval: Some(Duration::from_secs(10)),
            keepalive_timeout: Duration::from_secs(30),
            max_frame_size: 32 * 1024,
            max_receive_buffer: 4 * 1024 * 1024,
            max_stream_buffer: 1024 * 1024,
            max_stream_window: 16 * 1024 * 1024,
            stall_timeout: Duration::from_secs(3),
            max_streams: 10_000,
        }
    }

    /// What both ends of a relay BIND start from.
    pub fn relay() -> Self {
        Self { kind: Kind::SmuxV1, ..Self::tunnel() }
    }
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// It was closed here.
    #[error("closed on this side")]
    Local,
    /// The peer ended the connection.
    #[error("the peer ended the connection")]
    Ended,
    /// Nothing was heard for `mux.keepaliveTimeout`.
    #[error("the peer was silent for {0:?} (mux.keepaliveTimeout)")]
    Silent(Duration),
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(Malformed),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Transport(Arc<str>),
}

/// Why no stream could be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The session is over or about to be.
    #[error("the session is over: {0}")]
    Closed(CloseReason),
    /// All streams are in use.
    #[error("all {0} streams are in use (mux.maxStreams)")]
    TooMany(usize),
    /// The session holds too much that nobody reads.
    #[error("the session is full of unread data (mux.maxReceiveBuffer)")]
    Unread,
    /// Every id was used once.
    #[error("the session has used up its stream ids")]
    Exhausted,
}

/// Starts a session on `io`. `received` was already read from it and comes first. The future moves the bytes and ends
/// with the session; the caller spawns it. A session whose handles are all dropped ends with its last stream.
pub fn start(
    io: BoxStream,
    received: Bytes,
    role: Role,
    settings: &Settings,
) -> (Session, Incoming, impl Future<Output = ()> + Send + 'static) {
    let (session, incoming, driver): (_, _, Pin<Box<dyn Future<Output = ()> + Send>>) =
        if settings.kind == Kind::Yamux {
            let (session, incoming, driver) = yamux::start(io, received, role, settings);
            (Session(AnySession::Yamux(session)), Incoming(AnyIncoming::Yamux(incoming)), Box::pin(driver))
        } else {
            let (handle, driver) = driver::start(io, received, role, settings);
            let incoming = Incoming(AnyIncoming::Smux(stream::Acceptor::new(handle.clone())));
            (Session(AnySession::Smux(handle)), incoming, Box::pin(driver))
        };
    (session, incoming, driver)
}

/// Runs what [`start`] gave as a task of its own, which goes when this does. So whatever else waits for something of the session,
/// or for its end, is not asked at each batch of frames.
pub(crate) fn drive(driver: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send {
    // Begun here: whoever waits holds the handle alone, not the driver a second time.
    let task = AbortOnDropHandle::new(tokio::spawn(driver));
    // The end of a driver that has panicked is the end of its session, and that is heard of anyway.
    async move { drop(task.await) }
}

/// Opens streams. Clones stand for the same session.
#[derive(Debug, Clone)]
pub struct Session(AnySession);

#[derive(Debug, Clone)]
enum AnySession {
    Smux(Arc<Handle>),
    Yamux(YamuxSession),
}

impl Session {
    /// Opens a stream whose first bytes are `header`; they travel in the same batch as what opens the stream.
    pub fn open(&self, header: Bytes) -> Result<Stream, OpenError> {
        Ok(Stream(match &self.0 {
            AnySession::Smux(handle) => AnyStream::Smux(handle.open(&header)?),
            AnySession::Yamux(session) => AnyStream::Yamux(session.open(header)?),
        }))
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            AnySession::Smux(handle) => handle.shared.is_over(),
            AnySession::Yamux(session) => session.is_closed(),
        }
    }

    /// Waits until the session is over.
    pub async fn closed(&self) -> CloseReason {
        match &self.0 {
            AnySession::Smux(handle) => handle.shared.closed().await,
            AnySession::Yamux(session) => session.closed().await,
        }
    }

    /// Ends the session: no new streams, FIN on the open ones behind what they have queued, then the connection.
    pub fn close(&self) {
        match &self.0 {
            AnySession::Smux(handle) => handle.shared.close(),
            AnySession::Yamux(session) => session.close(),
        }
    }

    /// Ends the session once the process stops and no stream is left; ready when the session is over, however that came.
    pub(crate) async fn drain(&self, shutdown: &Shutdown) {
        tokio::select! {
            _ = self.closed() => return,
            () = shutdown.stop.cancelled() => {}
        }
        while self.streams() > 0 && !self.is_closed() {
            sleep(DRAIN_STEP).await;
        }
        self.close();
    }

    /// How many streams are alive.
    pub fn streams(&self) -> usize {
        match &self.0 {
            AnySession::Smux(handle) => handle.shared.streams(),
            AnySession::Yamux(session) => session.streams(),
        }
    }

    /// When the last byte arrived.
    pub fn last_heard(&self) -> Instant {
        match &self.0 {
            AnySession::Smux(handle) => handle.shared.last_heard(),
            AnySession::Yamux(session) => session.last_heard(),
        }
    }
}

/// Accepts the peer's streams. Once it is dropped they are refused.
#[derive(Debug)]
pub struct Incoming(AnyIncoming);

#[derive(Debug)]
enum AnyIncoming {
    Smux(stream::Acceptor),
    Yamux(YamuxIncoming),
}

impl Incoming {
    /// The next stream; `None` when the session is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        Some(Stream(match &mut self.0 {
            AnyIncoming::Smux(acceptor) => AnyStream::Smux(acceptor.accept().await?),
            AnyIncoming::Yamux(incoming) => AnyStream::Yamux(incoming.accept().await?),
        }))
    }
}

/// One stream of a session. Dropping it ends it once all that was written has been sent.
#[derive(Debug)]
pub struct Stream(AnyStream);

#[derive(Debug)]
enum AnyStream {
    Smux(SmuxStream),
    Yamux(YamuxStream),
}

impl Stream {
    /// The next received bytes as they lie in memory; empty at the end. Not to be mixed up with a copy: nothing is copied.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match &mut self.0 {
            AnyStream::Smux(stream) => stream.poll_read_chunk(cx),
            AnyStream::Yamux(stream) => stream.poll_read_chunk(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            AnyStream::Smux(stream) => stream.poll_read(cx, buf),
            AnyStream::Yamux(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            AnyStream::Smux(stream) => stream.poll_write(cx, &[IoSlice::new(buf)]),
            AnyStream::Yamux(stream) => stream.poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            AnyStream::Smux(stream) => stream.poll_write(cx, bufs),
            AnyStream::Yamux(_) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                self.poll_write(cx, first.map_or(&[], |buf| buf))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self.0, AnyStream::Smux(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            // What was taken is sent without being asked to.
            AnyStream::Smux(_) => Poll::Ready(Ok(())),
            AnyStream::Yamux(stream) => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            AnyStream::Smux(stream) => {
                stream.finish();
                Poll::Ready(Ok(()))
            }
            AnyStream::Yamux(stream) => stream.poll_shutdown(cx),
        }
    }
}

impl ByteStream for Stream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            AnyStream::Smux(stream) => stream.poll_readable(cx),
            AnyStream::Yamux(stream) => stream.poll_readable(cx),
        }
    }

    fn take_chunk(&mut self, least: usize, most: usize) -> Option<Bytes> {
        match &mut self.0 {
            AnyStream::Smux(stream) => stream.take_chunk(least, most),
            AnyStream::Yamux(_) => None,
        }
    }

    fn takes_blocks(&self) -> bool {
        matches!(self.0, AnyStream::Smux(_))
    }

    fn poll_write_block(&mut self, cx: &mut Context<'_>, block: &mut BytesMut) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            AnyStream::Smux(stream) => stream.poll_write_block(cx, block),
            AnyStream::Yamux(stream) => {
                let n = ready!(stream.poll_write(cx, block))?;
                block.advance(n);
                Poll::Ready(Ok(n))
            }
        }
    }

    fn half_close(&self) -> bool {
        matches!(self.0, AnyStream::Yamux(_))
    }

    fn far_end_has_read(&self) -> Option<bool> {
        match &self.0 {
            AnyStream::Smux(stream) => stream.far_end_has_read(),
            AnyStream::Yamux(stream) => stream.far_end_has_read(),
        }
    }

    fn far_end_is_gone(&self) -> bool {
        matches!(&self.0, AnyStream::Smux(stream) if stream.far_end_is_gone())
    }
}
