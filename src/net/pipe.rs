//! Bytes both ways between two streams until both directions have ended.
//!
//! Half-close is passed on where the far stream has it. Where it has not (smux), the end of the other side is kept back
//! until the answer has been delivered, and the end of such a stream is the end of everything. An idle pipe holds no
//! buffer: one is taken from a pool when a side becomes readable and given back when it is drained.

use super::BoxStream;
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Size of a copy buffer.
const BUFFER: usize = 64 * 1024;

/// Buffers that a thread keeps for the next reader.
const POOLED: usize = 16;

/// One end of a pipe: a stream, and what was already read from it.
#[derive(Debug)]
pub struct Side {
    /// The stream.
    pub stream: BoxStream,
    /// Bytes from `stream` that come first.
    pub prefix: Bytes,
}

/// How long a pipe may be silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One side has ended and the other says nothing for this long.
    pub half_close_timeout: Duration,
    /// Neither side says anything for this long; `None`: no limit.
    pub idle_timeout: Option<Duration>,
}

/// What went through a pipe and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes from the first side to the second.
    pub a_to_b: u64,
    /// Bytes from the second side to the first.
    pub b_to_a: u64,
    /// Why it is over.
    pub end: End,
}

/// Why a pipe is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions came to their end.
    Complete,
    /// Silence beyond `idleTimeout`.
    Idle,
    /// Silence beyond `halfCloseTimeout`.
    HalfCloseIdle,
    /// A stream failed.
    Failed(io::ErrorKind),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("ok"),
            Self::Idle => f.write_str("idle_timeout"),
            Self::HalfCloseIdle => f.write_str("half_close_timeout"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
        }
    }
}

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
}

fn give_buffer(buffer: Box<[u8]>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}

/// One direction.
#[derive(Debug)]
struct Copy {
    prefix: Bytes,
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    moved: u64,
    state: State,
    unflushed: bool,
    /// The source came to its end, rather than the target failing.
    source_ended: bool,
    failed: Option<io::ErrorKind>,
}

/// Which of the two streams failed.
enum Fault {
    Source(io::Error),
    Target(io::Error),
}

/// Where one direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes may come.
    Open,
    /// The source has ended; everything read from it has been written.
    Drained,
    /// The end was passed on.
    Shut,
}

impl Copy {
    fn new(prefix: Bytes) -> Self {
        Self {
            prefix,
            buffer: None,
            start: 0,
            end: 0,
            moved: 0,
            state: State::Open,
            unflushed: false,
            source_ended: false,
            failed: None,
        }
    }

    /// Moves bytes until one of the streams must be waited for (`Pending`) or the source has ended and all is written.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut BoxStream,
        to: &mut BoxStream,
    ) -> Poll<Result<(), Fault>> {
        while self.state == State::Open {
            ready!(self.poll_write(cx, to)).map_err(Fault::Target)?;
            match self.poll_read(cx, from) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    self.release();
                    self.source_ended = true;
                    self.state = State::Drained;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
                Poll::Pending => {
                    self.release();
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Fault::Target)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Pin::new(&mut *to).poll_flush(cx).map_err(Fault::Target)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut BoxStream) -> Poll<io::Result<()>> {
        while !self.prefix.is_empty() || self.start < self.end {
            let rest = match &self.buffer {
                Some(buffer) if self.prefix.is_empty() => &buffer[self.start..self.end],
                _ => &self.prefix[..],
            };
            let n = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if self.prefix.is_empty() {
                self.start += n;
            } else {
                self.prefix.advance(n);
            }
            self.moved += n as u64;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// `Ok(false)` at the end of the source.
    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut BoxStream) -> Poll<io::Result<bool>> {
        if self.buffer.is_none() {
            ready!(from.poll_readable(cx))?;
        }
        let buffer = self.buffer.get_or_insert_with(take_buffer);
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut read))?;
        (self.start, self.end) = (0, read.filled().len());
        Poll::Ready(Ok(self.end > 0))
    }

    fn release(&mut self) {
        if self.start == self.end
            && let Some(buffer) = self.buffer.take()
        {
            give_buffer(buffer);
        }
    }
}

