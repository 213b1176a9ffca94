//! One request and its reply over two HTTP/2 streams; both bodies and their trailers move at once.

use super::super::exchange::{MAX_INTERIM, Unanswered};
use super::super::failure::{Cut, Failure};
use super::body::{Broken, Progress, Source, reason};
use super::connections::Use;
use super::{edit_headers, failed};
use crate::http::Settings;
use crate::http::rewrite::Changes;
use crate::record::Record;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::Poll;
use tokio::time::{sleep, timeout};

/// A request as it is sent, and what is done with the reply to it.
pub(super) struct Asking<'a> {
    pub(super) request: Request<()>,
    pub(super) changes: &'a Changes<'a>,
    pub(super) settings: &'a Settings,
}

/// Sends a request on a connection and passes the reply on; its status, and what cut it after it had begun. `record` learns how
/// far they come.
///
/// [`Unanswered::Retry`] only where the target cannot have acted on the request or may be asked twice, and all of the
/// body can be sent again.
pub(super) async fn exchange(
    used: &mut Use,
    asking: Asking<'_>,
    source: &mut Source,
    respond: &mut SendResponse<Bytes>,
    record: &mut Record<'_>,
) -> Result<(u16, Option<Cut>), Unanswered> {
    let Asking { request, changes, settings } = asking;
    let progress = Progress::new();
    let idempotent = crate::wire::http::is_idempotent(request.method().as_str().as_bytes());
    let ready = timeout(settings.reply_timeout, poll_fn(|cx| used.sender.poll_ready(cx))).await;
    ready.map_err(|_| Unanswered::Fail(Failure::Silent))?.map_err(|e| Unanswered::Retry(failed(&e)))?;
    let sent = used.sender.send_request(request, source.is_empty());
    let (answer, mut to_target) = sent.map_err(|e| unanswered(&e, idempotent))?;
    let mut exchange = Exchange { progress: &progress, changes, settings, used, idempotent };
    let asked = {
        let sending = source.send(&mut to_target, &progress, &progress.bytes_in);
        let mut upload = Upload { sending: pin!(sending), open: true };
        let mut asking = pin!(async {
            let reply = exchange.ask(answer, &mut upload, respond).await?;
            Ok((reply.status().as_u16(), exchange.answer(reply, &mut upload, respond).await))
        });
        poll_fn(|cx| {
            let end = asking.as_mut().poll(cx);
            *record.moved() = progress.moved();
            progress.status().into_iter().for_each(|status| record.replied(status));
            end
        })
        .await
    };
    if !matches!(&asked, Ok((_, None))) {
        to_target.send_reset(Reason::CANCEL);
    }
    match asked {
        Err(Unanswered::Retry(failure)) if !source.is_repeatable() => Err(Unanswered::Fail(failure)),
        asked => asked,
    }
}

/// What a target that has not answered may still be tried for.
fn unanswered(error: &h2::Error, idempotent: bool) -> Unanswered {
    // The target says that it has not looked at the stream (RFC 9113, section 8.7).
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let unseen = error.is_remote() && (error.is_go_away() || refused);
    if unseen || (error.is_io() && idempotent) {
        Unanswered::Retry(failed(error))
    } else {
        Unanswered::Fail(failed(error))
    }
}

/// The request's body on its way.
struct Upload<'f, F> {
    sending: Pin<&'f mut F>,
    open: bool,
}

impl<F: Future<Output = Result<(), Broken>>> Upload<'_, F> {
    /// Waits for the end of the body; for ever once it is over.
    async fn ended(&mut self) -> Result<(), Broken> {
        if !self.open {
            return pending().await;
        }
        let end = self.sending.as_mut().await;
        self.open = false;
        end
    }
}

struct Exchange<'a> {
    progress: &'a Progress,
    changes: &'a Changes<'a>,
    settings: &'a Settings,
    used: &'a Use,
    idempotent: bool,
}

