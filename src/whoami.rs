//! The handler `whoami`: answers every request with what arrived, to see what a route does to it.
//!
//! Host, path, fields and client are those of the request as it came; tunnel, connector and node are known when the proxies
//! on the way add `Pointsman-Route` (`http.routeHeader: true`), or when this handler sits on a tunnel itself. How requests
//! are read, bounded and refused is `http`'s business, as for every handler.

use crate::addr::HostPort;
use crate::http::exchange::Unanswered;
use crate::http::failure::{Cut, Failure};
use crate::http::pump::Buffered;
use crate::http::{self, Context, Next, Port, ROUTE_FIELD, Settings, h2c, text_of};
use crate::net::listen::Permit;
use crate::net::{Conn, pipe};
use crate::record::{Moved, Record, Route};
use crate::route::HttpParts;
use crate::sniff::{self, Sniffed};
use crate::wire::http::{Body, Framing, RequestHead};
use ::http::Request;
use bytes::{Buf, Bytes};
use h2::RecvStream;
use h2::server::SendResponse;
use std::fmt::Write;
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The handler of one service.
#[derive(Debug)]
pub(crate) struct Whoami {
    port: Port,
}

impl Whoami {
    pub(crate) fn new(service: String, settings: Settings, stop: CancellationToken) -> Self {
        // No connection is switched to another protocol here.
        let pipe = pipe::Limits { half_close_timeout: Duration::ZERO, idle_timeout: None };
        Self { port: Port { service, settings, shared: None, pipe, stop } }
    }

    /// Answers the requests of one connection.
    pub(crate) async fn serve(&self, mut conn: Conn, mut permit: Option<Permit>) {
        let record = Record::new(&self.port.service, conn.client, Instant::now());
        let limit = self.port.settings.head_timeout;
        let settings = sniff::Settings { timeout: limit, client_hello_timeout: limit };
        let sniffed = sniff::look(&mut conn, &settings).await;
        if let Some(permit) = &mut permit {
            permit.established();
        }
        let context = Context { port: &self.port, client: conn.client, secure: conn.secure };
        let mirror = Mirror::new(&self.port.service, &conn);
        match sniffed {
            Err(error) => record.failed(error.outcome(), &error).connection(),
            Ok(Sniffed::Http2) => {
                record.discard();
                h2c::serve_with(conn.stream, conn.prefix, &mirror, &context).await;
            }
            Ok(_) if conn.prefix.is_empty() => {
                record.failed("head_timeout", "no request in time (http.headTimeout)").connection();
            }
            // What is no HTTP either is told so.
            Ok(_) => {
                record.discard();
                http::serve_with(Buffered::new(conn.stream, conn.prefix), mirror, context).await;
            }
        }
    }
}

/// What there is to say about one connection.
struct Mirror {
    seen: Vec<(&'static str, String)>,
    route: Route,
}

impl Mirror {
    fn new(service: &str, conn: &Conn) -> Self {
        let mut seen = vec![("service", service.to_owned()), ("client", conn.client.to_string())];
        let mut route = Route { node: Some(service.into()), ..Route::default() };
        if let Some(via) = &conn.via {
            let ids = [("tunnel", via.tunnel), ("connector", via.connector)];
            seen.extend(ids.into_iter().filter_map(|(name, id)| Some((name, id?.to_string()))));
            (route.tunnel, route.connector) = (via.tunnel, via.connector);
        }
        Self { seen, route }
    }

    /// What is said of one request.
    fn text<'f>(
        &self,
        parts: &dyn HttpParts,
        asked: Option<&HostPort>,
        target: &str,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> String {
        let host = asked.map(|asked| asked.host.to_string()).unwrap_or_default();
        let mut text = format!("host: {host}\nmethod: {}\npath: {target}\n", parts.method());
        let route = text_of(parts, ROUTE_FIELD).unwrap_or_default();
        let route: Vec<_> = route.split("; ").filter_map(|part| part.split_once('=')).collect();
        let named = |name: &str| route.iter().any(|(k, _)| *k == name);
        let own = self.seen.iter().filter(|(name, _)| !named(name));
        let own = own.map(|(name, value)| (*name, value.as_str()));
        for (name, value) in own.chain(route.iter().copied()) {
            // Writing to a String does not fail.
            _ = writeln!(text, "{name}: {value}");
        }
        text.push('\n');
        for (name, value) in fields {
            _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value));
        }
        text
    }
}

