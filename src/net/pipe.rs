//! Bytes both ways between two streams until both sides are done, and how it ended.
//!
//! Half-close is passed on where the stream below has it. Where it has not (smux) the end of such a stream is the end
//! of the connection, and the end of the *other* side is kept back until all that the stream has to say is delivered: of a
//! visitor until the answer is there, of a target (which has had its say) until nothing more comes from the visitor.
//! A side that breaks is not passed on as an end: the other one is reset, where the stream below has that.
//! The bytes themselves are moved by `copy`; who may talk to whom has been settled before.

use super::buffer::Buffer;
use super::copy::{Copy, CopyError};
use super::timer::Timer;
use super::{BoxStream, ByteStream};
use bytes::Bytes;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::time::{Instant, timeout};

/// How long a connection that is over may take to say goodbye. Closing a socket with unread bytes resets it, which can
/// destroy what its peer has not read yet; so the rest is read and thrown away, and a peer that never stops sending (or
/// never takes our last bytes) is left after this.
const LINGER: Duration = Duration::from_secs(5);

/// The target has ended, the visitor's stream has no half-close: how long its silence is taken for the end of what it sends.
/// What was under way arrives within this; a visitor that waits for the end of a close-delimited answer waits this long.
const DRAIN: Duration = Duration::from_millis(500);

/// Reads thrown away in one poll, so that a fast peer does not keep the other tasks from running.
const MAX_DISCARDS: usize = 16;

/// One of the two streams, with the bytes that have been read from it already.
#[derive(Debug)]
pub struct Side {
    /// The stream itself.
    pub stream: BoxStream,
    /// Delivered to the other side before anything else.
    pub prefix: Bytes,
}

impl Side {
    /// A side of which `prefix` has been read.
    pub fn new(stream: BoxStream, prefix: Bytes) -> Self {
        Self { stream, prefix }
    }
}

impl From<BoxStream> for Side {
    fn from(stream: BoxStream) -> Self {
        Self { stream, prefix: Bytes::new() }
    }
}

/// How long silence is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One side has ended and the other moves nothing for this long. Without it a visitor that half-closes holds the
    /// connection for as long as the other end forgets about it.
    pub half_close_timeout: Duration,
    /// Nothing moves in either direction for this long; `None`: no limit.
    pub idle_timeout: Option<Duration>,
}

/// The first or the second argument of [`pipe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first.
    A,
    /// The second.
    B,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order; this side was the first to end.
    ClosedBy(Which),
    /// `idle_timeout`.
    Idle,
    /// `half_close_timeout`, after this side had ended.
    HalfClosedIdle(Which),
    /// This side broke.
    Error(Which, io::ErrorKind),
}

impl End {
    /// The word for logs and metrics.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::ClosedBy(_) => "ok",
            Self::Idle => "idle_timeout",
            Self::HalfClosedIdle(_) => "half_close_timeout",
            Self::Error(Which::A, _) => "visitor_failed",
            Self::Error(Which::B, _) => "target_failed",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedBy(_) => f.write_str("ended in order"),
            Self::Idle => f.write_str("silent in both directions for too long (idleTimeout)"),
            Self::HalfClosedIdle(_) => {
                f.write_str("one side had ended and the other was silent for too long (halfCloseTimeout)")
            }
            Self::Error(Which::A, kind) => write!(f, "visitor failed: {kind}"),
            Self::Error(Which::B, kind) => write!(f, "target failed: {kind}"),
        }
    }
}

/// What there is to say about a connection afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes from A that B took.
    pub a_to_b: u64,
    /// Bytes from B that A took.
    pub b_to_a: u64,
    /// How many of both were moved inside the kernel.
    pub spliced: u64,
    /// How it ended.
    pub end: End,
}

/// Connects the two until both directions are over, then closes both.
pub async fn pipe(a: Side, b: Side, limits: Limits) -> Outcome {
    Pipe::new(a, b, limits).run(|_, _| {}).await
}

/// Two streams and what has gone between them: all that a piped connection holds while it is silent.
#[derive(Debug)]
pub(crate) struct Pipe {
    a: BoxStream,
    b: BoxStream,
    run: Run,
}

impl Pipe {
    /// Not begun.
    pub(crate) fn new(a: Side, b: Side, limits: Limits) -> Self {
        Self { run: Run::new(a.prefix, b.prefix, limits), a: a.stream, b: b.stream }
    }