impl Exchange<'_> {
    /// Waits for the reply's head.
    async fn ask<F: Future<Output = Result<(), Broken>>>(
        &mut self,
        mut answer: ResponseFuture,
        upload: &mut Upload<'_, F>,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Response<RecvStream>, Unanswered> {
        let silence = async {
            match self.used.silence {
                Some(after) => sleep(after).await,
                None => pending().await,
            }
        };
        let (mut silence, mut asked) = (pin!(silence), true);
        let mut interim = 0;
        loop {
            let (stall, reply) = (self.settings.stall_timeout, self.settings.reply_timeout);
            let overdue = self.progress.stalled(if upload.open { stall } else { reply });
            tokio::select! {
                biased;
                head = poll_head(&mut answer) => match head {
                    Head::Final(head) => return head.map_err(|e| unanswered(&e, self.idempotent)),
                    Head::Interim(head) => {
                        interim += 1;
                        if interim > MAX_INTERIM {
                            return Err(Unanswered::Fail(Failure::BadReply("too many interim replies")));
                        }
                        respond.send_informational(head).map_err(|_| Unanswered::Gone)?;
                    }
                },
                end = upload.ended() => match end {
                    Err(Broken::Source(_)) => return Err(Unanswered::Gone),
                    // Whoever reads no more may have answered all the same.
                    Ok(()) | Err(Broken::Sink) => self.progress.touch(),
                },
                _ = poll_fn(|cx| respond.poll_reset(cx)) => return Err(Unanswered::Gone),
                () = &mut silence, if asked => {
                    asked = false;
                    if !self.used.heard() {
                        return Err(Unanswered::Retry(Failure::Silent));
                    }
                }
                () = overdue => return Err(Unanswered::Fail(self.whose_fault(upload.open))),
            }
        }
    }

    fn whose_fault(&self, uploading: bool) -> Failure {
        if uploading && self.progress.starved.load(Ordering::Relaxed) {
            Failure::BodyTimeout
        } else {
            Failure::Silent
        }
    }

    /// Passes the reply on, together with whatever is left of the request.
    async fn answer<F: Future<Output = Result<(), Broken>>>(
        &mut self,
        reply: Response<RecvStream>,
        upload: &mut Upload<'_, F>,
        respond: &mut SendResponse<Bytes>,
    ) -> Option<Cut> {
        let (mut head, body) = reply.into_parts();
        edit_headers(&mut head.headers, self.changes.reply());
        self.progress.answered(head.status.as_u16());
        let mut source = Source::new(body);
        let Ok(mut to_visitor) = respond.send_response(Response::from_parts(head, ()), source.is_empty())
        else {
            return Some(Cut::Visitor);
        };
        let ended = self.pass(&mut source, upload, &mut to_visitor).await;
        if let Err((_, reason)) = ended {
            to_visitor.send_reset(reason);
        }
        ended.err().map(|(cut, _)| cut)
    }

    /// Moves both bodies to their ends; else what happened, and what the visitor is told.
    async fn pass<F: Future<Output = Result<(), Broken>>>(
        &self,
        source: &mut Source,
        upload: &mut Upload<'_, F>,
        to_visitor: &mut SendStream<Bytes>,
    ) -> Result<(), (Cut, Reason)> {
        let sending = source.send(to_visitor, self.progress, &self.progress.bytes_out);
        let mut download = Upload { sending: pin!(sending), open: true };
        while download.open || upload.open {
            tokio::select! {
                end = download.ended() => match end {
                    Ok(()) => {}
                    Err(Broken::Sink) => return Err((Cut::Visitor, Reason::CANCEL)),
                    Err(Broken::Source(error)) => return Err((Cut::Target("upstream failed in mid-reply"), reason(&error))),
                },
                end = upload.ended() => match end {
                    Err(Broken::Source(_)) => return Err((Cut::Visitor, Reason::CANCEL)),
                    // A target may stop reading before the end, and says so with a reset (RFC 9113, section 8.1).
                    Ok(()) | Err(Broken::Sink) => {}
                },
                () = self.progress.stalled(self.settings.stall_timeout) => {
                    return Err((Cut::Stalled, Reason::CANCEL));
                }
            }
        }
        Ok(())
    }
}

enum Head {
    Interim(Response<()>),
    Final(Result<Response<RecvStream>, h2::Error>),
}

/// The next head: interim replies come before the final one.
async fn poll_head(answer: &mut ResponseFuture) -> Head {
    poll_fn(|cx| {
        if let Poll::Ready(Some(Ok(interim))) = answer.poll_informational(cx) {
            return Poll::Ready(Head::Interim(interim));
        }
        Pin::new(&mut *answer).poll(cx).map(Head::Final)
    })
    .await
}