impl http::Responder for Mirror {
    async fn respond(&mut self, client: &mut Buffered, head: &RequestHead, context: &Context<'_>) -> Next {
        let mut record = http::record_of(head, context).route(self.route.clone());
        match read_body(client, head, context, record.moved()).await {
            Ok(()) => {}
            Err(Unanswered::Retry(failure) | Unanswered::Fail(failure)) => {
                return http::refuse_request(client, head, failure, record, context).await;
            }
            Err(Unanswered::Gone) => {
                record.cut(Some(Cut::Visitor)).request();
                return Next::Close { linger: false };
            }
        }
        let close =
            !(head.keep_alive() && context.port.settings.keepalive) || context.port.stop.is_cancelled();
        let text = self.text(head, head.authority(), head.target(), head.fields());
        let reply = http1_reply(&text, close, head.method() == "HEAD");
        let cut = (!http::send(client, reply.as_bytes(), context).await).then_some(Cut::Visitor);
        record.replied(200);
        record.moved().bytes_out = text.len() as u64;
        record.cut(cut).request();
        if close || cut.is_some() { Next::Close { linger: false } } else { Next::Request }
    }
}

/// Reads a body and keeps nothing of it.
async fn read_body(
    client: &mut Buffered,
    head: &RequestHead,
    context: &Context<'_>,
    moved: &mut Moved,
) -> Result<(), Unanswered> {
    let mut body = Body::new(head.framing());
    if head.expects_continue()
        && head.framing() != Framing::None
        && client.buf.is_empty()
        && !http::send(client, b"HTTP/1.1 100 Continue\r\n\r\n", context).await
    {
        return Err(Unanswered::Gone);
    }
    while !body.is_done() {
        if client.buf.is_empty() {
            let read = timeout(context.port.settings.stall_timeout, poll_fn(|cx| client.poll_fill(cx))).await;
            let read = read.map_err(|_| Unanswered::Fail(Failure::BodyTimeout))?;
            read.ok().filter(|n| *n > 0).ok_or(Unanswered::Gone)?;
        }
        let n = body.advance(&client.buf).map_err(|e| Unanswered::Fail(Failure::Request(e)))?;
        client.buf.advance(n);
        moved.bytes_in += n as u64;
    }
    Ok(())
}

fn http1_reply(text: &str, close: bool, head_only: bool) -> String {
    let connection = if close { "Connection: close\r\n" } else { "" };
    let sent = if head_only { "" } else { text };
    let length = text.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n{connection}\r\n{sent}"
    )
}

impl h2c::Responder for Mirror {
    async fn respond(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        context: &Context<'_>,
    ) {
        let (parts, mut body) = request.into_parts();
        let asked = h2c::asked_authority(&parts);
        let mut record = h2c::record_of(&parts, asked.as_ref(), context).route(self.route.clone());
        let read = match h2c::check_fields(&parts, &context.port.settings) {
            Ok(()) => read_stream(&mut body, context.port.settings.stall_timeout, record.moved()).await,
            Err(failure) => Err(Unanswered::Fail(failure)),
        };
        // That the visitor has gone away meanwhile, `h2` knows to take care of.
        match read {
            Ok(()) => {
                let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
                let fields = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                let text = self.text(&parts, asked.as_ref(), target, fields);
                record.replied(200);
                record.moved().bytes_out = text.len() as u64;
                record.request();
                let sent = if parts.method == "HEAD" { String::new() } else { text };
                drop(h2c::send_text(&mut respond, 200, None, sent));
            }
            Err(Unanswered::Retry(failure) | Unanswered::Fail(failure)) => {
                h2c::refuse(&mut respond, &failure, record);
            }
            Err(Unanswered::Gone) => record.cut(Some(Cut::Visitor)).request(),
        }
    }
}

/// The same of an HTTP/2 stream.
async fn read_stream(body: &mut RecvStream, limit: Duration, moved: &mut Moved) -> Result<(), Unanswered> {
    loop {
        let data = timeout(limit, body.data()).await;
        let Some(data) = data.map_err(|_| Unanswered::Fail(Failure::BodyTimeout))? else { return Ok(()) };
        let n = data.map_err(|_| Unanswered::Gone)?.len();
        body.flow_control().release_capacity(n).map_err(|_| Unanswered::Gone)?;
        moved.bytes_in += n as u64;
    }
}
