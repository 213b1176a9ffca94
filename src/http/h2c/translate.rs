//! HTTP/2 requests as HTTP/1 ones, for targets that speak that: each is served like a request on a connection of its own, by the
//! same code, with the upstreams of its visitor's other requests to choose from.
//!
//! What HTTP/1 cannot carry (trailers of a body with a length) is left out; gRPC goes on as HTTP/2.

use super::super::failure::Failure;
use super::super::forwarding::one_request;
use super::super::pool::Idle;
use super::super::pump::Buffered;
use super::super::{self as http1, Context, Next, Router, serve_with};
use super::{Responder, asked_authority, check_fields, record_of, refuse};
use crate::net::memory::{self, MemoryStream};
use crate::wire::http::{Body, Framing, HeadReader, Limits, Rejected, ReplyHead, RequestHead};
use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use std::future::{pending, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

/// Bytes of a body between the two, in each direction.
const BUFFER: usize = 32 * 1024;
/// What heads may have beyond what the visitor sent, or a target: fields of ours, and what HTTP/1 writes around them.
const ADDED: Limits = Limits { max_bytes: 64 * 1024, max_fields: 256 };
/// Fields of one connection (RFC 9113, section 8.2.2), and those that are written anew.
const NOT_PASSED: &[&str] = &[
    "connection",
    "content-length",
    "cookie",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Answers requests by HTTP/1, but for those that need HTTP/2.
pub(super) struct Translating<'a, R, F> {
    pub(super) router: &'a R,
    pub(super) idle: Idle<'a>,
    /// For gRPC.
    pub(super) forwarding: F,
}

impl<R: Router, F: Responder> Responder for Translating<'_, R, F> {
    async fn respond(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        context: &Context<'_>,
    ) {
        if is_grpc(request.headers()) {
            return self.forwarding.respond(request, respond, context).await;
        }
        let (parts, body) = request.into_parts();
        let head = check_fields(&parts, &context.port.settings)
            .and_then(|()| request_head(&parts, body.is_end_stream(), context).map_err(Failure::Request));
        match head {
            Ok(head) => Box::pin(self.translated(head, body, &mut respond, context)).await,
            Err(failure) => {
                let record = record_of(&parts, asked_authority(&parts).as_ref(), context);
                refuse(&mut respond, &failure, record);
            }
        }
    }
}

impl<R: Router, F> Translating<'_, R, F> {
    async fn translated(
        &self,
        head: RequestHead,
        body: RecvStream,
        respond: &mut SendResponse<Bytes>,
        context: &Context<'_>,
    ) {
        let (near, far) = memory::pair(BUFFER);
        let http1 = Http1 { router: self.router, idle: &self.idle };
        let served = serve_with(Buffered::new(Box::new(far), head.raw().clone()), http1, *context);
        // The near end is dropped when all is said: nothing more is asked on it.
        let asked = exchange(near, &head, body, respond, context);
        tokio::join!(served, asked);
    }
}

/// Passes one request on as HTTP/1.
struct Http1<'a, R> {
    router: &'a R,
    idle: &'a Idle<'a>,
}

