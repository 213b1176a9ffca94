//! Whether the peer of a connection is there: when it was heard last, and when it is to be asked.
//!
//! It is asked by SETTINGS that change nothing, which every peer has to acknowledge (RFC 9113, section 6.5.3). PING would do the
//! same, but servers of gRPC count these, and end a connection on which more come than they were set up for.

use crate::net::BoxStream;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A peer from which nothing has come since something was sent is asked after this part of the time that it has in all.
const PROMPT: u32 = 15;
/// The same where nothing was sent.
const QUIET: u32 = 3;

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Line {
    state: Mutex<State>,
    /// Told when the peer owes an answer.
    sent: Notify,
}

#[derive(Debug)]
struct State {
    heard: Instant,
    /// When something was sent first after that.
    sent: Option<Instant>,
    asked: Option<Instant>,
    /// How long nothing had come when the peer was given up.
    lost: Option<Duration>,
}

impl State {
    fn check(&self) -> io::Result<()> {
        let Some(silence) = self.lost else { return Ok(()) };
        let text = format!("nothing came from the peer for {silence:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    /// When the peer is to be asked whether it is there; it is asked again until it says something.
    fn ask_at(&self, limit: Duration) -> Instant {
        match (self.asked, self.sent) {
            (Some(asked), _) if asked > self.heard => asked + limit / PROMPT,
            (_, Some(sent)) => sent + limit / PROMPT,
            _ => self.heard + limit / QUIET,
        }
    }

    /// Asks, or gives up a peer that was asked and has said nothing for so long.
    fn ask(&mut self, now: Instant, limit: Duration) {
        let was_asked = self.asked.replace(now).is_some_and(|asked| asked > self.heard);
        self.lost = (was_asked && now.duration_since(self.heard) >= limit).then_some(limit);
    }
}

impl Line {
    /// Puts an ear on a connection.
    pub(super) fn over(stream: BoxStream) -> (Heard, Arc<Self>) {
        let state = State { heard: Instant::now(), sent: None, asked: None, lost: None };
        let line = Arc::new(Self { state: Mutex::new(state), sent: Notify::new() });
        (Heard { inner: stream, line: Arc::clone(&line) }, line)
    }

    /// When something came last.
    pub(super) fn heard(&self) -> Instant {
        self.state().heard
    }

    /// Waits until the peer is to be asked, or until nothing has come from it for `limit`: then every read and write fails from
    /// now on. `None`: it is never asked.
    pub(super) async fn quiet(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        loop {
            let (at, waits) = {
                let state = self.state();
                (state.lost.is_none().then(|| state.ask_at(limit)), state.sent.is_none())
            };
            let Some(at) = at else { return std::future::pending().await };
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.sent.notified(), if waits => continue,
            }
            let mut state = self.state();
            let now = Instant::now();
            if now < state.ask_at(limit) {
                continue;
            }
            state.ask(now, limit);
            return;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn came(&self) {
        let mut state = self.state();
        state.heard = Instant::now();
        state.sent = None;
    }

    fn went(&self) {
        let mut state = self.state();
        if state.sent.is_none() {
            state.sent = Some(Instant::now());
            self.sent.notify_one();
        }
    }
}

/// The bytes of a connection, which tell its [`Line`] when they come and go.
#[derive(Debug)]
pub(super) struct Heard {
    inner: BoxStream,
    line: Arc<Line>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line.state().check()?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.line.came();
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.line.state().check()?;
        let written = Pin::new(&mut self.inner).poll_write(cx, data);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.line.state().check()?;
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, data);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.state().check()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.state().check()?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Heard {
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(n)) if n > 0) {
            self.line.went();
        }
        written
    }
}
