//! HTTP/2 with prior knowledge: every stream of a visitor's connection is a request of its own, routed by its `:authority`.
//!
//! The protocol is the `h2` crate's. Each request goes to its target on a connection of its own; bodies and trailers pass in
//! both directions at once, under both sides' flow control.

use super::failure::{Failure, RequestId};
use super::{Asked, Context, NoPool, Router, Way};
use crate::addr::{Host, HostPort};
use crate::net::BoxStream;
use crate::net::prefixed::Prefixed;
use crate::record::{Record, Route};
use crate::route::{HttpParts, Protocol};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use std::future::poll_fn;
use std::sync::Arc;
use tokio::time::{Instant, timeout};

/// Requests of one visitor under way at once; each may hold a connection to a target.
const MAX_STREAMS: u32 = 128;
/// Bytes of one body that may be on their way without having been passed on.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

impl HttpParts for Parts {
    fn method(&self) -> &str {
        self.method.as_str()
    }
    fn path(&self) -> &str {
        self.uri.path()
    }
    fn query(&self) -> Option<&str> {
        self.uri.query()
    }
    fn field(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }
    fn all_fields<'a>(&'a self, name: &'a str) -> Box<dyn Iterator<Item = &'a [u8]> + 'a> {
        Box::new(self.headers.get_all(name).into_iter().map(HeaderValue::as_bytes))
    }
    fn shared(&self) -> Arc<dyn HttpParts> {
        Arc::new(self.clone())
    }
}

/// Answers the requests of one connection until it ends, the process stops, or it has been idle for too long.
pub(crate) async fn serve<R: Router>(stream: BoxStream, prefix: Bytes, router: &R, context: &Context<'_>) {
    let settings = context.settings;
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(settings.limits.max_bytes).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let handshake = builder.handshake::<_, Bytes>(Prefixed::new(prefix, stream));
    let mut connection = match timeout(settings.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return handshake_failed("bad_request", &error.to_string(), context);
        }
        Err(_) => {
            let error = "HTTP/2 handshake not complete in time (http.headTimeout)";
            return handshake_failed("head_timeout", error, context);
        }
    };
    let mut requests = FuturesUnordered::new();
    let mut stopping = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => requests.push(one_request(request, respond, router, context)),
                Some(Err(_)) | None => break,
            },
            Some(()) = requests.next() => {}
            () = context.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            () = tokio::time::sleep(settings.idle_timeout), if requests.is_empty() && !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
        }
    }
}

fn handshake_failed(outcome: &'static str, error: &str, context: &Context<'_>) {
    Record::new(context.service, context.client, Instant::now()).failed(outcome, error).connection();
}

/// What a finished request leaves for its log line.
struct Answered {
    status: u16,
    bytes: (u64, u64),
    /// Why the answer could not be completed.
    cut: Option<&'static str>,
}

async fn one_request<R: Router>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    router: &R,
    context: &Context<'_>,
) {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let authority = authority.or_else(|| parts.headers.get("host")?.to_str().ok());
    let authority = authority.map(|text| HostPort::parse(text, 80)).and_then(Result::ok);
    let host = authority.as_ref().map_or_else(Host::empty, |asked| asked.host.clone());
    let method = parts.method.clone();
    let record = Record::new(context.service, context.client, started).host(&host);
    let asked = Asked { authority: authority.as_ref(), protocol: Protocol::Http2, parts: &parts };
    let mut route = Route::default();
    match forward(&parts, &asked, body, &mut respond, router, &mut route, context).await {
        Ok(Answered { status, bytes, cut }) => {
            let record = cut.into_iter().fold(record, |record, why| record.failed("cut", why));
            record.route(route).bytes(bytes).request(Some(method.as_str()), status, None);
        }
        Err(failure) => {
            let id = RequestId::random();
            let record = record.failed(failure.outcome(), &failure);
            record.route(route).request(Some(method.as_str()), failure.status(), Some(&id));
            // A visitor that has gone away does not want to know.
            drop(refuse(&mut respond, &failure, &id));
        }
    }
}

fn refuse(respond: &mut SendResponse<Bytes>, failure: &Failure, id: &RequestId) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    *response.status_mut() =
        http::StatusCode::from_u16(failure.status()).unwrap_or(http::StatusCode::BAD_GATEWAY);
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    respond.send_response(response, false)?.send_data(Bytes::from(failure.text(id)), true)
}

