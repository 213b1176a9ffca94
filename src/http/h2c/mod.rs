//! HTTP/2 with prior knowledge: every stream of a visitor's connection is a request of its own, routed by its `:authority`.
//!
//! The protocol is the `h2` crate's. Requests of one visitor to the same target share a connection ([`connections`]); what
//! happens between a request and the end of its reply is in [`exchange`] and [`body`].

mod body;
mod connections;
mod exchange;
mod head;
mod translate;
mod unaccepted;

use super::exchange::Unanswered;
use super::failure::{Cut, Failure, RequestId};
use super::pool::Idle;
use super::upstream::Way;
use super::{Asked, Context, MAX_ATTEMPTS, Router, Settings};
use crate::addr::HostPort;
use crate::net::BoxStream;
use crate::net::prefixed::Prefixed;
use crate::record::Record;
use crate::route::Protocol;
use body::Source;
use bytes::Bytes;
use connections::{Connections, Lease, Use};
use exchange::Asking;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
pub(crate) use head::{asked_authority, check_fields};
use head::{authority, edit_headers, outgoing};
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;
use translate::Translating;
use unaccepted::{Known, Watched};

/// Requests of one visitor under way at once; each may hold a stream to a target.
const MAX_STREAMS: u32 = 256;
/// Bytes of one body that may be on their way without having been passed on.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a whole connection: what one visitor can make us hold in each direction. Bodies that nobody takes block the
/// visitor's others when there are more than sixteen.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// Heads of up to so many times `http.maxHeadSize` are refused here, in words; `h2` refuses larger ones without any, and those four
/// times as large end the connection. It is what one visitor can make us hold of each request for a moment.
const ANSWERED_HEADS: usize = 2;
/// Requests that a visitor has reset before they were looked at. One that opens and resets streams as fast as it can costs
/// us work and itself nothing (CVE-2023-44487); past this its connection is ended.
const MAX_PENDING_RESETS: usize = 32;
/// Streams that we reset because of a visitor's protocol errors, before its connection is ended: the same attack from behind.
const MAX_ERROR_RESETS: usize = 256;
/// How long the end of a connection may take when nothing is under way: a peer need not answer a GOAWAY.
const GOODBYE: Duration = Duration::from_secs(2);

/// Answers requests, several at once; what comes before and after is [`serve_with`]'s business.
pub(crate) trait Responder: Sync {
    /// Reads what is left of the request, answers it, logs it.
    fn respond(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        context: &Context<'_>,
    ) -> impl Future<Output = ()> + Send;
}

/// Asks where each request goes and passes it on.
struct Forwarding<'a, R> {
    router: &'a R,
    connections: Connections<'a>,
}

impl<R: Router> Responder for Forwarding<'_, R> {
    async fn respond(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        context: &Context<'_>,
    ) {
        one_request(request, respond, self.router, &self.connections, context).await;
        self.connections.prune();
    }
}

/// Forwards the requests of one connection: as HTTP/2 those that came with prior knowledge, for their senders know what they do,
/// and as HTTP/1 those of TLS that ends here, which browsers send to whatever site it is.
pub(crate) async fn serve<R: Router>(stream: BoxStream, prefix: Bytes, router: &R, context: &Context<'_>) {
    let forwarding = Forwarding { router, connections: Connections::new(&context.port.settings) };
    if context.secure {
        let translating = Translating { router, idle: Idle::new(context.port.shared.as_ref()), forwarding };
        serve_with(stream, prefix, &translating, context).await;
    } else {
        serve_with(stream, prefix, &forwarding, context).await;
    }
}

/// Answers the requests of one connection until it ends, the process stops, or it has been idle for too long.
pub(crate) async fn serve_with<R: Responder>(
    stream: BoxStream,
    prefix: Bytes,
    responder: &R,
    context: &Context<'_>,
) {
    let (settings, began) = (&context.port.settings, Instant::now());
    let known = Known::default();
    let watched = Watched::new(Prefixed::new(prefix, stream), &known, context);
    let handshake = settings_of(settings).handshake::<_, Bytes>(watched);
    let mut connection = match timeout(settings.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return connection_failed("bad_request", &error.to_string(), began, context);
        }
        Err(_) => {
            let error = "HTTP/2 handshake not complete in time (http.headTimeout)";
            return connection_failed("head_timeout", error, began, context);
        }
    };
    let mut requests = FuturesUnordered::new();
    let (mut stopping, mut asked) = (false, false);
    loop {
        let patience = match (stopping, asked) {
            (true, _) => GOODBYE,
            (false, true) => settings.idle_timeout,
            (false, false) => settings.head_timeout,
        };
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    asked = true;
                    known.add(respond.stream_id().as_u32());
                    requests.push(responder.respond(request, respond, context));
                }
                Some(Err(error)) if error.is_library() => {
                    connection_failed("bad_request", &explain(&error), began, context);
                    break;
                }
                Some(Err(error)) => {
                    debug!(service = context.port.service.as_str(), client = %context.client, %error, "connection");
                    break;
                }
                None => break,
            },
            Some(()) = requests.next() => {}
            () = context.port.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            () = sleep(patience), if requests.is_empty() => {
                if stopping {
                    break;
                }
                if !asked {
                    let error = "no HTTP/2 request in time (http.headTimeout)";
                    connection_failed("head_timeout", error, began, context);
                }
                stopping = true;
                connection.graceful_shutdown();
            }
        }
    }
    // Requests that are under way learn from this that the visitor is gone, and are logged.
    drop(connection);
    drop(timeout(GOODBYE, async { while requests.next().await.is_some() {} }).await);
}