    /// Pipes to the end; `count` is told the bytes from A and from B as they move, for whoever may be cut off before the outcome.
    pub(crate) async fn run(&mut self, mut count: impl FnMut(u64, u64)) -> Outcome {
        let end = poll_fn(|cx| {
            let end = self.run.poll(cx, &mut *self.a, &mut *self.b);
            count(self.run.a_to_b.copy.moved(), self.run.b_to_a.copy.moved());
            end
        })
        .await;
        // What only the end needs is not held until then.
        Box::pin(self.close(end)).await;
        let (ab, ba) = (&self.run.a_to_b.copy, &self.run.b_to_a.copy);
        Outcome { a_to_b: ab.moved(), b_to_a: ba.moved(), spliced: ab.spliced() + ba.spliced(), end }
    }

    /// Says goodbye to both sides.
    async fn close(&mut self, end: End) {
        let (a, b, run) = (&mut *self.a, &mut *self.b, &self.run);
        if run.is_broken(Which::A) {
            b.abort();
        }
        if run.is_broken(Which::B) {
            a.abort();
        }
        let quiet = matches!(end, End::Idle | End::HalfClosedIdle(_));
        let mut closing_a = Closing::new(&run.b_to_a, &run.a_to_b, quiet, a);
        let mut closing_b = Closing::new(&run.a_to_b, &run.b_to_a, quiet, b);
        let goodbye = poll_fn(|cx| {
            let a = closing_a.poll(cx, a);
            let b = closing_b.poll(cx, b);
            if a.is_ready() { b } else { Poll::Pending }
        });
        // Past the time-out both are dropped as they are.
        let _ = timeout(LINGER, goodbye).await;
    }
}

/// Both directions and the clock.
#[derive(Debug)]
struct Run {
    a_to_b: Direction,
    b_to_a: Direction,
    limits: Limits,
    /// Who ended first.
    first: Option<Which>,
    error: Option<(Which, io::ErrorKind)>,
    moved: u64,
    active: Instant,
    timer: Timer,
}

#[derive(Debug)]
struct Direction {
    copy: Copy,
    state: State,
    /// The destination was reset, as a write to it has told. Whoever reads from it later sees an orderly end.
    reset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    /// The source has ended; the end is being passed on.
    ShuttingDown,
    Ended(Cause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The end was passed on.
    PassedOn,
    /// The source has ended, and one of the two streams has no half-close.
    KeptBack,
    ReadFailed,
    WriteFailed,
}

/// Which end of a direction an error came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Source,
    Destination,
}

impl Run {
    fn new(from_a: Bytes, from_b: Bytes, limits: Limits) -> Self {
        let direction =
            |prefix| Direction { copy: Copy::new().with_prefix(prefix), state: State::Moving, reset: false };
        Self {
            a_to_b: direction(from_a),
            b_to_a: direction(from_b),
            limits,
            first: None,
            error: None,
            moved: 0,
            active: Instant::now(),
            timer: Timer::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, a: &mut dyn ByteStream, b: &mut dyn ByteStream) -> Poll<End> {
        let failed = self.a_to_b.poll(cx, a, b, self.b_to_a.reset);
        self.note(failed, Which::A, Which::B, self.a_to_b.state);
        let failed = self.b_to_a.poll(cx, b, a, self.a_to_b.reset);
        self.note(failed, Which::B, Which::A, self.b_to_a.state);
        if self.over(a.half_close(), b.half_close()) {
            return Poll::Ready(self.end());
        }
        self.poll_silence(cx)
    }

    /// Who ended first, and what broke first.
    fn note(&mut self, failed: Option<(Broken, io::ErrorKind)>, from: Which, to: Which, state: State) {
        let ended = match failed {
            Some((Broken::Destination, _)) => to,
            _ => from,
        };
        if let Some((_, kind)) = failed {
            self.error.get_or_insert((ended, kind));
        }
        if state != State::Moving && self.first.is_none() {
            self.first = Some(ended);
            // The other side's silence counts from here.
            self.active = Instant::now();
        }
    }

    /// A failed write ends its direction only: what the broken side has sent before may still be waiting.
    fn over(&self, a_half_closes: bool, b_half_closes: bool) -> bool {
        let wholly = |direction: &Direction, half_closes: bool| match direction.state {
            State::Ended(Cause::ReadFailed) => true,
            State::Ended(Cause::KeptBack) => !half_closes,
            _ => false,
        };
        wholly(&self.a_to_b, a_half_closes)
            || wholly(&self.b_to_a, b_half_closes)
            || matches!((self.a_to_b.state, self.b_to_a.state), (State::Ended(_), State::Ended(_)))
    }

    /// Whether this side has stopped in the middle of what it had to say.
    fn is_broken(&self, which: Which) -> bool {
        let from = match which {
            Which::A => &self.a_to_b,
            Which::B => &self.b_to_a,
        };
        from.state == State::Ended(Cause::ReadFailed)
    }

    fn end(&self) -> End {
        match (self.error, self.first) {
            (Some((which, kind)), _) => End::Error(which, kind),
            (None, first) => End::ClosedBy(first.unwrap_or(Which::A)),
        }
    }

    /// Ready when nothing has moved for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let half_closed = self.first.map(|which| match (which, self.b_to_a.state) {
            // While bytes of the visitor wait to be written, it is the target that is slow.
            (Which::B, State::Ended(Cause::KeptBack)) if self.a_to_b.copy.is_empty() => {
                (DRAIN.min(self.limits.half_close_timeout), End::ClosedBy(which))
            }
            _ => (self.limits.half_close_timeout, End::HalfClosedIdle(which)),
        });
        let idle = self.limits.idle_timeout.map(|idle| (idle, End::Idle));
        let Some((patience, end)) =
            [half_closed, idle].into_iter().flatten().min_by_key(|(patience, _)| *patience)
        else {
            return Poll::Pending;
        };
        let moved = self.a_to_b.copy.moved() + self.b_to_a.copy.moved();
        if moved != self.moved {
            self.moved = moved;
            self.active = Instant::now();
        }
        let deadline = self.active + patience;
        self.timer.poll(cx, deadline).map(|()| end)
    }
}

