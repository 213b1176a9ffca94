//! The task that owns a yamux connection: opens and accepts streams, and watches over a quiet peer.

use super::stream::{State, YamuxStream};
use super::{BACKLOG, Heard, OpenRequest, Shared};
use crate::mux::{CloseReason, Settings};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use yamux::Connection;

/// How often the crate pings; it has no setting for it.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// When a quiet connection is polled: late enough for a ping to be due by the crate's own clock.
const PING_AFTER: Duration = PING_INTERVAL.saturating_add(Duration::from_secs(1));
/// A shorter `mux.keepaliveTimeout` counts as this: a peer that lives must have had the time to answer a ping.
const LEAST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an ending session may take to send what it still has.
const CLOSE_LINGER: Duration = Duration::from_secs(5);

pub(super) struct Driver {
    shared: Arc<Shared>,
    connection: Connection<Compat<Heard>>,
    opens: mpsc::Receiver<OpenRequest>,
    /// Requests that the crate does not grant yet.
    waiting: VecDeque<OpenRequest>,
    accepted: mpsc::Sender<YamuxStream>,
    /// `None`: `mux.keepaliveDisabled`.
    keepalive: Option<Keepalive>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Connection<Compat<Heard>>,
        opens: mpsc::Receiver<OpenRequest>,
        accepted: mpsc::Sender<YamuxStream>,
        settings: &Settings,
    ) -> Self {
        let keepalive = settings.keepalive_interval.map(|_| Keepalive::new(settings.keepalive_timeout));
        Self { shared, connection, opens, waiting: VecDeque::new(), accepted, keepalive }
    }

    pub(super) async fn run(mut self) {
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
        if matches!(reason, CloseReason::Silent(_)) {
            self.shared.lose();
        }
        let _ = self.shared.reason.set(reason);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            if let Poll::Ready(reason) = self.poll_streams(cx) {
                return Poll::Ready(reason);
            }
            // What could be heard has been: a process that stood still does not blame its peer.
            let Some(keepalive) = &mut self.keepalive else { return Poll::Pending };
            if let Some(reason) = ready!(keepalive.poll(cx, self.shared.last_heard())) {
                return Poll::Ready(reason);
            }
        }
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let unused = self.poll_opens(cx);
            let stream = match ready!(self.poll_inbound(cx, unused)) {
                Ok(stream) => stream,
                Err(reason) => return Poll::Ready(reason),
            };
            if self.shared.streams.load(Ordering::Relaxed) < self.shared.max_streams {
                let stream = YamuxStream::new(self.shared.clone(), State::Open(stream.compat()));
                // A full backlog, or nobody there to accept: dropping it refuses it.
                let _ = self.accepted.try_send(stream);
            }
        }
    }

    /// The peer's next stream, or why there will be none.
    fn poll_inbound(
        &mut self,
        cx: &mut Context<'_>,
        unused: bool,
    ) -> Poll<Result<yamux::Stream, CloseReason>> {
        match self.connection.poll_next_inbound(cx) {
            Poll::Ready(Some(Ok(stream))) => Poll::Ready(Ok(stream)),
            Poll::Ready(Some(Err(e))) => Poll::Ready(Err(CloseReason::Transport(e.to_string().into()))),
            Poll::Ready(None) => Poll::Ready(Err(CloseReason::Ended)),
            Poll::Pending => {
                let idle = unused && self.accepted.is_closed();
                if idle && self.shared.streams.load(Ordering::Relaxed) == 0 {
                    return Poll::Ready(Err(CloseReason::Local));
                }
                Poll::Pending
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

/// Watches over a quiet connection.
#[derive(Debug)]
struct Keepalive {
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Keepalive {
    fn new(timeout: Duration) -> Self {
        Self { timeout: timeout.max(LEAST_TIMEOUT), timer: Box::pin(sleep(PING_AFTER)) }
    }

    /// Ready when the connection is to be polled, with the reason when it is to end.
    fn poll(&mut self, cx: &mut Context<'_>, heard: Instant) -> Poll<Option<CloseReason>> {
        let silent = heard.elapsed();
        if silent >= self.timeout {
            return Poll::Ready(Some(CloseReason::Silent(self.timeout)));
        }
        let at = heard + if silent < PING_AFTER { PING_AFTER } else { self.timeout };
        // What is heard moves the deadline away, so a timer that fires early is simply asked again.
        if self.timer.is_elapsed() || self.timer.deadline() > at {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx).map(|()| None)
    }
}