impl<R: Router> http1::Responder for Http1<'_, R> {
    async fn respond(&mut self, client: &mut Buffered, head: &RequestHead, context: &Context<'_>) -> Next {
        one_request(client, self.idle, head, self.router, context).await
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn widened(limits: &Limits) -> Limits {
    Limits { max_bytes: limits.max_bytes + ADDED.max_bytes, max_fields: limits.max_fields + ADDED.max_fields }
}

/// The request in the words of HTTP/1, held to the same rules as one that came in them.
fn request_head(parts: &Parts, bodiless: bool, context: &Context<'_>) -> Result<RequestHead, Rejected> {
    let malformed = Rejected { status: 400, reason: "request that HTTP/1 cannot express" };
    let target =
        parts.uri.path_and_query().map(|target| target.as_str()).filter(|_| parts.method != "CONNECT");
    let target = target.ok_or(malformed)?;
    let mut raw = BytesMut::new();
    let mut line = |name: &[u8], value: &[u8]| {
        [name, b": ", value, b"\r\n"].into_iter().for_each(|part| raw.extend_from_slice(part));
    };
    line(b"Host", super::authority(parts).unwrap_or_default().as_bytes());
    for (name, value) in parts.headers.iter().filter(|(name, _)| passes(name.as_str())) {
        line(name.as_str().as_bytes(), value.as_bytes());
    }
    let cookies: Vec<_> = parts.headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
    if !cookies.is_empty() {
        // HTTP/2 may split them (RFC 9113, section 8.2.3).
        line(b"cookie", &cookies.join(&b"; "[..]));
    }
    let mut lengths = parts.headers.get_all("content-length").iter();
    match lengths.next() {
        Some(_) if lengths.next().is_some() => return Err(malformed),
        Some(length) => line(b"content-length", length.as_bytes()),
        None if !bodiless => line(b"transfer-encoding", b"chunked"),
        None if matches!(parts.method.as_str(), "POST" | "PUT" | "PATCH") => line(b"content-length", b"0"),
        None => {}
    }
    let mut head = BytesMut::from(format!("{} {target} HTTP/1.1\r\n", parts.method).as_bytes());
    head.extend_from_slice(&raw);
    head.extend_from_slice(b"\r\n");
    HeadReader::default().request(&mut head, &widened(&context.port.settings.limits))?.ok_or(malformed)
}

fn passes(name: &str) -> bool {
    !NOT_PASSED.contains(&name)
}

/// Sends the body, and passes the reply on as it comes.
async fn exchange(
    near: MemoryStream,
    head: &RequestHead,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    context: &Context<'_>,
) {
    let (from, to) = split(near);
    // The HTTP/1 side gives up first, and says why.
    let patience = 2 * context.port.settings.stall_timeout;
    let mut reply = Reply { from, buf: BytesMut::new(), heads: HeadReader::default(), patience };
    let limits = widened(&context.port.settings.limits);
    let reset = async {
        match send_body(body, head.framing() == Framing::Chunked, to).await {
            Err(Stopped::Visitor) => {}
            // Whoever reads no more may have answered all the same.
            Ok(()) | Err(Stopped::Far) => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = reply.pass(head, &limits, respond) => {}
        () = reset => {}
    }
}

/// Which side stopped.
enum Stopped {
    Visitor,
    Far,
}

impl From<h2::Error> for Stopped {
    fn from(_: h2::Error) -> Self {
        Self::Visitor
    }
}

impl From<io::Error> for Stopped {
    fn from(_: io::Error) -> Self {
        Self::Far
    }
}

/// Writes the body, in chunks if its length is not known, with the trailers that chunks can have.
async fn send_body(
    mut body: RecvStream,
    chunked: bool,
    mut to: WriteHalf<MemoryStream>,
) -> Result<(), Stopped> {
    while let Some(data) = body.data().await {
        let data = data?;
        if chunked && !data.is_empty() {
            to.write_all(format!("{:x}\r\n", data.len()).as_bytes()).await?;
        }
        to.write_all(&data).await?;
        if chunked && !data.is_empty() {
            to.write_all(b"\r\n").await?;
        }
        body.flow_control().release_capacity(data.len())?;
    }
    if chunked {
        let mut end = BytesMut::from(&b"0\r\n"[..]);
        let trailers = body.trailers().await?.unwrap_or_default();
        for (name, value) in trailers.iter().filter(|(name, _)| passes(name.as_str())) {
            [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]
                .into_iter()
                .for_each(|part| end.extend_from_slice(part));
        }
        end.extend_from_slice(b"\r\n");
        to.write_all(&end).await?;
    }
    Ok(())
}

/// The reply as it comes from the HTTP/1 side.
struct Reply {
    from: ReadHalf<MemoryStream>,
    buf: BytesMut,
    heads: HeadReader,
    /// How long the visitor may take nothing.
    patience: Duration,
}

impl Reply {
    /// Passes heads, body and trailers on; a reply that breaks off ends in a reset.
    async fn pass(&mut self, asked: &RequestHead, limits: &Limits, respond: &mut SendResponse<Bytes>) {
        let head = loop {
            match self.head(asked, limits, respond).await {
                Some(head) if head.is_interim() => {
                    if respond.send_informational(response(&head)).is_err() {
                        return;
                    }
                }
                Some(head) => break head,
                None => return respond.send_reset(Reason::INTERNAL_ERROR),
            }
        };
        let bodiless = Body::new(head.framing()).is_done();
        let Ok(mut to) = respond.send_response(response(&head), bodiless) else { return };
        if !bodiless && self.body(Body::new(head.framing()), &mut to).await.is_err() {
            to.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    /// The next head; `None` when there is none, or nobody to have it.
    async fn head(
        &mut self,
        asked: &RequestHead,
        limits: &Limits,
        respond: &mut SendResponse<Bytes>,
    ) -> Option<ReplyHead> {
        loop {
            if let Some(head) = self.heads.reply(&mut self.buf, limits, asked).ok()? {
                return Some(head);
            }
            let filled = self.fill(|cx| respond.poll_reset(cx).map(drop)).await;
            filled.ok().filter(|n| *n > 0)?;
        }
    }

    async fn body(&mut self, mut body: Body, to: &mut SendStream<Bytes>) -> Result<(), Stopped> {
        let mut trailers = BytesMut::new();
        while !body.is_done() {
            if self.buf.is_empty() && self.fill(|cx| to.poll_reset(cx).map(drop)).await? == 0 {
                body.end().map_err(|_| Stopped::Far)?;
                break;
            }
            let data = body.take_data(&mut self.buf, |byte| trailers.put_u8(byte));
            if let Some(data) = data.map_err(|_| Stopped::Far)? {
                send(data, to, self.patience).await?;
            }
        }
        match trailer_map(&trailers) {
            trailers if trailers.is_empty() => to.send_data(Bytes::new(), true)?,
            trailers => to.send_trailers(trailers)?,
        }
        Ok(())
    }

    /// Reads more, unless the visitor resets its request meanwhile.
    async fn fill(
        &mut self,
        mut gone: impl FnMut(&mut std::task::Context<'_>) -> Poll<()>,
    ) -> Result<usize, Stopped> {
        self.buf.reserve(BUFFER);
        let mut from = std::pin::Pin::new(&mut self.from);
        poll_fn(|cx| match tokio_util::io::poll_read_buf(from.as_mut(), cx, &mut self.buf) {
            Poll::Ready(read) => Poll::Ready(read.map_err(Stopped::from)),
            Poll::Pending => gone(cx).map(|()| Err(Stopped::Visitor)),
        })
        .await
    }
}

async fn send(mut data: Bytes, to: &mut SendStream<Bytes>, limit: Duration) -> Result<(), Stopped> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let capacity = timeout(limit, poll_fn(|cx| to.poll_capacity(cx))).await;
        let capacity = capacity.ok().flatten().ok_or(Stopped::Visitor)??;
        to.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    Ok(())
}

fn response(head: &ReplyHead) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let named: Vec<_> = head.connection_options().collect();
    for (name, value) in head.fields() {
        let own = NOT_PASSED.iter().chain(&named).any(|other| other.eq_ignore_ascii_case(name));
        if own && !name.eq_ignore_ascii_case("content-length") {
            continue;
        }
        let field = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_bytes(value).ok());
        if let Some((name, value)) = field {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Lines that the follower of the body has found to be fields.
fn trailer_map(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|b| *b == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            trailers.append(name, value);
        }
    }
    trailers
}
