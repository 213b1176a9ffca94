//! WebSocket as a byte stream: binary messages whose bounds mean nothing (section 7.2 of the wire specification).

use crate::handshake::Unfit;
use crate::net::{BoxStream, ByteStream};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

/// Payload of one message, at most.
const MAX_SENT: usize = 64 * 1024;
/// The same of a peer's, with room for those that send more at a time than GOST does.
const MAX_RECEIVED: usize = 4 * 1024 * 1024;
/// Held by every connection.
const READ_BUFFER: usize = 16 * 1024;

/// The keys of dialer and listener for `ws`, `wss`, `mws` and `mwss`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `path` or `ws.path`: what is asked for and answered, `/ws` unless said.
    pub path: String,
    /// `host` or `ws.host`, sent by the dialer; `None`: the address that it dials.
    pub host: Option<String>,
    /// `header` or `ws.header`: sent along by either side.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `keepalive` and `ttl`: the dialer pings this often, and either side takes silence of twice as long for the end.
    pub keepalive: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { path: "/ws".to_owned(), host: None, headers: Vec::new(), keepalive: None }
    }
}

impl Settings {
    fn add_headers(&self, to: &mut HeaderMap) {
        to.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Whoever wants its bytes to wait in a buffer does not flush.
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MAX_SENT)
        .max_message_size(Some(MAX_RECEIVED))
        .max_frame_size(Some(MAX_RECEIVED))
}

/// Asks for the upgrade at a server that was dialled by this `HOST:PORT`.
pub(super) async fn connect(
    stream: BoxStream,
    authority: &str,
    settings: &Settings,
) -> io::Result<WebSocket> {
    let host = settings.host.as_deref().unwrap_or(authority);
    // The library takes the host from the URL, and its scheme says nothing here.
    let mut request = format!("ws://{host}{}", settings.path).into_client_request().map_err(failed)?;
    settings.add_headers(request.headers_mut());
    let asked = client_async_with_config(request, stream, Some(config())).await;
    let (socket, _) = asked.map_err(handshake_failed)?;
    Ok(WebSocket::new(socket, settings.keepalive, true))
}

/// Answers the upgrade, or says 404 where another path is asked for.
pub(super) async fn accept(stream: BoxStream, settings: &Settings) -> io::Result<WebSocket> {
    #[expect(clippy::result_large_err, reason = "the library's own signature")]
    let answer = |request: &Request, mut response: Response| {
        if request.uri().path() != settings.path {
            let mut refusal = ErrorResponse::new(None);
            *refusal.status_mut() = StatusCode::NOT_FOUND;
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Err(refusal);
        }
        settings.add_headers(response.headers_mut());
        Ok(response)
    };
    let asked = accept_hdr_async_with_config(stream, answer, Some(config())).await;
    let socket = asked.map_err(|error| match error {
        // Our own refusal.
        Error::Http(_) => io::Error::other(format!(
            "WebSocket: the client asks for another path than {}: is the path the same at both ends?",
            settings.path
        )),
        error => handshake_failed(error),
    })?;
    Ok(WebSocket::new(socket, settings.keepalive, false))
}

const ANOTHER_TYPE: &str = "; is it the same type at both ends?";

fn handshake_failed(error: Error) -> io::Error {
    match error {
        Error::Io(error) => {
            // What lies below says more of what it cannot read.
            let is_known = error.kind() == io::ErrorKind::InvalidData
                || error.get_ref().is_some_and(|inner| inner.is::<Unfit>());
            let advice = if is_known { "" } else { ANOTHER_TYPE };
            io::Error::new(error.kind(), format!("WebSocket handshake: {error}{advice}"))
        }
        error @ Error::Protocol(_) => {
            io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket handshake: {error}{ANOTHER_TYPE}"))
        }
        error => failed(error),
    }
}

/// The library's errors as those of a stream.
fn failed(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Http(response) => {
            let advice = match response.status() {
                StatusCode::NOT_FOUND => ": is the path the same at both ends?",
                _ => "",
            };
            io::Error::other(format!("WebSocket: the server answers {}{advice}", response.status()))
        }
        error @ (Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)) => {
            io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {error}"))
        }
        error => io::Error::other(format!("WebSocket: {error}")),
    }
}

/// An upgraded connection. There is no half-close: the end of one direction is that of both.
#[derive(Debug)]
pub(super) struct WebSocket {
    socket: WebSocketStream<BoxStream>,
    /// The rest of a message.
    received: Bytes,
    ended: bool,
    pulse: Option<Pulse>,
}

/// Pings of the dialer, and for how long silence is borne.
#[derive(Debug)]
struct Pulse {
    every: Duration,
    pings: bool,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Pulse {
    fn new(every: Duration, pings: bool) -> Self {
        let now = Instant::now();
        Self { every, pings, heard: now, timer: Box::pin(sleep_until(now + every)) }
    }

    /// Whether a ping is due; pending until then.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.timer.as_mut().poll(cx));
        if self.heard.elapsed() >= 2 * self.every {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "WebSocket: no answer to pings",
            )));
        }
        self.timer.as_mut().reset(Instant::now() + self.every);
        Poll::Ready(Ok(()))
    }
}

impl WebSocket {
    fn new(socket: WebSocketStream<BoxStream>, keepalive: Option<Duration>, pings: bool) -> Self {
        let pulse = keepalive.map(|every| Pulse::new(every, pings));
        Self { socket, received: Bytes::new(), ended: false, pulse }
    }

    /// Ready when there are bytes in `received`, or the end has come.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.received.is_empty() && !self.ended {
            let Poll::Ready(message) = Pin::new(&mut self.socket).poll_next(cx) else {
                ready!(self.poll_pulse(cx))?;
                continue;
            };
            if let Some(pulse) = &mut self.pulse {
                pulse.heard = Instant::now();
            }
            match message {
                Some(Ok(Message::Binary(bytes))) => self.received = bytes,
                Some(Ok(Message::Text(text))) => self.received = text.into(),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    self.ended = true;
                }
                // GOST never says goodbye.
                Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing has come: sends a ping when it is time.
    fn poll_pulse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pulse) = &mut self.pulse else { return Poll::Pending };
        ready!(pulse.poll(cx))?;
        let pings = pulse.pings;
        let mut socket = Pin::new(&mut self.socket);
        if pings && socket.as_mut().poll_ready(cx).map_err(failed)?.is_ready() {
            socket.as_mut().start_send(Message::Ping(Bytes::new())).map_err(failed)?;
            // What cannot be sent now goes with whatever is sent next.
            let _ = socket.poll_flush(cx).map_err(failed)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_receive(cx))?;
        let n = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..n]);
        self.received.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    /// One message for all of them: a mux writes many small pieces.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(failed)?;
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MAX_SENT);
        let mut message = BytesMut::with_capacity(len);
        for buf in bufs {
            message.extend_from_slice(&buf[..buf.len().min(len - message.len())]);
        }
        Pin::new(&mut self.socket).start_send(Message::Binary(message.freeze())).map_err(failed)?;
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_close(cx)).map_err(failed)?;
        Pin::new(self.socket.get_mut()).poll_shutdown(cx)
    }
}

impl ByteStream for WebSocket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_receive(cx)
    }

    fn half_close(&self) -> bool {
        false
    }

    fn abort(&mut self) {
        self.socket.get_mut().abort();
    }
}
