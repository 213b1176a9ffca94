//! HTTP/1 on one visitor's connection: each request is routed by its own Host, answered, logged.
//!
//! Bytes pass unchanged except where the configuration asks for a change, and but for a `Connection: close` before an upstream
//! that others may use. Where a request goes, and how a stream to it is opened, is asked of a [`Router`]; entrypoint and
//! forwarder each have one.

mod deadline;
mod doubt;
pub(crate) mod exchange;
pub(crate) mod failure;
mod forwarded;
mod forwarding;
pub(crate) mod h2c;
mod pool;
pub(crate) mod pump;
pub(crate) mod rewrite;
pub(crate) mod upstream;
mod url_rule;

use crate::addr::{Host, HostPort};
use crate::net::{BoxStream, pipe};
use crate::record::{Record, Route};
use crate::route::{HttpParts, Protocol};
use crate::wire::http::{Framing, Limits, Rejected, RequestHead};
use bytes::{Bytes, BytesMut};
use failure::{Failure, RequestId};
pub use forwarded::Forwarded;
use forwarding::Forwarding;
use futures_util::future::BoxFuture;
use pool::Idle;
pub(crate) use pool::Shared;
use pump::Buffered;
use rewrite::{Changes, OwnField};
pub use rewrite::{HostText, Rewrite};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use upstream::Upstream;
pub(crate) use upstream::{Fresh, Intermediary, Key, NoPool, Place, Pool, Way};
pub use url_rule::{BadReplacement, UrlRule};

/// Times and bounds of HTTP on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http.keepalive` / `entrypoint.keepalive`: whether a connection may carry more than one request.
    pub keepalive: bool,
    /// `http.headTimeout`: from the first byte of a request head to its end.
    pub head_timeout: Duration,
    /// `http.idleTimeout`: how long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
    /// `readTimeout` / `entrypoint.readTimeout`: from the end of the request to the end of the reply head (504).
    pub reply_timeout: Duration,
    /// `http.stallTimeout`: how long a body may make no progress in either direction.
    pub stall_timeout: Duration,
    /// `http.maxHeadSize`, `http.maxHeadFields`.
    pub limits: Limits,
    /// `http.routeHeader`: add `Pointsman-Route` (client, tunnel, connector, node) to requests, in place of any that came in.
    pub route_header: bool,
    /// `http.shareUpstreams`: whether requests of one visitor may go to a kept connection that served another.
    pub share_upstreams: bool,
    /// `http.forwarded`, `http.trustedProxies`.
    pub forwarded: Forwarded,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keepalive: true,
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            reply_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
            limits: Limits::default(),
            route_header: false,
            share_upstreams: true,
            forwarded: Forwarded::default(),
        }
    }
}

/// Upstreams tried for one request.
const MAX_ATTEMPTS: usize = 4;

/// What is read and thrown away of a refused request, so that the refusal is not lost in a reset.
const MAX_LINGER: usize = 256 * 1024;

/// For how long.
const LINGER: Duration = Duration::from_secs(2);

/// Whoever sends on behind Upgrade or CONNECT without waiting may have somebody else's bytes smuggled in as a request.
const TOO_EARLY: Failure = Failure::Request(Rejected {
    status: 400,
    reason: "bytes behind Upgrade or CONNECT before the reply to it",
});

/// Decides where requests go and opens the way there.
pub(crate) trait Router: Sync {
    /// One request's choice, with what was tried already.
    type Choice: Send;

    /// Decides where a request goes.
    fn choose(&self, asked: &Asked<'_>) -> impl Future<Output = Result<Self::Choice, Failure>> + Send;

    /// Opens a stream to the choice's next target (or takes what `pool` has); each call goes on to the next one.
    fn open<P: Pool>(
        &self,
        choice: &mut Self::Choice,
        asked: &Asked<'_>,
        pool: &mut P,
    ) -> impl Future<Output = Result<Way<P::Kept>, Failure>> + Send;

    /// The last opened target answered with a status, or failed to.
    fn report(&self, choice: &mut Self::Choice, answered: Result<u16, &Failure>);

    /// How far the choice has come, for the log.
    fn route(&self, choice: &Self::Choice) -> Route;

    /// What is changed in a request that takes this way, and in the reply to it.
    fn changes(&self, choice: &Self::Choice, asked: &Asked<'_>, route: &Route) -> Changes<'_>;
}

/// What a request asks for, whichever HTTP version it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Whoever made the request: the visitor, or somebody behind it if it is a trusted proxy.
    pub(crate) client: SocketAddr,
    /// Whether it came over TLS that ended here, or at a trusted proxy.
    pub(crate) secure: bool,
    pub(crate) authority: Option<&'a HostPort>,
    pub(crate) protocol: Protocol,
    pub(crate) parts: &'a dyn HttpParts,
}

impl<'a> Asked<'a> {
    fn new(
        client: SocketAddr,
        authority: Option<&'a HostPort>,
        protocol: Protocol,
        parts: &'a dyn HttpParts,
        context: &Context<'_>,
    ) -> Self {
        let secure = context.secure || context.port.settings.forwarded.is_secure(context.client, parts);
        Self { client, secure, authority, protocol, parts }
    }

