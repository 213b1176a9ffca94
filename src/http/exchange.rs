//! One request and its reply over two streams, bytes unchanged.
//!
//! Request body and reply move at once, in one future without locks: whoever answers before the request is complete is
//! heard. What happens on the connection before and after is `http::serve`'s business.

use super::Settings;
use super::failure::Failure;
use crate::net::BoxStream;
use crate::wire::http::{Body, HeadReader, Limits, Rejected, ReplyHead, RequestHead};
use bytes::{Buf, Bytes, BytesMut};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

/// How much is read at once; a buffer of this size is held only while bytes are under way.
const READ_SIZE: usize = 16 * 1024;

/// Interim replies (1xx) to one request; a server that sends more is not answering.
const MAX_INTERIM: usize = 64;

/// A stream and the bytes read from it that nobody has used yet.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) stream: BoxStream,
    pub(crate) buf: BytesMut,
    /// How far a head at the front of the buffer has been searched.
    heads: HeadReader,
}

impl Buffered {
    pub(crate) fn new(stream: BoxStream, prefix: Bytes) -> Self {
        Self { stream, buf: BytesMut::from(prefix), heads: HeadReader::default() }
    }

    /// Reads more into the buffer; `Ok(0)` is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buf.is_empty() {
            ready!(self.stream.poll_readable(cx))?;
        }
        self.buf.reserve(READ_SIZE);
        tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buf)
    }

    /// Reads up to the end of a request head; `None` when the stream ended or failed before.
    pub(crate) async fn read_request(&mut self, limits: &Limits) -> Result<Option<RequestHead>, Rejected> {
        loop {
            if let Some(head) = self.heads.request(&mut self.buf, limits)? {
                return Ok(Some(head));
            }
            match poll_fn(|cx| self.poll_fill(cx)).await {
                Ok(n) if n > 0 => {}
                _ => return Ok(None),
            }
        }
    }

    /// The reply head at the front of the buffer, if all of it is there.
    fn take_reply(&mut self, limits: &Limits, request: &RequestHead) -> Result<Option<ReplyHead>, Rejected> {
        self.heads.reply(&mut self.buf, limits, request)
    }

    /// Gives the buffer back while there is nothing in it.
    pub(crate) fn release(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
    }
}

/// Why a body stopped half-way.
#[derive(Debug)]
enum Stopped {
    /// The reading side failed or ended too early.
    Read,
    /// The writing side failed.
    Write,
    /// The framing is broken.
    Malformed(Rejected),
}

/// Moves one message: a head that is ready to be written, then its body as it comes.
#[derive(Debug)]
struct Pump {
    head: Bytes,
    body: Body,
    /// Bytes at the front of the source's buffer that were checked and may be written.
    checked: usize,
    /// Body bytes written.
    moved: u64,
    flushed: bool,
}

impl Pump {
    fn new(head: Bytes, body: Body) -> Self {
        Self { head, body, checked: 0, moved: 0, flushed: false }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Buffered,
        to: &mut BoxStream,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            ready!(self.poll_write(cx, from, to)).map_err(|_| Stopped::Write)?;
            if self.body.is_done() {
                if !self.flushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Stopped::Write)?;
                    self.flushed = true;
                }
                return Poll::Ready(Ok(()));
            }
            if from.buf.is_empty() {
                let n = match from.poll_fill(cx) {
                    Poll::Ready(n) => n.map_err(|_| Stopped::Read)?,
                    Poll::Pending => {
                        from.release();
                        // What was written so far must not wait for the rest of the body.
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Stopped::Write)?;
                        return Poll::Pending;
                    }
                };
                if n == 0 {
                    self.body.end().map_err(|_| Stopped::Read)?;
                    continue;
                }
            }
            self.checked = self.body.advance(&from.buf).map_err(Stopped::Malformed)?;
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Buffered,
        to: &mut BoxStream,
    ) -> Poll<io::Result<()>> {
        while !self.head.is_empty() || self.checked > 0 {
            let slices = [io::IoSlice::new(&self.head), io::IoSlice::new(&from.buf[..self.checked])];
            let n = ready!(Pin::new(&mut *to).poll_write_vectored(cx, &slices))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = n.min(self.head.len());
            self.head.advance(of_head);
            from.buf.advance(n - of_head);
            self.checked -= n - of_head;
            self.moved += (n - of_head) as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether anything was taken from the source: then the message cannot be sent a second time.
    fn untouched(&self) -> bool {
        self.moved == 0
    }
}

/// How an exchange ended before the reply began.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Another upstream may be tried: nothing of the request's body is lost.
    Retry(Failure),
    /// It may not.
    Fail(Failure),
    /// The visitor went away.
    Gone,
}

/// A reply whose head has come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: ReplyHead,
    request: Pump,
    /// `false` once the request can not be completed (the upstream stopped reading).
    request_open: bool,
}

/// What is known when the reply has been passed on.
#[derive(Debug)]
pub(crate) struct Done {
    /// Request and reply are both complete and the visitor may send another request.
    pub(crate) request_complete: bool,
    pub(crate) reply_complete: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) error: Option<&'static str>,
}

/// One timer for a whole exchange: moved only when it fires, so progress costs nothing.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
    last: Instant,
}

impl Deadline {
    fn new(limit: Duration) -> Self {
        let last = Instant::now();
        Self { sleep: Box::pin(sleep_until(last + limit)), limit, last }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if self.last.elapsed() >= self.limit {
                return Poll::Ready(());
            }
            let at = self.last + self.limit;
            self.sleep.as_mut().reset(at);
        }
    }
}

