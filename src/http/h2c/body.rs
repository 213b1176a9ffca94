//! A body and its trailers from one HTTP/2 stream to another, under both sides' flow control.

use crate::record::Moved;
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Bytes of a request body that are kept until the reply begins, so that another target may get them. They are views of what
/// was received; for longer bodies no other target is tried.
const MAX_REPEATED: usize = 64 * 1024;

/// What both bodies of an exchange have in common: when something last moved, and for whom the request waits.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    /// Milliseconds from there.
    last: AtomicU64,
    /// The visitor's body is waited for, not the target.
    pub(super) starved: AtomicBool,
    /// Of the reply, once it has begun: from then on nothing will be sent to another target. 0: it has not.
    status: AtomicU16,
    /// Bytes of the request's body, and of the reply's, that were passed on.
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            status: AtomicU16::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    pub(super) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
        self.touch();
    }

    pub(super) fn status(&self) -> Option<u16> {
        Some(self.status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    pub(super) fn moved(&self) -> Moved {
        let load = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        Moved { bytes_in: load(&self.bytes_in), bytes_out: load(&self.bytes_out) }
    }

    pub(super) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing has moved for so long.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let deadline = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// Which end of a body failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// Where it comes from.
    Source(h2::Error),
    /// Where it goes.
    Sink,
}

/// A body that is received, and how far.
#[derive(Debug)]
pub(super) struct Source {
    body: RecvStream,
    /// What has been received so far, while it may have to be sent again.
    kept: Vec<Bytes>,
    repeatable: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
    received: usize,
}

impl Source {
    pub(super) fn new(body: RecvStream) -> Self {
        let ended = body.is_end_stream();
        Self { body, kept: Vec::new(), repeatable: true, trailers: None, ended, received: 0 }
    }

    /// No body at all: its end goes out with the head.
    pub(super) fn is_empty(&self) -> bool {
        self.ended && self.received == 0 && self.trailers.is_none()
    }

    /// Whether all that was received can be sent again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Passes everything on, from the beginning, and counts it in `moved`, which is one of the `progress`.
    pub(super) async fn send(
        &mut self,
        to: &mut SendStream<Bytes>,
        progress: &Progress,
        moved: &AtomicU64,
    ) -> Result<(), Broken> {
        if self.is_empty() {
            return Ok(());
        }
        for chunk in self.kept.clone() {
            pass(chunk, to, progress, moved).await?;
        }
        while !self.ended {
            progress.starved.store(true, Ordering::Relaxed);
            let next = self.next(to).await;
            progress.starved.store(false, Ordering::Relaxed);
            let Some(chunk) = next? else { break };
            let len = chunk.len();
            self.keep(&chunk, progress.status().is_some());
            pass(chunk, to, progress, moved).await?;
            self.body.flow_control().release_capacity(len).map_err(Broken::Source)?;
        }
        match self.trailers.clone() {
            Some(trailers) => to.send_trailers(trailers),
            None => to.send_data(Bytes::new(), true),
        }
        .map_err(|_| Broken::Sink)
    }

    /// The next piece; `None` at the end, with the trailers in place. A reset of the other side ends the wait.
    async fn next(&mut self, to: &mut SendStream<Bytes>) -> Result<Option<Bytes>, Broken> {
        let data = poll_fn(|cx| match self.body.poll_data(cx) {
            Poll::Ready(data) => Poll::Ready(Ok(data)),
            Poll::Pending => to.poll_reset(cx).map(|_| Err(Broken::Sink)),
        });
        if let Some(chunk) = data.await? {
            return chunk.map(Some).map_err(Broken::Source);
        }
        self.trailers = self.body.trailers().await.map_err(Broken::Source)?;
        self.ended = true;
        Ok(None)
    }

    fn keep(&mut self, chunk: &Bytes, answered: bool) {
        self.received += chunk.len();
        if answered || self.received > MAX_REPEATED {
            self.kept = Vec::new();
            self.repeatable = false;
        } else if self.repeatable {
            self.kept.push(chunk.clone());
        }
    }
}

async fn pass(
    mut chunk: Bytes,
    to: &mut SendStream<Bytes>,
    progress: &Progress,
    moved: &AtomicU64,
) -> Result<(), Broken> {
    while !chunk.is_empty() {
        to.reserve_capacity(chunk.len());
        let capacity = poll_fn(|cx| to.poll_capacity(cx)).await;
        let Some(Ok(capacity)) = capacity else { return Err(Broken::Sink) };
        let part = chunk.split_to(capacity.min(chunk.len()));
        moved.fetch_add(part.len() as u64, Ordering::Relaxed);
        to.send_data(part, false).map_err(|_| Broken::Sink)?;
        progress.touch();
    }
    Ok(())
}

/// The reason with which the end that did not fail is reset.
pub(super) fn reason(error: &h2::Error) -> Reason {
    // Without one the connection broke, not the stream.
    error.reason().filter(|_| error.is_reset()).unwrap_or(Reason::INTERNAL_ERROR)
}