/// Sends the request to its target and passes the answer on.
async fn forward<R: Router>(
    parts: &Parts,
    asked: &Asked<'_>,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    router: &R,
    route: &mut Route,
    context: &Context<'_>,
) -> Result<Answered, Failure> {
    let limit = context.settings.reply_timeout;
    let mut choice = router.choose(asked).await?;
    let opened = router.open(&mut choice, asked, &mut NoPool).await;
    *route = router.route(&choice);
    let Way::Fresh(upstream) = opened?;
    let mut client = h2::client::Builder::new();
    client.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let handshake = timeout(limit, client.handshake::<_, Bytes>(upstream.stream));
    let (sender, connection) = handshake.await.map_err(|_| Failure::Silent)?.map_err(|e| down(&e))?;

    let exchange = async {
        let mut sender = sender.ready().await.map_err(|e| down(&e))?;
        let request = outgoing(parts, router.request_fields(asked, route));
        let (answer, to_target) = sender.send_request(request, body.is_end_stream()).map_err(|e| down(&e))?;
        // The target may answer before it has seen the whole request: both directions move from here on.
        let up = copy(body, to_target);
        let down_stream = async {
            let answer = timeout(limit, answer).await.map_err(|_| Failure::Silent)?.map_err(|e| down(&e))?;
            let (head, body) = answer.into_parts();
            let status = head.status.as_u16();
            let sent = respond.send_response(Response::from_parts(head, ()), body.is_end_stream());
            let Ok(to_visitor) = sent else { return Ok::<_, Failure>((status, 0, Some("visitor gone"))) };
            let (bytes, end) = copy(body, to_visitor).await;
            Ok((status, bytes, end))
        };
        let (mut up, mut down_stream) = (Box::pin(up), Box::pin(down_stream));
        let mut bytes_in = None;
        let (status, bytes_out, cut) = loop {
            tokio::select! {
                answered = &mut down_stream => break answered?,
                (bytes, _) = &mut up, if bytes_in.is_none() => bytes_in = Some(bytes),
            }
        };
        Ok((status, (bytes_in.unwrap_or(0), bytes_out), cut))
    };
    let mut connection = Box::pin(connection);
    let done = {
        let mut exchange = Box::pin(exchange);
        let mut driven = false;
        loop {
            tokio::select! {
                done = &mut exchange => break done,
                _ = &mut connection, if !driven => driven = true,
            }
        }
    };
    router.report(&mut choice, done.as_ref().map(|_| ()));
    let (status, bytes, cut) = done?;
    Ok(Answered { status, bytes, cut })
}

fn down(error: &h2::Error) -> Failure {
    Failure::Down(error.to_string())
}

fn outgoing(parts: &Parts, fields: Vec<(&'static str, String)>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = parts.headers.clone();
    for (name, value) in fields {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value))
        {
            request.headers_mut().insert(name, value);
        }
    }
    request
}

/// Passes a body and its trailers on; what ends one side early resets the other.
async fn copy(mut from: RecvStream, mut to: SendStream<Bytes>) -> (u64, Option<&'static str>) {
    let mut moved = 0;
    match copy_until_end(&mut from, &mut to, &mut moved).await {
        Ok(()) => (moved, None),
        Err(error) => {
            to.send_reset(error.reason().unwrap_or(Reason::CANCEL));
            (moved, Some("a side reset the stream"))
        }
    }
}

async fn copy_until_end(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    moved: &mut u64,
) -> Result<(), h2::Error> {
    if from.is_end_stream() {
        // Its end went out with the head.
        return Ok(());
    }
    while let Some(chunk) = from.data().await {
        let mut chunk = chunk?;
        let len = chunk.len();
        while !chunk.is_empty() {
            to.reserve_capacity(chunk.len());
            let Some(capacity) = poll_fn(|cx| to.poll_capacity(cx)).await else {
                return Err(Reason::CANCEL.into());
            };
            let part = chunk.split_to(capacity?.min(chunk.len()));
            to.send_data(part, false)?;
        }
        from.flow_control().release_capacity(len)?;
        *moved += len as u64;
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
}