impl Direction {
    /// Goes as far as it can; an error is returned once, with whose it is. `from_reset`: the source is known to be broken.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn ByteStream,
        to: &mut dyn ByteStream,
        from_reset: bool,
    ) -> Option<(Broken, io::ErrorKind)> {
        if self.state == State::Moving {
            let Poll::Ready(result) = self.copy.poll(cx, from, to) else { return None };
            self.state = match result {
                Ok(_) if from_reset => State::Ended(Cause::ReadFailed),
                Ok(_) if from.half_close() && to.half_close() => State::ShuttingDown,
                Ok(_) => State::Ended(Cause::KeptBack),
                Err(CopyError::Read(e)) => {
                    self.state = State::Ended(Cause::ReadFailed);
                    return Some((Broken::Source, e.kind()));
                }
                Err(CopyError::Write(e)) => {
                    self.state = State::Ended(Cause::WriteFailed);
                    self.reset = e.kind() == io::ErrorKind::ConnectionReset;
                    return Some((Broken::Destination, e.kind()));
                }
            };
        }
        // A stream that cannot be shut down is broken, and the direction that reads from it will say so.
        if self.state == State::ShuttingDown && Pin::new(to).poll_shutdown(cx).is_ready() {
            self.state = State::Ended(Cause::PassedOn);
        }
        None
    }
}

/// What is still to be done before a stream may be dropped.
#[derive(Debug)]
struct Closing {
    shut: bool,
    drained: bool,
}

impl Closing {
    fn new(towards: &Direction, from: &Direction, quiet: bool, stream: &dyn ByteStream) -> Self {
        let aborted = towards.state == State::Ended(Cause::ReadFailed);
        let shut = aborted || matches!(towards.state, State::Ended(Cause::PassedOn | Cause::WriteFailed));
        let ended = matches!(
            from.state,
            State::ShuttingDown | State::Ended(Cause::PassedOn | Cause::KeptBack | Cause::ReadFailed)
        );
        Self { shut, drained: ended || quiet || aborted || !stream.half_close() }
    }

    fn poll(&mut self, cx: &mut Context<'_>, stream: &mut dyn ByteStream) -> Poll<()> {
        if !self.shut {
            self.shut = Pin::new(&mut *stream).poll_shutdown(cx).is_ready();
        }
        if !self.drained {
            self.drained = poll_discard(cx, stream).is_ready();
        }
        if self.shut && self.drained { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Reads to the end (or an error) and keeps nothing.
fn poll_discard(cx: &mut Context<'_>, stream: &mut dyn ByteStream) -> Poll<()> {
    for _ in 0..MAX_DISCARDS {
        if ready!(stream.poll_readable(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut buffer = Buffer::take();
        let mut read = ReadBuf::new(&mut buffer);
        if ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
            return Poll::Ready(());
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
