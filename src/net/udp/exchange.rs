//! Datagrams both ways between two ends until one is over, or both are silent for too long.

use super::{BoxDatagrams, Datagrams};
use crate::net::pipe::Which;
use bytes::Bytes;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How long the last datagrams of a flow may take to leave: a stream that takes no more is left after this.
const LINGER: Duration = Duration::from_secs(5);

/// How a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// This end said so.
    ClosedBy(Which),
    /// By silence, which for most flows is the only end there is.
    Silent,
    /// This end broke; of a UDP socket: nobody listens at its peer.
    Error(Which, io::ErrorKind),
}

impl End {
    /// The word for logs and metrics.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::ClosedBy(_) | Self::Silent => "ok",
            Self::Error(Which::A, _) => "visitor_failed",
            Self::Error(Which::B, _) => "target_failed",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedBy(_) | Self::Silent => f.write_str("ended in order"),
            Self::Error(Which::A, kind) => write!(f, "visitor failed: {kind}"),
            Self::Error(Which::B, io::ErrorKind::ConnectionRefused) => {
                f.write_str("target failed: nobody listens there")
            }
            Self::Error(Which::B, kind) => write!(f, "target failed: {kind}"),
        }
    }
}

/// Moves datagrams between `a` and `b`, beginning with those of `a` in `held`, until one of them ends or nothing has come from
/// either for `silence`. `count` is told the bytes from A and from B, as they were sent.
pub async fn exchange(
    mut a: BoxDatagrams,
    mut b: BoxDatagrams,
    held: Vec<Bytes>,
    silence: Duration,
    mut count: impl FnMut(u64, u64),
) -> End {
    let mut run = Run::new(held, silence);
    let end = poll_fn(|cx| {
        let end = run.poll(cx, &mut *a, &mut *b);
        count(run.from_a.bytes, run.from_b.bytes);
        end
    });
    let end = end.await;
    let goodbye = async {
        // One that broke has nothing to be told.
        let _ = poll_fn(|cx| a.poll_close(cx)).await;
        let _ = poll_fn(|cx| b.poll_close(cx)).await;
    };
    let _ = timeout(LINGER, goodbye).await;
    end
}

#[derive(Debug)]
struct Run {
    from_a: Direction,
    from_b: Direction,
    silence: Duration,
    /// Datagrams of both, and when the last one came.
    moved: u64,
    active: Instant,
    /// Set anew only when it fires: traffic does not touch the timer.
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug, Default)]
struct Direction {
    /// To be sent before what still comes, in order.
    held: std::collections::VecDeque<Bytes>,
    bytes: u64,
    datagrams: u64,
}

/// What ends a direction.
#[derive(Debug)]
enum Over {
    Ended,
    Source(io::ErrorKind),
    Destination(io::ErrorKind),
}

impl Run {
    fn new(held: Vec<Bytes>, silence: Duration) -> Self {
        let active = Instant::now();
        Self {
            from_a: Direction { held: held.into(), ..Direction::default() },
            from_b: Direction::default(),
            silence,
            moved: 0,
            active,
            timer: Box::pin(sleep_until(active + silence)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, a: &mut dyn Datagrams, b: &mut dyn Datagrams) -> Poll<End> {
        // Answers first: an end that closes with one is seen by the direction that reads it.
        if let Poll::Ready(over) = self.from_b.poll(cx, b, a) {
            return Poll::Ready(over.end(Which::B, Which::A));
        }
        if let Poll::Ready(over) = self.from_a.poll(cx, a, b) {
            return Poll::Ready(over.end(Which::A, Which::B));
        }
        self.poll_silence(cx)
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let moved = self.from_a.datagrams + self.from_b.datagrams;
        if moved != self.moved {
            self.moved = moved;
            self.active = Instant::now();
        }
        let deadline = self.active + self.silence;
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.timer.deadline() >= deadline {
                return Poll::Ready(End::Silent);
            }
            self.timer.as_mut().reset(deadline);
        }
    }
}

impl Direction {
    /// Goes as far as it can.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut dyn Datagrams, to: &mut dyn Datagrams) -> Poll<Over> {
        let destination = |error: io::Error| Over::Destination(error.kind());
        loop {
            while let Some(datagram) = self.held.front() {
                if let Err(error) = ready!(to.poll_send(cx, datagram)) {
                    return Poll::Ready(destination(error));
                }
                self.bytes += datagram.len() as u64;
                self.datagrams += 1;
                self.held.pop_front();
            }
            match from.poll_recv(cx) {
                Poll::Ready(Ok(Some(datagram))) => self.held.push_back(datagram),
                Poll::Ready(Ok(None)) => return Poll::Ready(Over::Ended),
                Poll::Ready(Err(error)) => return Poll::Ready(Over::Source(error.kind())),
                Poll::Pending => {
                    if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
                        return Poll::Ready(destination(error));
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Over {
    fn end(self, from: Which, to: Which) -> End {
        match self {
            Self::Ended => End::ClosedBy(from),
            Self::Source(kind) => End::Error(from, kind),
            Self::Destination(kind) => End::Error(to, kind),
        }
    }
}
