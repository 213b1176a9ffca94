//! One request of a visitor and the reply to it: where it goes, what is changed on the way, and what becomes of both connections.

use super::exchange::{self, Unanswered};
use super::failure::{Cut, Failure};
use super::pool::Idle;
use super::pump::Buffered;
use super::rewrite::{Changes, Edit};
use super::upstream::Way;
use super::{
    Asked, Context, MAX_ATTEMPTS, Next, Responder, Router, TOO_EARLY, host, record_of, refuse_request, send,
};
use crate::route::{HttpParts, Protocol};
use crate::wire::http::{H2C_FIELDS, ReplyHead, RequestHead, edit_head};
use bytes::Bytes;

/// Asks where each request goes and passes it on.
pub(super) struct Forwarding<'a, R> {
    pub(super) router: R,
    pub(super) idle: Idle<'a>,
}

impl<R: Router + Send> Responder for Forwarding<'_, R> {
    async fn respond(&mut self, client: &mut Buffered, head: &RequestHead, context: &Context<'_>) -> Next {
        one_request(client, &self.idle, head, &self.router, context).await
    }
}

/// Passes one request on, and the reply to it back.
pub(super) async fn one_request<R: Router>(
    client: &mut Buffered,
    idle: &Idle<'_>,
    head: &RequestHead,
    router: &R,
    context: &Context<'_>,
) -> Next {
    let mut record = record_of(head, context);
    let settings = &context.port.settings;
    let asked = Asked::new(record.client(), head.authority(), Protocol::Http1, head, context);
    let mut choice = match router.choose(&asked).await {
        Ok(choice) => choice,
        Err(failure) => return refuse_request(client, head, failure, record, context).await,
    };
    let mut pool = idle.lease(head.idempotent());
    let (mut attempt, mut last) = (0, None);
    let (mut upstream, answer, changes, reuse) = loop {
        attempt += 1;
        let mut upstream = match router.open(&mut choice, &asked, &mut pool).await {
            Ok(Way::Kept(upstream)) => upstream,
            Ok(Way::Fresh(fresh)) => Box::new(fresh.into()),
            Err(failure) => {
                // That no other target is left does not say what was wrong with the last one.
                let (failure, record) = (last.unwrap_or(failure), record.route(router.route(&choice)));
                return refuse_request(client, head, failure, record, context).await;
            }
        };
        record.set_route(upstream.route.clone());
        let mut changes = router.changes(&choice, &asked, &upstream.route);
        changes.fields.extend(context.forwarded(head.field("host"), head));
        // A connection that others may use does not end with this visitor's.
        let reuse = context.port.shared.is_some() && upstream.serves_anybody() && head.only_closes();
        let sent = outgoing(head, &changes, reuse);
        match exchange::ask(client, &mut upstream, head, sent, settings, record.moved()).await {
            Ok(answer) => {
                break (upstream, answer, changes, reuse);
            }
            Err(Unanswered::Retry(failure)) if attempt < MAX_ATTEMPTS => {
                router.report(&mut choice, Err(&failure));
                last = Some(failure);
            }
            Err(Unanswered::Retry(failure) | Unanswered::Fail(failure)) => {
                if !failure.is_visitors() {
                    router.report(&mut choice, Err(&failure));
                }
                return refuse_request(client, head, failure, record, context).await;
            }
            Err(Unanswered::Gone) => {
                record.cut(Some(Cut::Visitor)).request();
                return Next::Close { linger: false };
            }
        }
    };
    router.report(&mut choice, Ok(answer.head.status()));
    if head.may_switch() && client.holds_bytes().await {
        return refuse_request(client, head, TOO_EARLY, record, context).await;
    }
    record.replied(answer.head.status());
    upstream.note(head, &answer.head);
    if answer.head.switches() {
        let sent = send(client, answer.head.raw(), context).await;
        record.cut((!sent).then_some(Cut::Visitor)).request();
        return if sent { Next::Pipe(upstream, host(head)) } else { Next::Close { linger: false } };
    }
    let keep_upstream = (head.keep_alive() || reuse) && answer.head.keep_alive();
    let stopping = context.port.stop.is_cancelled();
    let keep_client = keep_upstream && head.keep_alive() && settings.keepalive && !stopping;
    let sent = reply_head(&answer.head, &changes, keep_upstream && !keep_client);
    let io = &mut upstream.io;
    let done = exchange::answer(client, io, answer, sent, settings, record.moved()).await;
    if let (false, Some(Cut::Target(reason))) = (done.reply_begun, done.cut) {
        let failure = Failure::BadReply(reason);
        router.report(&mut choice, Err(&failure));
        return refuse_request(client, head, failure, record, context).await;
    }
    record.cut(done.cut).request();
    let complete = done.request_complete && done.reply_complete;
    if complete && keep_upstream && upstream.io.buf.is_empty() && !stopping {
        idle.keep(upstream);
    }
    match complete && keep_client {
        true => Next::Request,
        false if done.reply_complete => Next::Close { linger: !done.request_complete },
        false => Next::Abort,
    }
}

/// The request head as it is sent on: untouched unless something is to be changed, or an offer of h2c or what ends the
/// connection (`reuse`) to be kept back.
fn outgoing(head: &RequestHead, changes: &Changes<'_>, reuse: bool) -> Bytes {
    if changes.is_empty() && !reuse && !head.offers_h2c() {
        return head.raw().clone();
    }
    let host = changes.host(head);
    let mut target = changes.target(head);
    if host.is_some() && target.is_none() && !head.target().starts_with(['/', '*']) {
        // The node would find another host in an absolute target.
        target = Some(origin_form(head));
    }
    let kept_back = match head.offers_h2c() {
        true => H2C_FIELDS,
        false if reuse => &["Connection"],
        false => &[],
    };
    let fields: Vec<_> = changes.request().chain(host.map(|host| ("Host", Some(host.into())))).collect();
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).chain(kept_back.iter().copied()).collect();
    edit_head(head.raw(), target.as_deref(), &names, &added(&fields))
}

/// Path and query of a target.
fn origin_form(parts: &dyn HttpParts) -> String {
    let query = parts.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", parts.path())
}

fn added<'e>(edits: &'e [Edit<'_>]) -> Vec<(&'e str, &'e str)> {
    edits.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect()
}

/// The reply head as it is sent on: untouched unless something is to be changed, or this connection ends where the upstream's
/// would not.
fn reply_head(head: &ReplyHead, changes: &Changes<'_>, announce_close: bool) -> Bytes {
    if changes.is_empty() && !announce_close {
        return head.raw().clone();
    }
    let mut fields: Vec<_> = changes.reply().collect();
    if announce_close {
        fields.extend([("Connection", Some("close".into())), ("Keep-Alive", None)]);
    }
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    edit_head(head.raw(), None, &names, &added(&fields))
}