fn connection_failed(outcome: &'static str, error: &str, began: Instant, context: &Context<'_>) {
    Record::new(&context.port.service, context.client, began).failed(outcome, error).connection();
}

/// Why the visitor's connection is ended, as far as the crate tells.
fn explain(error: &h2::Error) -> String {
    let causes = match error.reason() {
        Some(Reason::ENHANCE_YOUR_CALM) => {
            "; a head far larger than http.maxHeadSize, or many requests reset one after the other"
        }
        _ => "",
    };
    format!("HTTP/2 {error}{causes}")
}

fn settings_of(settings: &Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(ANSWERED_HEADS * settings.limits.max_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

async fn one_request<R: Router>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    router: &R,
    connections: &Connections<'_>,
    context: &Context<'_>,
) {
    let (parts, body) = request.into_parts();
    let authority = asked_authority(&parts);
    let record = record_of(&parts, authority.as_ref(), context);
    let asked = Asked::new(record.client(), authority.as_ref(), Protocol::Http2, &parts, context);
    let mut journey = Journey { source: Source::new(body), lease: connections.lease(), record };
    let answered = Box::pin(forward(&parts, &asked, &mut journey, &mut respond, router, context)).await;
    match answered {
        Ok(cut) => journey.record.cut(cut).request(),
        Err(failure) => refuse(&mut respond, &failure, journey.record),
    }
}

/// The line of one request, from now on.
pub(crate) fn record_of<'a>(parts: &'a Parts, asked: Option<&HostPort>, context: &Context<'a>) -> Record<'a> {
    let record =
        Record::new(&context.port.service, context.client, Instant::now()).method(parts.method.as_str());
    let record = record.from(context.port.settings.forwarded.client(context.client, parts));
    asked.into_iter().fold(record, |record, asked| record.host(&asked.host))
}

/// A request on its way, over as many tries as it takes.
struct Journey<'a> {
    source: Source,
    lease: Lease<'a>,
    record: Record<'a>,
}

/// Tells the visitor and the log why there is no answer.
pub(crate) fn refuse(respond: &mut SendResponse<Bytes>, failure: &Failure, record: Record<'_>) {
    let id = RequestId::random();
    record.failed(failure.outcome(), failure).refused(failure.status(), &id);
    // A visitor that has gone away does not want to know.
    drop(send_text(respond, failure.status(), failure.field(), failure.text(&id)));
}

/// A whole reply of our own, with one more field if there is one.
pub(crate) fn send_text(
    respond: &mut SendResponse<Bytes>,
    status: u16,
    field: Option<(&'static str, &str)>,
    text: String,
) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    let field = field.into_iter().map(|(name, value)| (name, Some(value.into())));
    edit_headers(response.headers_mut(), field);
    let mut body = respond.send_response(response, text.is_empty())?;
    if text.is_empty() { Ok(()) } else { body.send_data(Bytes::from(text), true) }
}

/// Sends the request to its target, or to the next one where it may, and passes the answer on.
async fn forward<R: Router>(
    parts: &Parts,
    asked: &Asked<'_>,
    journey: &mut Journey<'_>,
    respond: &mut SendResponse<Bytes>,
    router: &R,
    context: &Context<'_>,
) -> Result<Option<Cut>, Failure> {
    check_fields(parts, &context.port.settings)?;
    let Journey { source, lease, record } = journey;
    let mut choice = router.choose(asked).await?;
    let (mut attempt, mut last) = (0, None);
    loop {
        attempt += 1;
        // That no other target is left does not say what was wrong with the last one.
        let way = router.open(&mut choice, asked, lease).await;
        record.set_route(router.route(&choice));
        let way = way.map_err(|failure| last.take().unwrap_or(failure))?;
        let mut used = match reach(way, lease).await {
            Ok(used) => used,
            Err(failure) => {
                router.report(&mut choice, Err(&failure));
                if attempt == MAX_ATTEMPTS {
                    return Err(failure);
                }
                last = Some(failure);
                continue;
            }
        };
        record.set_route(used.route.clone());
        let mut changes = router.changes(&choice, asked, &used.route);
        changes.fields.extend(context.forwarded(authority(parts).map(str::as_bytes), parts));
        let request = outgoing(parts, &changes);
        let asking = Asking { request, changes: &changes, settings: &context.port.settings };
        let end = exchange::exchange(&mut used, asking, source, respond, record).await;
        match end {
            Ok((status, cut)) => {
                router.report(&mut choice, Ok(status));
                return Ok(cut);
            }
            Err(Unanswered::Retry(failure)) if attempt < MAX_ATTEMPTS => {
                router.report(&mut choice, Err(&failure));
                lease.avoid(used.key);
                last = Some(failure);
            }
            Err(Unanswered::Retry(failure) | Unanswered::Fail(failure)) => {
                if !failure.is_visitors() {
                    router.report(&mut choice, Err(&failure));
                }
                return Err(failure);
            }
            Err(Unanswered::Gone) => {
                respond.send_reset(Reason::CANCEL);
                return Ok(Some(Cut::Visitor));
            }
        }
    }
}

async fn reach(way: Way<Use>, lease: &mut Lease<'_>) -> Result<Use, Failure> {
    match way {
        Way::Kept(used) => Ok(used),
        Way::Fresh(fresh) => lease.connect(fresh).await,
    }
}

/// What an error on a target's connection or stream means.
fn failed(error: &h2::Error) -> Failure {
    if error.is_library() {
        // Found by our side: what came is no HTTP/2, or not what we allow.
        Failure::BadReply("malformed HTTP/2, or none, from the target")
    } else {
        Failure::Down(error.to_string())
    }
}
