//! One request and its reply over two streams, bytes unchanged.
//!
//! Request body and reply move at once, in one future without locks: whoever answers before the request is complete is
//! heard. What happens on the connection before and after is `http::serve`'s business.

use super::Settings;
use super::deadline::Deadline;
use super::doubt::{Doubt, Verdict};
use super::failure::{Cut, Failure};
use super::pump::{Buffered, Pump, Stopped};
use super::upstream::Upstream;
use crate::net;
use crate::net::timer::Timer;
use crate::record::Moved;
use crate::wire::http::{Body, Framing, ReplyHead, RequestHead};
use bytes::{Buf, Bytes};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Interim replies (1xx) to one request; a server that sends more is not answering.
pub(super) const MAX_INTERIM: usize = 64;

/// How an exchange ended before the reply began.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Another upstream may be tried: all of the request is still there.
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
    request: Upload,
}

/// What is known when the reply has been passed on.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) request_complete: bool,
    pub(crate) reply_complete: bool,
    /// Whether the visitor got anything of it.
    pub(crate) reply_begun: bool,
    pub(crate) cut: Option<Cut>,
}

/// Sends the request and reads the reply's head, passing interim replies on. Gives up early where what stands before the target
/// seems to hang.
pub(crate) async fn ask(
    client: &mut Buffered,
    upstream: &mut Upstream,
    head: &RequestHead,
    sent_head: Bytes,
    settings: &Settings,
    moved: &mut Moved,
) -> Result<Answer, Unanswered> {
    let mut asking = Asking::new(head, sent_head, settings, Doubt::of(upstream));
    let upstream = &mut upstream.io;
    if asking.may_repeat(upstream) {
        asking.request.pump.keep();
    }
    let end = poll_fn(|cx| {
        let end = asking.poll(cx, client, upstream);
        moved.bytes_in = asking.request.pump.moved();
        end
    });
    match end.await {
        Ok(reply) => {
            let mut request = asking.request;
            request.pump.forget();
            Ok(Answer { head: reply, request })
        }
        Err(unanswered) => {
            if matches!(unanswered, Unanswered::Retry(_)) {
                asking.request.pump.put_back(client);
            }
            Err(unanswered)
        }
    }
}

/// Passes the reply on, its head as `sent_head`, together with whatever is left of the request.
pub(crate) fn answer<'a>(
    client: &'a mut Buffered,
    upstream: &'a mut Buffered,
    answer: Answer,
    sent_head: Bytes,
    settings: &Settings,
    moved: &'a mut Moved,
) -> impl Future<Output = Done> + use<'a> {
    let Answer { head, request } = answer;
    let reply = Pump::new(sent_head, Body::new(head.framing()));
    let deadline = Deadline::new(settings.stall_timeout);
    let mut answering = Answering { request, reply, reply_complete: false, head, deadline };
    poll_fn(move |cx| {
        let end = answering.poll(cx, client, upstream);
        *moved = Moved { bytes_in: answering.request.pump.moved(), bytes_out: answering.reply.moved() };
        end.map(|ended| Done {
            request_complete: answering.request.is_complete(),
            reply_complete: answering.reply_complete,
            reply_begun: answering.reply.has_begun(),
            cut: ended.err(),
        })
    })
}

/// The request on its way.
#[derive(Debug)]
struct Upload {
    pump: Pump,
    state: UploadState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Moving,
    Complete,
    /// The upstream reads no more; it may have answered all the same. `reset`: it broke the connection.
    Refused {
        reset: bool,
    },
}

impl Upload {
    fn is_moving(&self) -> bool {
        self.state == UploadState::Moving
    }

    fn is_complete(&self) -> bool {
        self.state == UploadState::Complete
    }

    /// Moves what can be moved; an error is the visitor's.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Buffered,
        upstream: &mut Buffered,
    ) -> Result<(), Stopped> {
        if !self.is_moving() {
            return Ok(());
        }
        self.state = match self.pump.poll(cx, client, &mut upstream.stream) {
            Poll::Pending => UploadState::Moving,
            Poll::Ready(Ok(())) => UploadState::Complete,
            Poll::Ready(Err(Stopped::Write(kind))) => {
                UploadState::Refused { reset: kind == io::ErrorKind::ConnectionReset }
            }
            Poll::Ready(Err(stopped)) => return Err(stopped),
        };
        Ok(())
    }
}

/// A request that has not been answered yet.
struct Asking<'a> {
    head: &'a RequestHead,
    settings: &'a Settings,
    request: Upload,
    /// The visitor holds its body back until it hears from the upstream.
    expects_continue: bool,
    /// An interim reply that is being passed on.
    interim: Bytes,
    interim_count: usize,
    /// Whether the upstream has sent anything.
    began: bool,
    deadline: Deadline,
    doubt: Option<Doubt>,
}

