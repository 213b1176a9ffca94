//! A client for gRPC: calls of one message each way, all of them on one connection that is made anew when it ends.
//!
//! Deadlines are the caller's.

use super::http::connect;
use crate::addr::HostPort;
use crate::channel::tls::{self, TlsError};
use crate::wire::unary::{Fields, Message};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Request, Response, StatusCode};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Most that an answer holds; those of plugins have some dozens of bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// All fields of an answer.
const MAX_HEAD: u32 = 16 * 1024;
/// Longest `grpc-message` that is shown.
const MAX_SHOWN: usize = 200;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Calls one server.
#[derive(Debug)]
pub(super) struct Client {
    addr: HostPort,
    tls: Option<tls::Connector>,
    token: Option<HeaderValue>,
    connect_timeout: Duration,
    /// Locked while a connection is made, so that others wait for it.
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    /// What the next call goes out on.
    current: Option<SendRequest<Bytes>>,
    /// What moves the frames of this one and of those before it that still carry calls; ends with the client.
    drivers: JoinSet<()>,
}

impl Client {
    /// `token`: sent along with every call. Without `tls` it is clear text.
    pub(super) fn new(
        addr: HostPort,
        tls: Option<&tls::ClientSettings>,
        token: Option<HeaderValue>,
        connect_timeout: Duration,
    ) -> Result<Self, TlsError> {
        let tls = tls.map(tls::Connector::new).transpose()?;
        Ok(Self { addr, tls, token, connect_timeout, links: Mutex::default() })
    }

    /// Calls `/package.Service/Method`.
    pub(super) async fn call(&self, path: &str, message: Message) -> Result<Fields, String> {
        let request = self.request(path).map_err(|error| format!("the call cannot be written: {error}"))?;
        let mut sender = self.sender().await?;
        let (response, mut send) = sender.send_request(request, false).map_err(failed)?;
        send.send_data(message.encode(), true).map_err(failed)?;
        let response = response.await.map_err(failed)?;
        answer(response).await
    }

    /// What is there now is not to be trusted: the next call makes a new connection. Calls on the old one go on.
    pub(super) fn forget(&self) {
        // Whoever holds it is about to make a new one.
        if let Ok(mut links) = self.links.try_lock() {
            links.current = None;
        }
    }

    fn request(&self, path: &str) -> Result<Request<()>, http::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{}{path}", self.addr))
            .version(http::Version::HTTP_2)
            .header(CONTENT_TYPE, GRPC)
            .header(TE, "trailers");
        if let Some(token) = &self.token {
            request = request.header("token", token);
        }
        request.body(())
    }

    /// The connection, when it takes another call.
    async fn sender(&self) -> Result<SendRequest<Bytes>, String> {
        let mut links = self.links.lock().await;
        if let Some(sender) = &links.current
            && let Ok(ready) = sender.clone().ready().await
        {
            return Ok(ready);
        }
        let sender = self.connect(&mut links.drivers).await?;
        links.current = Some(sender.clone());
        sender.ready().await.map_err(failed)
    }

    async fn connect(&self, drivers: &mut JoinSet<()>) -> Result<SendRequest<Bytes>, String> {
        let stream =
            connect(&self.addr, self.tls.as_ref().map(|tls| (tls, "h2")), self.connect_timeout).await?;
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).max_header_list_size(MAX_HEAD);
        let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(failed)?;
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            // Those who wait for answers are told why it ended.
            drop(connection.await);
        });
        Ok(sender)
    }
}

async fn answer(response: Response<h2::RecvStream>) -> Result<Fields, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("the server answers {}: is it one of gRPC?", response.status().as_u16()));
    }
    // An error without a message comes at once.
    status(response.headers())?;
    let mut body = response.into_body();
    let mut wire = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(failed)?;
        if wire.len() + data.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        // Of a stream that has ended nothing more is asked.
        let _ = body.flow_control().release_capacity(data.len());
        wire.extend_from_slice(&data);
    }
    if let Some(trailers) = body.trailers().await.map_err(failed)? {
        status(&trailers)?;
    }
    Fields::decode(wire.freeze()).map_err(|error| error.to_string())
}

/// What `grpc-status` says, if it stands there.
fn status(fields: &HeaderMap) -> Result<(), String> {
    let Some(status) = fields.get("grpc-status") else { return Ok(()) };
    if status == "0" {
        return Ok(());
    }
    let shown = |value: &HeaderValue| -> String {
        String::from_utf8_lossy(value.as_bytes()).chars().take(MAX_SHOWN).collect()
    };
    let message = fields.get("grpc-message").map(shown).unwrap_or_default();
    Err(format!("the server answers with gRPC status {}, {message:?}", shown(status)))
}

fn failed(error: h2::Error) -> String {
    format!("HTTP/2: {error}")
}
