//! Streams of HTTP/2 as byte streams: channels `h2`, `h2c` and `grpc` (section 7.3 of the wire specification).
//!
//! The protocol is the `h2` crate's. One connection carries many streams, each of them a request that lasts.

mod line;
mod stream;

use super::ChannelError;
use crate::net::BoxStream;
use crate::shutdown::Shutdown;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong, server};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{Method, Request, Response, StatusCode, Version};
use line::Line;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use stream::Http2Stream;
use tokio::time::{Instant, sleep, timeout};

/// Streams that a peer may have on one connection.
const MAX_STREAMS: u32 = 10_000;
/// Bytes of one stream that may be on their way without having been read.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for a connection.
const CONNECTION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// Payload of a frame: larger ones cost less each.
const FRAME: u32 = 64 * 1024;
/// All fields of a request or an answer.
const MAX_HEAD: u32 = 16 * 1024;
/// Streams reset by a peer before they were looked at, before its connection is ended (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 32;
/// What is asked for by `grpc` unless its path says something else.
const GRPC_PATH: &str = "/GostTunel/Tunnel";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The keys of dialer and listener for `h2`, `h2c` and `grpc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `grpc` rather than `h2` or `h2c`: bytes go in messages.
    pub grpc: bool,
    /// `path` (`grpc.path`), with the slash in front; `None`: `CONNECT` without a path, or [`GRPC_PATH`].
    pub path: Option<String>,
    /// `host`, sent by the dialer; `None`: the address that it dials.
    pub host: Option<String>,
    /// `header`: sent along by the dialer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `keepalive` and `ttl`: either side pings this often, and ends the connection without an answer in that time.
    pub keepalive: Option<Duration>,
    /// A peer from which nothing comes for so long, although it is asked whether it is there, is dead; `None` with
    /// `keepalive: false`.
    pub silence: Option<Duration>,
}

impl Settings {
    /// The path of a request for a stream; `None` for `CONNECT`.
    fn path(&self) -> Option<&str> {
        match &self.path {
            Some(path) => Some(path),
            None => self.grpc.then_some(GRPC_PATH),
        }
    }

    /// `grpc.path` as GOST reads it: a service and a method, of which only the first slash is one.
    pub fn grpc_path(text: &str) -> String {
        match text.trim_matches('/').split_once('/') {
            Some((service, method)) => format!("/{service}/{}", method.replace('/', "-")),
            None => format!("/{}/Tunnel", text.trim_matches('/')),
        }
    }

    fn request(&self, authority: &str, tls: bool) -> Result<Request<()>, http::Error> {
        // gRPC names its server without the port.
        let name = if self.grpc {
            authority.rsplit_once(':').map_or(authority, |(host, _)| host)
        } else {
            authority
        };
        let authority = self.host.as_deref().unwrap_or(name);
        let mut request = match self.path() {
            None => Request::builder().method(Method::CONNECT).uri(authority),
            Some(path) => {
                let scheme = if tls { "https" } else { "http" };
                let method = if self.grpc { Method::POST } else { Method::GET };
                Request::builder().method(method).uri(format!("{scheme}://{authority}{path}"))
            }
        };
        if self.grpc {
            request = request.header(CONTENT_TYPE, GRPC).header(TE, "trailers");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.version(Version::HTTP_2).body(())
    }

    /// Whether a request asks for a stream, or what it is answered.
    fn check<B>(&self, request: &Request<B>) -> Result<(), StatusCode> {
        let expected = match (self.path(), self.grpc) {
            (None, _) if request.method() == Method::CONNECT => return Ok(()),
            (None, _) => return Err(StatusCode::METHOD_NOT_ALLOWED),
            (Some(path), true) if request.method() == Method::POST => path,
            (Some(_), true) => return Err(StatusCode::METHOD_NOT_ALLOWED),
            (Some(path), false) => path,
        };
        if request.uri().path() == expected { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
    }
}

/// A connection to a server on which streams are opened. Clones stand for the same one.
#[derive(Debug, Clone)]
pub(super) struct Client {
    sender: SendRequest<Bytes>,
    settings: Settings,
    authority: String,
    tls: bool,
    line: Arc<Line>,
}

impl Client {
    /// Begins HTTP/2 with the server that was dialled by this `HOST:PORT`. What moves its frames ends with its last stream.
    pub(super) async fn connect(
        stream: BoxStream,
        tls: bool,
        authority: String,
        settings: &Settings,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(MAX_HEAD);
        let (stream, line) = Line::over(stream);
        let (sender, mut connection) = builder.handshake::<_, Bytes>(stream).await.map_err(failed)?;
        let (heard, silence) = (Arc::clone(&line), settings.silence);
        let heartbeat = heartbeat(connection.ping_pong(), settings.keepalive);
        shutdown.tasks.spawn(async move {
            let mut heartbeat = pin!(heartbeat);
            loop {
                tokio::select! {
                    // Those who wait on its streams are told why it ended.
                    _ = &mut connection => return,
                    () = &mut heartbeat => return,
                    // Fails while an earlier one waits for its answer.
                    () = heard.quiet(silence) => drop(connection.set_initial_window_size(STREAM_WINDOW)),
                }
            }
        });
        Ok(Self { sender, settings: settings.clone(), authority, tls, line })
    }

    /// When the server was heard last.
    pub(super) fn heard(&self) -> Instant {
        self.line.heard()
    }

    /// Opens a stream. What the server answers is seen by the first read.
    pub(super) async fn open(&self) -> Result<BoxStream, ChannelError> {
        let request = self.settings.request(&self.authority, self.tls).map_err(io::Error::other)?;
        let mut sender = self.sender.clone();
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(failed)?;
        let (response, send) = sender.send_request(request, false).map_err(failed)?;
        Ok(Box::new(Http2Stream::asked(response, send, self.settings.grpc)))
    }
}

/// Pings for as long as they are answered.
async fn heartbeat(pings: Option<PingPong>, every: Option<Duration>) {
    let (Some(mut pings), Some(every)) = (pings, every) else { return std::future::pending().await };
    loop {
        sleep(every).await;
        if !matches!(timeout(every, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

/// Serves the streams of one connection until it ends. With the process's end it takes no more and waits for those it has.
pub(super) async fn serve(
    stream: BoxStream,
    settings: &Settings,
    limit: Duration,
    shutdown: &Shutdown,
    mut deliver: impl FnMut(BoxStream),
) -> Result<(), ChannelError> {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(MAX_HEAD)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    let (stream, line) = Line::over(stream);
    let handshake = timeout(limit, builder.handshake::<_, Bytes>(stream)).await;
    let mut connection = handshake.map_err(|_| ChannelError::Timeout(limit))?.map_err(handshake_failed)?;
    let mut heartbeat = pin!(heartbeat(connection.ping_pong(), settings.keepalive));
    let (mut asked, mut stopping) = (false, false);
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    asked = true;
                    if let Some(stream) = answer(settings, request, respond) {
                        deliver(Box::new(stream));
                    }
                }
                Some(Err(error)) if asked => return Err(ChannelError::Lost(failed(error))),
                Some(Err(error)) => return Err(failed(error).into()),
                None if asked || stopping => return Ok(()),
                None => return Err(ChannelError::unused()),
            },
            () = shutdown.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
            () = &mut heartbeat => return Err(ChannelError::Lost(io::ErrorKind::TimedOut.into())),
            // Fails while an earlier one waits for its answer.
            () = line.quiet(settings.silence) => drop(connection.set_initial_window_size(STREAM_WINDOW)),
        }
    }
}

fn answer(
    settings: &Settings,
    request: Request<h2::RecvStream>,
    mut respond: server::SendResponse<Bytes>,
) -> Option<Http2Stream> {
    let checked = settings.check(&request);
    let mut response = Response::new(());
    if let Err(status) = checked {
        *response.status_mut() = status;
        // The peer may be gone already.
        let _ = respond.send_response(response, true);
        return None;
    }
    if settings.grpc {
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
    }
    let send = respond.send_response(response, false).ok()?;
    Some(Http2Stream::answered(request.into_body(), send, settings.grpc))
}

/// A client that does not begin as one of HTTP/2 does.
fn handshake_failed(error: h2::Error) -> io::Error {
    if error.is_io() {
        return failed(error);
    }
    io::Error::other(format!("HTTP/2 handshake: {error}; is it the same type at both ends?"))
}

fn failed(error: h2::Error) -> io::Error {
    let text = format!("HTTP/2: {error}");
    match error.into_io() {
        Some(error) => error,
        None => io::Error::other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_grpc_are_read_as_gost_reads_them() {
        let cases = [("/svc/method", "/svc/method"), ("svc/a/b", "/svc/a-b"), ("/svc", "/svc/Tunnel")];
        for (text, path) in cases {
            assert_eq!(Settings::grpc_path(text), path);
        }
    }
}