impl<'a> Asking<'a> {
    fn new(head: &'a RequestHead, sent_head: Bytes, settings: &'a Settings, doubt: Option<Doubt>) -> Self {
        let expects_continue = head.expects_continue();
        let limit = if expects_continue { settings.reply_timeout } else { settings.stall_timeout };
        Self {
            head,
            settings,
            request: Upload {
                pump: Pump::new(sent_head, Body::new(head.framing())),
                state: UploadState::Moving,
            },
            expects_continue,
            interim: Bytes::new(),
            interim_count: 0,
            began: false,
            deadline: Deadline::new(limit),
            doubt,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Buffered,
        upstream: &mut Buffered,
    ) -> Poll<Result<ReplyHead, Unanswered>> {
        self.poll_request(cx, client, upstream)?;
        if let Poll::Ready(reply) = self.poll_reply(cx, client, upstream) {
            return Poll::Ready(reply);
        }
        self.poll_visitor(cx, client)?;
        self.poll_doubt(cx, &mut client.timer, upstream)?;
        ready!(self.deadline.poll(cx, &mut client.timer));
        Poll::Ready(Err(self.overdue()))
    }

    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Buffered,
        upstream: &mut Buffered,
    ) -> Result<(), Unanswered> {
        if !self.request.is_moving() {
            return Ok(());
        }
        // Nobody waits for the answer, and the request may have been given to others since.
        if !self.head.idempotent() && !self.request.pump.has_begun() && client.stream.far_end_is_gone() {
            return Err(Unanswered::Gone);
        }
        let before = self.request.pump.moved();
        self.request.poll(cx, client, upstream).map_err(|stopped| match stopped {
            Stopped::Malformed(rejected) => Unanswered::Fail(Failure::Request(rejected)),
            Stopped::Read | Stopped::Write(_) => Unanswered::Gone,
        })?;
        if !self.request.is_moving() {
            self.deadline.begin(self.settings.reply_timeout);
        } else if self.request.pump.moved() != before {
            self.body_moves();
        }
        Ok(())
    }

    /// The body is under way: from here on it is its progress that counts.
    fn body_moves(&mut self) {
        if std::mem::take(&mut self.expects_continue) {
            self.deadline.begin(self.settings.stall_timeout);
        }
        self.deadline.progress();
    }

    fn poll_reply(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Buffered,
        upstream: &mut Buffered,
    ) -> Poll<Result<ReplyHead, Unanswered>> {
        loop {
            ready!(self.poll_interim(cx, client))?;
            match upstream.take_reply(&self.settings.limits, self.head) {
                Ok(Some(reply)) if reply.is_interim() => self.pass_interim(&reply)?,
                Ok(Some(reply)) => return Poll::Ready(Ok(reply)),
                Ok(None) => match ready!(upstream.poll_fill(cx)) {
                    Ok(n) if n > 0 => self.began = true,
                    end => return Poll::Ready(Err(self.ended(upstream, end.err()))),
                },
                Err(r) => return Poll::Ready(Err(Unanswered::Fail(Failure::BadReply(r.reason)))),
            }
        }
    }

    fn pass_interim(&mut self, reply: &ReplyHead) -> Result<(), Unanswered> {
        self.interim_count += 1;
        if self.interim_count > MAX_INTERIM {
            return Err(Unanswered::Fail(Failure::BadReply("too many interim replies")));
        }
        if self.request.is_moving() {
            // A visitor that has waited for this begins with its body now.
            self.body_moves();
        }
        // HTTP/1.0 knows no interim replies (RFC 9110, section 15.2).
        if !self.head.is_http10() {
            self.interim = reply.raw().clone();
        }
        Ok(())
    }