    /// Host and port asked for; port 80 and no host where none is named.
    pub(crate) fn destination(&self) -> HostPort {
        self.authority.cloned().unwrap_or_else(|| HostPort::new(Host::empty(), 80))
    }
}

/// What is the same for all requests of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) port: &'a Port,
    pub(crate) client: SocketAddr,
    /// Whether the visitor came over TLS that ended here.
    pub(crate) secure: bool,
}

/// What is the same for all connections of a port, or of a service that takes them from a tunnel.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) service: String,
    pub(crate) settings: Settings,
    /// Upstreams, where visitors share them.
    pub(crate) shared: Option<Arc<Shared>>,
    /// How a connection that was switched to another protocol is piped.
    pub(crate) pipe: pipe::Limits,
    /// Set when the process stops: connections end after the request under way.
    pub(crate) stop: CancellationToken,
}

impl Context<'_> {
    /// The fields that say where a request comes from; `host`: the one that it was sent to.
    fn forwarded(&self, host: Option<&[u8]>, parts: &dyn HttpParts) -> Vec<OwnField> {
        let host = host.and_then(|host| std::str::from_utf8(host).ok());
        self.port.settings.forwarded.fields(self.client, self.secure, host, parts)
    }
}

/// What follows after one request.
pub(crate) enum Next {
    /// Another request.
    Request,
    /// Nothing; `linger` when the visitor may still be sending.
    Close { linger: bool },
    /// A reset: what the visitor got of its reply is not all of it.
    Abort,
    /// Bytes both ways.
    Pipe(Box<Upstream>, Host),
}

/// Answers one request at a time; what comes before and after is [`serve_with`]'s business.
pub(crate) trait Responder: Send {
    /// Reads what is left of the request, answers it, logs it.
    fn respond(
        &mut self,
        client: &mut Buffered,
        head: &RequestHead,
        context: &Context<'_>,
    ) -> impl Future<Output = Next> + Send;
}

/// Forwards the requests of one connection until it ends.
pub(crate) fn serve<'a, R: Router + Send>(
    stream: BoxStream,
    prefix: Bytes,
    router: R,
    context: Context<'a>,
) -> impl Future<Output = ()> + Send + use<'a, R> {
    let idle = Idle::new(context.port.shared.as_ref());
    serve_with(Buffered::new(stream, prefix), Forwarding { router, idle }, context)
}

/// Answers the requests of one connection until it ends.
///
/// While that waits it is as small as can be: nothing is held twice, as an `async fn` does its arguments, and what a request
/// needs is in a box.
pub(crate) fn serve_with<'a, R: Responder>(
    mut client: Buffered,
    mut responder: R,
    context: Context<'a>,
) -> impl Future<Output = ()> + Send + use<'a, R> {
    let mut first = true;
    async move {
        let mut stopped = pin!(context.port.stop.cancelled());
        loop {
            if !first && !wait_for_request(&mut client, stopped.as_mut(), &context).await {
                break;
            }
            first = false;
            match Box::pin(next_request(&mut client, &mut responder, &context)).await {
                Next::Request => client.release(),
                Next::Close { linger: true } => return Box::pin(close_gently(client)).await,
                Next::Close { linger: false } => break,
                Next::Abort => return client.stream.abort(),
                Next::Pipe(upstream, host) => return switch(client, *upstream, &host, &context).await,
            }
        }
        // A socket tells of its end when it is closed; an error here has nobody to be told to.
        if client.stream.tcp().is_none() {
            drop(client.stream.shutdown().await);
        }
    }
}

/// Reads a request and answers it.
async fn next_request<R: Responder>(client: &mut Buffered, responder: &mut R, context: &Context<'_>) -> Next {
    let began = Instant::now();
    match read_head(client, began, &context.port.settings).await {
        Ok(Some(head)) if head.may_switch() && !client.buf.is_empty() => {
            let record = record_of(&head, context);
            refuse_request(client, &head, TOO_EARLY, record, context).await
        }
        Ok(Some(head)) => responder.respond(client, &head, context).await,
        Ok(None) => {
            if !client.buf.is_empty() {
                let record = Record::new(&context.port.service, context.client, began);
                record.failed("visitor_gone", "ended in the middle of a request head").connection();
            }
            Next::Close { linger: false }
        }
        Err(failure) => {
            let record = Record::new(&context.port.service, context.client, began);
            Box::pin(refuse(client, None, failure, record, Next::Close { linger: true }, context)).await
        }
    }
}

/// Waits without a buffer for the next request; `false` when none is coming.
fn wait_for_request(
    client: &mut Buffered,
    mut stopped: Pin<&mut impl Future<Output = ()>>,
    context: &Context<'_>,
) -> impl Future<Output = bool> {
    let deadline = Instant::now() + context.port.settings.idle_timeout;
    poll_fn(move |cx| {
        if !client.buf.is_empty() {
            return Poll::Ready(true);
        }
        if let Poll::Ready(arrived) = client.poll_first(cx) {
            return Poll::Ready(arrived);
        }
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        ready!(client.timer.poll(cx, deadline));
        debug!(service = context.port.service.as_str(), client = %context.client, "idle for too long (http.idleTimeout)");
        Poll::Ready(false)
    })
}

