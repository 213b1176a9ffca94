//! The handler `whoami`: answers every request with what arrived, to see what a route does to it.
//!
//! Host, path, fields and client are those of the request as it came; tunnel, connector and node are known when the proxies
//! on the way add `Pointsman-Route` (`http.routeHeader: true`), or when this handler sits on a tunnel itself.

use crate::http::pump::Buffered;
use crate::http::{ROUTE_FIELD, Settings, text_of};
use crate::net::Conn;
use crate::net::listen::Permit;
use crate::record::{Record, Route};
use crate::shutdown::Shutdown;
use crate::wire::http::{Body, RequestHead};
use bytes::Buf;
use std::fmt::Write;
use std::future::poll_fn;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

/// The service's name and times.
#[derive(Debug)]
pub(crate) struct Whoami {
    pub(crate) service: String,
    pub(crate) settings: Settings,
    pub(crate) shutdown: Shutdown,
}

impl Whoami {
    /// Answers the requests of one connection.
    pub(crate) async fn serve(&self, mut conn: Conn, mut permit: Option<Permit>) {
        let prefix = std::mem::take(&mut conn.prefix);
        let (client, via) = (conn.client, conn.via.take());
        let mut io = Buffered::new(conn.stream, prefix);
        let mut seen = vec![("service", self.service.clone()), ("client", client.to_string())];
        let mut route = Route { node: self.service.clone(), ..Route::default() };
        if let Some(via) = via {
            let ids = [("tunnel", via.tunnel), ("connector", via.connector)];
            seen.extend(ids.into_iter().filter_map(|(name, id)| Some((name, id?.to_string()))));
            let text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
            (route.tunnel, route.connector) = (text(via.tunnel), text(via.connector));
        }
        loop {
            if !self.wait_for_request(&mut io).await {
                break;
            }
            // A connection that ends between two requests ends in order.
            if io.buf.is_empty() && !poll_fn(|cx| io.poll_fill(cx)).await.is_ok_and(|n| n > 0) {
                break;
            }
            let started = Instant::now();
            let request = async {
                let head = io.read_request(&self.settings.limits).await.ok().flatten()?;
                let len = skip_body(&mut io, &head).await?;
                Some((head, len))
            };
            // Without a request in time there is nobody to answer.
            let read = timeout(self.settings.head_timeout, request).await;
            let record = Record::new(&self.service, client, started).route(route.clone());
            let Ok(Some((head, len))) = read else {
                record.failed("bad_request", "no whole request (http.headTimeout)").connection();
                break;
            };
            if let Some(permit) = &mut permit {
                permit.established();
            }
            let close = !head.keep_alive() || self.shutdown.stop.is_cancelled();
            let reply = reply(&head, &seen, close);
            let sent = io.stream.write_all(reply.as_bytes()).await;
            let body = reply.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
            let record = match &head.authority() {
                Some(asked) => record.host(&asked.host),
                None => record,
            };
            record.bytes((len, body as u64)).method(head.method()).request(200, None);
            if sent.is_err() || close {
                break;
            }
            io.release();
        }
        drop(io.stream.shutdown().await);
        drop(permit);
    }

    /// Whether another request is coming: not when the process stops, nor after too long a silence.
    async fn wait_for_request(&self, io: &mut Buffered) -> bool {
        if !io.buf.is_empty() {
            return true;
        }
        let readable = timeout(self.settings.idle_timeout, poll_fn(|cx| io.stream.poll_readable(cx)));
        tokio::select! {
            biased;
            ready = readable => matches!(ready, Ok(Ok(()))),
            () = self.shutdown.stop.cancelled() => false,
        }
    }
}

/// Reads a body and keeps nothing of it; its length on the wire.
async fn skip_body(io: &mut Buffered, head: &RequestHead) -> Option<u64> {
    let mut len = 0;
    let mut body = Body::new(head.framing());
    while !body.is_done() {
        if io.buf.is_empty() && poll_fn(|cx| io.poll_fill(cx)).await.ok()? == 0 {
            return None;
        }
        let n = body.advance(&io.buf).ok()?;
        io.buf.advance(n);
        len += n as u64;
    }
    Some(len)
}

fn reply(head: &RequestHead, seen: &[(&str, String)], close: bool) -> String {
    let host = head.authority().map(|a| a.host.to_string()).unwrap_or_default();
    let mut body = format!("host: {host}\nmethod: {}\npath: {}\n", head.method(), head.target());
    let route = text_of(head, ROUTE_FIELD).unwrap_or_default();
    let route: Vec<_> = route.split("; ").filter_map(|part| part.split_once('=')).collect();
    let named = |name: &str| route.iter().any(|(k, _)| *k == name);
    let own = seen.iter().filter(|(name, _)| !named(name)).map(|(name, value)| (*name, value.as_str()));
    for (name, value) in own.chain(route.iter().copied()) {
        // Writing to a String does not fail.
        _ = writeln!(body, "{name}: {value}");
    }
    body.push('\n');
    for (name, value) in head.fields() {
        _ = writeln!(body, "{name}: {}", String::from_utf8_lossy(value));
    }
    let connection = if close { "Connection: close\r\n" } else { "" };
    let sent = if head.method() == "HEAD" { "" } else { &body };
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n{connection}\r\n{sent}"
    )
}
