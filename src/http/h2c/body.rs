//! A body and its trailers from one HTTP/2 stream to another, under both sides' flow control.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// The reply has begun: nothing will be sent to another target.
    pub(super) answered: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        let (starved, answered) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { began: Instant::now(), last: AtomicU64::new(0), starved, answered }
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
    /// Bytes passed on by the last try.
    pub(super) moved: u64,
}

impl Source {
    pub(super) fn new(body: RecvStream) -> Self {
        let ended = body.is_end_stream();
        Self { body, kept: Vec::new(), repeatable: true, trailers: None, ended, received: 0, moved: 0 }
    }

    /// No body at all: its end goes out with the head.
    pub(super) fn is_empty(&self) -> bool {
        self.ended && self.received == 0 && self.trailers.is_none()
    }

    /// Whether all that was received can be sent again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Passes everything on, from the beginning.
    pub(super) async fn send(
        &mut self,
        to: &mut SendStream<Bytes>,
        progress: &Progress,
    ) -> Result<(), Broken> {
        self.moved = 0;
        if self.is_empty() {
            return Ok(());
        }
        for chunk in self.kept.clone() {
            self.pass(chunk, to, progress).await?;
        }
        while !self.ended {
            progress.starved.store(true, Ordering::Relaxed);
            let next = self.next(to).await;
            progress.starved.store(false, Ordering::Relaxed);
            let Some(chunk) = next? else { break };
            let len = chunk.len();
            self.keep(&chunk, progress.answered.load(Ordering::Relaxed));
            self.pass(chunk, to, progress).await?;
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

    async fn pass(
        &mut self,
        mut chunk: Bytes,
        to: &mut SendStream<Bytes>,
        progress: &Progress,
    ) -> Result<(), Broken> {
        while !chunk.is_empty() {
            to.reserve_capacity(chunk.len());
            let capacity = poll_fn(|cx| to.poll_capacity(cx)).await;
            let Some(Ok(capacity)) = capacity else { return Err(Broken::Sink) };
            let part = chunk.split_to(capacity.min(chunk.len()));
            self.moved += part.len() as u64;
            to.send_data(part, false).map_err(|_| Broken::Sink)?;
            progress.touch();
        }
        Ok(())
    }
}

/// The reason with which the end that did not fail is reset.
pub(super) fn reason(error: &h2::Error) -> Reason {
    // Without one the connection broke, not the stream.
    error.reason().filter(|_| error.is_reset()).unwrap_or(Reason::INTERNAL_ERROR)
}
