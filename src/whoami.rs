//! The handler `whoami`: answers every request with what arrived, to see what a route does to it.
//!
//! Host, path, fields and client are those of the request as it came; tunnel, connector and node are known when the proxies
//! on the way add `Pointsman-Route` (`http.routeHeader: true`), or when this handler sits on a tunnel itself.

use crate::http::pump::Buffered;
use crate::http::{ROUTE_FIELD, Settings, text_of};
use crate::net::Conn;
use crate::net::listen::Permit;
use crate::shutdown::Shutdown;
use crate::wire::http::{Body, RequestHead};
use bytes::Buf;
use std::fmt::Write;
use std::future::poll_fn;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// The service's name and times.
#[derive(Debug)]
pub(crate) struct Whoami {
    pub(crate) service: String,
    pub(crate) settings: Settings,
    pub(crate) shutdown: Shutdown,
}

impl Whoami {
    /// Answers the requests of one connection.
    pub(crate) async fn serve(&self, mut conn: Conn, permit: Option<Permit>) {
        let prefix = std::mem::take(&mut conn.prefix);
        let (client, via) = (conn.client, conn.via.take());
        let mut io = Buffered::new(conn.stream, prefix);
        let mut seen = vec![("service", self.service.clone()), ("client", client.to_string())];
        if let Some(via) = via {
            let ids = [("tunnel", via.tunnel), ("connector", via.connector)];
            seen.extend(ids.into_iter().filter_map(|(name, id)| Some((name, id?.to_string()))));
        }
        loop {
            let request = async {
                let head = io.read_request(&self.settings.limits).await.ok().flatten()?;
                skip_body(&mut io, &head).await.map(|()| head)
            };
            // Without a request in time there is nobody to answer.
            let Ok(Some(head)) = timeout(self.settings.idle_timeout, request).await else { break };
            let close = !head.keep_alive() || self.shutdown.stop.is_cancelled();
            let reply = reply(&head, &seen, close);
            if io.stream.write_all(reply.as_bytes()).await.is_err() || close {
                break;
            }
            io.release();
        }
        drop(io.stream.shutdown().await);
        drop(permit);
    }
}

async fn skip_body(io: &mut Buffered, head: &RequestHead) -> Option<()> {
    let mut body = Body::new(head.framing());
    while !body.is_done() {
        if io.buf.is_empty() && poll_fn(|cx| io.poll_fill(cx)).await.ok()? == 0 {
            return None;
        }
        let n = body.advance(&io.buf).ok()?;
        io.buf.advance(n);
    }
    Some(())
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