/// Reads one request head, for which the time counts from `began`; `None` when the visitor ended the connection instead of beginning
/// one.
async fn read_head(
    client: &mut Buffered,
    began: Instant,
    settings: &Settings,
) -> Result<Option<RequestHead>, Failure> {
    let deadline = began + settings.head_timeout;
    let head = poll_fn(|cx| match client.poll_request(cx, &settings.limits) {
        Poll::Ready(head) => Poll::Ready(head.map_err(Failure::Request)),
        Poll::Pending => client.timer.poll(cx, deadline).map(|()| Err(Failure::HeadTimeout)),
    });
    head.await
}

/// Tells the visitor why there is no answer; the connection stays usable when the request is known to be read whole. In a box, for
/// which requests that are answered need no room.
pub(crate) fn refuse_request<'a>(
    client: &'a mut Buffered,
    head: &'a RequestHead,
    failure: Failure,
    record: Record<'a>,
    context: &'a Context<'_>,
) -> BoxFuture<'a, Next> {
    let whole = head.framing() == Framing::None && !head.may_switch();
    let keeps =
        context.port.settings.keepalive && !failure.ends_connection() && !context.port.stop.is_cancelled();
    let next =
        if whole && head.keep_alive() && keeps { Next::Request } else { Next::Close { linger: !whole } };
    Box::pin(refuse(client, Some(head), failure, record, next, context))
}

async fn refuse(
    client: &mut Buffered,
    head: Option<&RequestHead>,
    failure: Failure,
    record: Record<'_>,
    next: Next,
    context: &Context<'_>,
) -> Next {
    let id = RequestId::random();
    let close = !matches!(next, Next::Request);
    let head_only = head.is_some_and(RequestHead::is_head);
    record.failed(failure.outcome(), &failure).refused(failure.status(), &id);
    let reply = failure.reply(&id, close, head_only);
    if send(client, &reply, context).await { next } else { Next::Close { linger: false } }
}

/// Writes bytes of our own; `false` when the visitor does not take them, or not in time.
pub(crate) async fn send(client: &mut Buffered, bytes: &[u8], context: &Context<'_>) -> bool {
    let sent = async {
        client.stream.write_all(bytes).await?;
        client.stream.flush().await
    };
    matches!(timeout(context.port.settings.stall_timeout, sent).await, Ok(Ok(())))
}

/// The line of one request, from now on.
pub(crate) fn record_of<'a>(head: &'a RequestHead, context: &Context<'a>) -> Record<'a> {
    let record = Record::new(&context.port.service, context.client, Instant::now());
    let record = record.from(context.port.settings.forwarded.client(context.client, head));
    record.host(&host(head)).method(head.method())
}

fn host(head: &RequestHead) -> Host {
    head.authority().map_or_else(Host::empty, |asked| asked.host.clone())
}

/// After 101 the connection is a byte pipe.
fn switch<'r>(client: Buffered, upstream: Upstream, host: &Host, context: &Context<'r>) -> BoxFuture<'r, ()> {
    let record = Record::new(&context.port.service, context.client, Instant::now()).host(host);
    let visitor = pipe::Side { stream: client.stream, prefix: client.buf.freeze() };
    let target = pipe::Side { stream: upstream.io.stream, prefix: upstream.io.buf.freeze() };
    Box::pin(record.route(upstream.route).pipe(visitor, target, context.port.pipe, 0))
}

/// Ends a connection whose visitor may still be sending: closing at once would reset it and could take the reply along.
async fn close_gently(mut client: Buffered) {
    let drain = async {
        client.stream.shutdown().await?;
        let mut sink = BytesMut::with_capacity(4096);
        let mut left = MAX_LINGER;
        while left > 0 {
            sink.clear();
            match client.stream.read_buf(&mut sink).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Whether the visitor ended in time or not, the connection is over.
    drop(timeout(LINGER, drain).await);
}

/// The field that tells the way of a request, for `http.routeHeader`.
pub(crate) fn route_field(client: SocketAddr, route: &Route) -> OwnField {
    let mut text = format!("client={client}");
    let ids = [("tunnel", route.tunnel), ("connector", route.connector)];
    for (name, id) in ids.into_iter().filter_map(|(name, id)| Some((name, id?))) {
        text += &format!("; {name}={id}");
    }
    if let Some(node) = route.node.as_deref().filter(|node| !node.is_empty()) {
        text += &format!("; node={node}");
    }
    (ROUTE_FIELD.into(), Some(text))
}

/// Name of that field.
pub(crate) const ROUTE_FIELD: &str = "Pointsman-Route";

/// A field's value, where it is text; several of one name are one list (RFC 9110, section 5.3).
pub(crate) fn text_of(parts: &dyn HttpParts, name: &str) -> Option<String> {
    let values: Vec<_> = parts.all_fields(name).filter_map(|v| std::str::from_utf8(v).ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

#[cfg(test)]
mod tests;