/// Sends the request and reads the reply's head, passing interim replies on.
///
/// `silence` asks, after that time without a sign that the far end has read anything, whether to give up early.
pub(crate) async fn ask(
    client: &mut Buffered,
    upstream: &mut Buffered,
    head: &RequestHead,
    sent_head: Bytes,
    settings: &Settings,
    silence: Option<Duration>,
) -> Result<Answer, Unanswered> {
    let mut request = Pump::new(sent_head, Body::new(head.framing()));
    let mut request_open = true;
    let mut interim = Bytes::new();
    let mut interim_count = 0;
    let mut began = false;
    let started = Instant::now();
    let mut deadline = Deadline::new(settings.reply_timeout);
    let mut silence = silence.map(|after| Box::pin(sleep_until(started + after)));
    let reply = poll_fn(|cx| {
        loop {
            if request_open {
                let before = request.moved;
                match request.poll(cx, client, &mut upstream.stream) {
                    Poll::Ready(Ok(())) => {
                        request_open = false;
                        deadline.last = Instant::now();
                    }
                    Poll::Ready(Err(Stopped::Read)) => return Poll::Ready(Err(Unanswered::Gone)),
                    Poll::Ready(Err(Stopped::Malformed(r))) => {
                        return Poll::Ready(Err(Unanswered::Fail(Failure::Request(r))));
                    }
                    // The upstream reads no more; it may have answered already.
                    Poll::Ready(Err(Stopped::Write)) => request_open = false,
                    Poll::Pending => {}
                }
                if request.moved != before {
                    deadline.last = Instant::now();
                }
            }
            while !interim.is_empty() {
                let written = ready!(Pin::new(&mut client.stream).poll_write(cx, &interim));
                match written {
                    Ok(n) if n > 0 => interim.advance(n),
                    _ => return Poll::Ready(Err(Unanswered::Gone)),
                }
                if interim.is_empty() && ready!(Pin::new(&mut client.stream).poll_flush(cx)).is_err() {
                    return Poll::Ready(Err(Unanswered::Gone));
                }
            }
            match upstream.take_reply(&settings.limits, head) {
                Ok(Some(reply)) if reply.is_interim() => {
                    began = true;
                    interim_count += 1;
                    if interim_count > MAX_INTERIM {
                        let failure = Failure::BadReply("too many interim replies");
                        return Poll::Ready(Err(Unanswered::Fail(failure)));
                    }
                    // HTTP/1.0 knows no interim replies (RFC 9110, section 15.2).
                    if !head.is_http10() {
                        interim = reply.raw().clone();
                    }
                    continue;
                }
                Ok(Some(reply)) => return Poll::Ready(Ok(reply)),
                Ok(None) => {}
                Err(r) => return Poll::Ready(Err(Unanswered::Fail(Failure::BadReply(r.reason)))),
            }
            match upstream.poll_fill(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    began = true;
                    continue;
                }
                Poll::Ready(end) => {
                    let why = end.err().map_or_else(|| "connection closed".to_owned(), |e| e.to_string());
                    let failure = Failure::Down(format!("{why} before the reply"));
                    let unread = upstream.stream.far_end_has_read() == Some(false);
                    let again = !began && request.untouched() && (head.idempotent() || unread);
                    return Poll::Ready(Err(if again {
                        Unanswered::Retry(failure)
                    } else {
                        Unanswered::Fail(failure)
                    }));
                }
                Poll::Pending => {}
            }
            if let Some(timer) = &mut silence
                && timer.as_mut().poll(cx).is_ready()
            {
                silence = None;
                if !began && request.untouched() && upstream.stream.far_end_has_read() == Some(false) {
                    return Poll::Ready(Err(Unanswered::Retry(Failure::Silent)));
                }
            }
            ready!(deadline.poll(cx));
            return Poll::Ready(Err(Unanswered::Fail(Failure::Silent)));
        }
    })
    .await?;
    Ok(Answer { head: reply, request, request_open })
}

/// Passes the reply on, its head as `sent_head`, together with whatever is left of the request.
pub(crate) async fn answer(
    client: &mut Buffered,
    upstream: &mut Buffered,
    answer: Answer,
    sent_head: Bytes,
    settings: &Settings,
) -> Done {
    let Answer { head, mut request, mut request_open } = answer;
    let mut reply = Pump::new(sent_head, Body::new(head.framing()));
    let mut request_failed = !request_open && !request.flushed;
    let mut deadline = Deadline::new(settings.stall_timeout);
    let ended: Result<(), &'static str> = poll_fn(|cx| {
        let before = (request.moved, reply.moved);
        if request_open && let Poll::Ready(end) = request.poll(cx, client, &mut upstream.stream) {
            request_open = false;
            request_failed = end.is_err();
        }
        match reply.poll(cx, upstream, &mut client.stream) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Stopped::Read)) => return Poll::Ready(Err("upstream ended in mid-reply")),
            Poll::Ready(Err(Stopped::Write)) => return Poll::Ready(Err("visitor gone")),
            Poll::Ready(Err(Stopped::Malformed(r))) => return Poll::Ready(Err(r.reason)),
            Poll::Pending => {}
        }
        if before != (request.moved, reply.moved) {
            deadline.last = Instant::now();
        }
        deadline.poll(cx).map(|()| Err("stalled"))
    })
    .await;
    Done {
        request_complete: !request_open && !request_failed,
        reply_complete: ended.is_ok(),
        bytes_in: request.moved,
        bytes_out: reply.moved,
        error: ended.err(),
    }
}
