//! One stream of HTTP/2 as a byte stream, as it is or in gRPC's messages.

use super::failed;
use crate::net::ByteStream;
use crate::wire::grpc::{self, Decoder};
use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Handed to the connection in one write.
const MAX_WRITE: usize = 64 * 1024;

/// A stream. Its end is that of its half: the other one goes on.
#[derive(Debug)]
pub(super) struct Http2Stream {
    send: SendStream<Bytes>,
    receive: Receive,
    received: VecDeque<Bytes>,
    /// Of what has been received, not given back to the peer's window yet.
    unreleased: usize,
    ended: bool,
    /// Set on channel `grpc`.
    messages: Option<Decoder>,
    /// It was opened by the peer, who waits for trailers on channel `grpc`.
    is_answer: bool,
    shut: bool,
}

#[derive(Debug)]
enum Receive {
    /// The answer has not come. gRPC servers begin it with their first message.
    Waiting(ResponseFuture),
    Body(RecvStream),
}

impl Http2Stream {
    pub(super) fn asked(response: ResponseFuture, send: SendStream<Bytes>, grpc: bool) -> Self {
        Self::new(Receive::Waiting(response), send, grpc, false)
    }

    pub(super) fn answered(body: RecvStream, send: SendStream<Bytes>, grpc: bool) -> Self {
        Self::new(Receive::Body(body), send, grpc, true)
    }

    fn new(receive: Receive, send: SendStream<Bytes>, grpc: bool, is_answer: bool) -> Self {
        let messages = grpc.then(Decoder::default);
        let received = VecDeque::new();
        Self { send, receive, received, unreleased: 0, ended: false, messages, is_answer, shut: false }
    }

    /// Ready when there are bytes in `received`, or the end has come.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.received.is_empty() && !self.ended {
            match &mut self.receive {
                Receive::Waiting(response) => {
                    let response = ready!(Pin::new(response).poll(cx)).map_err(failed)?;
                    check(&response, self.messages.is_some())?;
                    self.receive = Receive::Body(response.into_body());
                }
                Receive::Body(body) => {
                    // Given back in one piece when all of it has been read.
                    let read = std::mem::take(&mut self.unreleased);
                    body.flow_control().release_capacity(read).map_err(failed)?;
                    match ready!(body.poll_data(cx)) {
                        Some(data) => {
                            let data = data.map_err(failed)?;
                            self.unreleased = data.len();
                            self.take(data)?;
                        }
                        None => {
                            if self.messages.is_some() && !self.is_answer {
                                let trailers = ready!(body.poll_trailers(cx)).map_err(failed)?;
                                check_status(trailers.as_ref())?;
                            }
                            if self.messages.as_ref().is_some_and(|messages| !messages.is_between()) {
                                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                            }
                            self.ended = true;
                        }
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes) -> io::Result<()> {
        let Some(messages) = &mut self.messages else {
            self.received.extend(Some(data).filter(|data| !data.is_empty()));
            return Ok(());
        };
        let received = &mut self.received;
        messages
            .decode(data, |part| received.push_back(part))
            .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))
    }
}

fn check<B>(response: &Response<B>, grpc: bool) -> io::Result<()> {
    match response.status() {
        StatusCode::OK if grpc => check_status(Some(response.headers())),
        StatusCode::OK => Ok(()),
        status => {
            let advice = ": is the path the same at both ends?";
            Err(io::Error::other(format!("HTTP/2: the server answers {status}{advice}")))
        }
    }
}

/// gRPC's own status, which is 0 for an end in order.
fn check_status(fields: Option<&HeaderMap>) -> io::Result<()> {
    let field = |name| fields.and_then(|fields| fields.get(name)).map(HeaderValue::as_bytes);
    match field("grpc-status") {
        None | Some(b"0") => Ok(()),
        Some(status) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let message = field("grpc-message").map(text).unwrap_or_default();
            Err(io::Error::other(format!("gRPC status {}: {message}", text(status))))
        }
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_receive(cx))?;
        while let Some(first) = self.received.front_mut().filter(|_| buf.remaining() > 0) {
            let n = first.len().min(buf.remaining());
            buf.put_slice(&first[..n]);
            first.advance(n);
            if first.is_empty() {
                self.received.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    /// One frame, or one message, for all of them: a mux writes many small pieces.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let most = if self.messages.is_some() { grpc::MAX_DATA } else { MAX_WRITE };
        self.send.reserve_capacity(total.min(most));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(capacity) => capacity.map_err(failed)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let len = total.min(most).min(self.send.capacity());
        let mut data = Vec::with_capacity(len);
        for buf in bufs {
            data.extend_from_slice(&buf[..buf.len().min(len - data.len())]);
        }
        // What a message needs beside its data waits for room in the connection.
        let frame = if self.messages.is_some() { grpc::encode(&data) } else { data.into() };
        self.send.send_data(frame, false).map_err(failed)?;
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The connection sends what it has without being asked to.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.shut, true) {
            let ended = if self.messages.is_some() && self.is_answer {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                self.send.send_trailers(trailers)
            } else {
                self.send.send_data(Bytes::new(), true)
            };
            ended.map_err(failed)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl ByteStream for Http2Stream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_receive(cx)
    }

    fn abort(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}