/// Moves bytes between the two until both have ended, one has failed, or the limits are passed.
pub async fn pipe(a: Side, b: Side, limits: &Limits) -> Outcome {
    let (mut forth, mut back) = (Copy::new(a.prefix), Copy::new(b.prefix));
    let (mut a, mut b) = (a.stream, b.stream);
    let mut clock = Clock::default();
    let end = poll_fn(|cx| {
        let before = (forth.moved, back.moved);
        let done = poll_both(cx, &mut forth, &mut back, &mut a, &mut b);
        if let Poll::Ready(end) = done {
            return Poll::Ready(end.unwrap_or_else(|error| End::Failed(error.kind())));
        }
        let half = forth.state != State::Open || back.state != State::Open;
        let limit = if half { Some(limits.half_close_timeout) } else { limits.idle_timeout };
        let moved = before != (forth.moved, back.moved);
        clock.poll(cx, limit, moved).map(|()| if half { End::HalfCloseIdle } else { End::Idle })
    })
    .await;
    forth.release();
    back.release();
    Outcome { a_to_b: forth.moved, b_to_a: back.moved, end }
}

fn poll_both(
    cx: &mut Context<'_>,
    forth: &mut Copy,
    back: &mut Copy,
    a: &mut BoxStream,
    b: &mut BoxStream,
) -> Poll<io::Result<End>> {
    let first = poll_direction(cx, forth, a, b, back.state);
    let second = poll_direction(cx, back, b, a, forth.state);
    let complete = || forth.failed.or(back.failed).map_or(End::Complete, End::Failed);
    match (first, second) {
        (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(complete())),
        (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
        // A stream without half-close that ended has ended both ways.
        (Poll::Ready(Ok(())), Poll::Pending) if forth.source_ended && !a.half_close() => {
            Poll::Ready(Ok(complete()))
        }
        (Poll::Pending, Poll::Ready(Ok(()))) if back.source_ended && !b.half_close() => {
            Poll::Ready(Ok(complete()))
        }
        _ => Poll::Pending,
    }
}

/// Ready when this direction has ended and its end was passed on, as far as the target can be told.
fn poll_direction(
    cx: &mut Context<'_>,
    copy: &mut Copy,
    from: &mut BoxStream,
    to: &mut BoxStream,
    other: State,
) -> Poll<io::Result<()>> {
    if copy.state != State::Shut {
        if copy.state == State::Open {
            match ready!(copy.poll(cx, from, to)) {
                Ok(()) => {}
                Err(Fault::Source(error)) => return Poll::Ready(Err(error)),
                // The target takes no more, but may have sent something before it closed: the other direction goes on.
                Err(Fault::Target(error)) => {
                    copy.failed = Some(error.kind());
                    copy.state = State::Shut;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        // To end this direction of a stream without half-close would end the other one too: that one goes first.
        if !to.half_close() && other == State::Open {
            return Poll::Pending;
        }
        match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
            // The other side is gone already: that is an end, too.
            Ok(()) | Err(_) => copy.state = State::Shut,
        }
    }
    Poll::Ready(Ok(()))
}

/// One timer for both directions, moved only when it fires.
#[derive(Debug, Default)]
struct Clock {
    sleep: Option<Pin<Box<Sleep>>>,
    last: Option<Instant>,
    limit: Option<Duration>,
}

impl Clock {
    fn poll(&mut self, cx: &mut Context<'_>, limit: Option<Duration>, moved: bool) -> Poll<()> {
        let Some(limit) = limit else { return Poll::Pending };
        if moved || self.last.is_none() || self.limit != Some(limit) {
            self.last = Some(Instant::now());
        }
        let due = self.last.unwrap_or_else(Instant::now) + limit;
        if self.limit != Some(limit) {
            self.limit = Some(limit);
            self.sleep = Some(Box::pin(sleep_until(due)));
        }
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}