    fn poll_interim(&mut self, cx: &mut Context<'_>, client: &mut Buffered) -> Poll<Result<(), Unanswered>> {
        while !self.interim.is_empty() {
            match ready!(Pin::new(&mut client.stream).poll_write(cx, &self.interim)) {
                Ok(n) if n > 0 => self.interim.advance(n),
                _ => return Poll::Ready(Err(Unanswered::Gone)),
            }
            if self.interim.is_empty() && ready!(Pin::new(&mut client.stream).poll_flush(cx)).is_err() {
                return Poll::Ready(Err(Unanswered::Gone));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the request may be sent a second time, if it is not answered.
    fn may_repeat(&self, upstream: &Buffered) -> bool {
        self.head.idempotent() || unread(upstream)
    }

    /// The same of what was sent so far, while there is no sign of an answer.
    fn may_go_elsewhere(&self, upstream: &Buffered) -> bool {
        !self.began && self.request.pump.repeatable() && self.may_repeat(upstream)
    }

    /// The upstream ended instead of replying.
    fn ended(&self, upstream: &Buffered, error: Option<io::Error>) -> Unanswered {
        let why = error.map_or_else(|| "connection closed".to_owned(), |e| e.to_string());
        let failure = Failure::Down(format!("{why} before the reply"));
        if self.may_go_elsewhere(upstream) { Unanswered::Retry(failure) } else { Unanswered::Fail(failure) }
    }

    /// Whether the visitor is known to be gone. An end alone says so only where there is no half-close: elsewhere the visitor
    /// may still read. Bytes that come are the next request's; while they wait nothing more is seen.
    fn poll_visitor(&self, cx: &mut Context<'_>, client: &mut Buffered) -> Result<(), Unanswered> {
        if self.request.is_moving() || !client.buf.is_empty() {
            return Ok(());
        }
        let read = client.poll_fill(cx);
        client.release();
        match read {
            Poll::Ready(Err(_)) => Err(Unanswered::Gone),
            Poll::Ready(Ok(0)) if !client.stream.half_close() => Err(Unanswered::Gone),
            _ => Ok(()),
        }
    }

    fn poll_doubt(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Timer,
        upstream: &Buffered,
    ) -> Result<(), Unanswered> {
        while self.doubt.as_mut().is_some_and(|doubt| doubt.deadline.poll(cx, timer).is_ready()) {
            let may_go_elsewhere = self.may_go_elsewhere(upstream);
            let Some(doubt) = self.doubt.as_mut().filter(|_| may_go_elsewhere) else {
                self.doubt = None;
                break;
            };
            match doubt.look(unread(upstream)) {
                Verdict::Lives => self.doubt = None,
                Verdict::Hangs => return Err(Unanswered::Retry(Failure::Silent)),
                Verdict::Unknown => doubt.deadline.progress(),
            }
        }
        Ok(())
    }

    /// Who is to blame that nothing moves.
    fn overdue(&self) -> Unanswered {
        if !self.interim.is_empty() {
            return Unanswered::Gone;
        }
        let waits_for_visitor =
            self.request.is_moving() && self.request.pump.is_starved() && !self.expects_continue;
        Unanswered::Fail(if waits_for_visitor { Failure::BodyTimeout } else { Failure::Silent })
    }
}

fn unread(upstream: &Buffered) -> bool {
    upstream.stream.far_end_has_read() == Some(false)
}

/// A reply on its way to the visitor.
struct Answering {
    request: Upload,
    reply: Pump,
    reply_complete: bool,
    head: ReplyHead,
    deadline: Deadline,
}

impl Answering {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Buffered,
        upstream: &mut Buffered,
    ) -> Poll<Result<(), Cut>> {
        let before = (self.request.pump.moved(), self.reply.moved());
        if let Err(stopped) = self.request.poll(cx, client, upstream) {
            // A reply that is under way is complete in itself; it is only the connection that cannot go on.
            self.request.state = UploadState::Refused { reset: false };
            if matches!(stopped, Stopped::Read) && self.reply_complete {
                return Poll::Ready(Err(Cut::Visitor));
            }
        }
        if !self.reply_complete
            && let Poll::Ready(end) = self.reply.poll(cx, upstream, &mut client.stream)
        {
            self.reply_ended(end)?;
        }
        if self.reply_complete && !self.wants_request(cx, upstream) {
            return Poll::Ready(Ok(()));
        }
        if before != (self.request.pump.moved(), self.reply.moved()) {
            self.deadline.progress();
        }
        self.deadline.poll(cx, &mut client.timer).map(|()| Err(Cut::Stalled))
    }

    fn reply_ended(&mut self, end: Result<(), Stopped>) -> Result<(), Cut> {
        match end {
            // Whoever writes to a connection that was reset takes the error away, and the reader sees an orderly end.
            Ok(())
                if self.head.framing() == Framing::Close
                    && self.request.state == (UploadState::Refused { reset: true }) =>
            {
                Err(Cut::Target("upstream failed in mid-reply"))
            }
            Ok(()) => {
                self.reply_complete = true;
                self.deadline.progress();
                Ok(())
            }
            Err(Stopped::Read) => Err(Cut::Target("upstream ended in mid-reply")),
            Err(Stopped::Write(_)) => Err(Cut::Visitor),
            Err(Stopped::Malformed(rejected)) => Err(Cut::Target(rejected.reason)),
        }
    }

    /// Whether an upstream that has answered early still reads the request: it does when it means to keep the connection,
    /// and has neither ended it nor sent what nobody asked for.
    fn wants_request(&self, cx: &mut Context<'_>, upstream: &mut Buffered) -> bool {
        self.request.is_moving()
            && self.head.keep_alive()
            && upstream.buf.is_empty()
            && net::poll_arrival(&mut *upstream.stream, cx).is_pending()
    }
}
