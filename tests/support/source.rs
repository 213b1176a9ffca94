//! HTTP and gRPC servers that answer what a test says, and tell what they were asked.

use super::backend::identity;
use super::{PATIENCE, eventually};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Says {
    /// Of HTTP, or of gRPC.
    pub(crate) status: u16,
    pub(crate) location: Option<&'static str>,
    pub(crate) body: Bytes,
    /// Nothing at all: the request hangs.
    pub(crate) hangs: bool,
}

impl Says {
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: 200, location: None, body: body.into(), hangs: false }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }
}

/// What it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Debug)]
struct State {
    says: Mutex<Says>,
    asked: Mutex<Vec<Asked>>,
    connections: Mutex<usize>,
}

impl State {
    async fn answer(&self, asked: Asked) -> Says {
        self.asked.lock().unwrap().push(asked);
        let says = self.says.lock().unwrap().clone();
        if says.hangs {
            std::future::pending::<()>().await;
        }
        says
    }
}

/// A server on a port of its own; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<State>,
    _running: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Grpc,
}

impl Server {
    pub(crate) async fn http(says: Says) -> Self {
        Self::start(Kind::Http, says, None, 0).await
    }

    pub(crate) async fn grpc(says: Says) -> Self {
        Self::start(Kind::Grpc, says, None, 0).await
    }

    /// With TLS for `localhost`, and the certificate to trust.
    pub(crate) async fn https(says: Says) -> (Self, PathBuf, tempfile::TempDir) {
        let (acceptor, file, dir) = identity("localhost", &["h2", "http/1.1"]);
        (Self::start(Kind::Http, says, Some(acceptor), 0).await, file, dir)
    }

    /// The same with gRPC.
    pub(crate) async fn grpcs(says: Says) -> (Self, PathBuf, tempfile::TempDir) {
        let (acceptor, file, dir) = identity("localhost", &["h2", "http/1.1"]);
        (Self::start(Kind::Grpc, says, Some(acceptor), 0).await, file, dir)
    }

    /// One in the place of another that is gone.
    pub(crate) async fn http_at(port: u16, says: Says) -> Self {
        Self::start(Kind::Http, says, None, port).await
    }

    pub(crate) async fn grpc_at(port: u16, says: Says) -> Self {
        Self::start(Kind::Grpc, says, None, port).await
    }

    async fn start(kind: Kind, says: Says, tls: Option<TlsAcceptor>, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (says, asked, connections) = (Mutex::new(says), Mutex::default(), Mutex::new(0));
        let state = Arc::new(State { says, asked, connections });
        let (shared, mut running) = (Arc::clone(&state), JoinSet::new());
        running.spawn(async move {
            // They end with what accepts them.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *shared.connections.lock().unwrap() += 1;
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(kind, state, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(kind, state, stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, state, _running: running }
    }

    /// From now on.
    pub(crate) fn say(&self, says: Says) {
        *self.state.says.lock().unwrap() = says;
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }

    /// Waits until it was asked so many times more.
    pub(crate) fn wait_for_requests(&self, count: usize) {
        let before = self.asked().len();
        eventually(&format!("{count} requests within {PATIENCE:?}"), || {
            (self.asked().len() >= before + count).then_some(())
        });
    }
}

async fn serve(kind: Kind, state: Arc<State>, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    if kind == Kind::Grpc {
        return grpc(state, io).await;
    }
    let service = service_fn(move |request| http1(Arc::clone(&state), request));
    // Clients close connections as they like.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
}

async fn http1(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let line = format!("{} {} HTTP/1.1", head.method, head.uri);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let says = state.answer(Asked { line, fields: head.headers, body }).await;
    let mut response = Response::new(Full::new(says.body));
    *response.status_mut() = says.status.try_into().unwrap();
    if let Some(location) = says.location {
        response.headers_mut().insert("location", HeaderValue::from_static(location));
    }
    Ok(response)
}

async fn grpc(state: Arc<State>, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        calls.spawn(call(Arc::clone(&state), request, respond));
    }
}

async fn call(state: Arc<State>, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        message.extend_from_slice(&data);
    }
    let line = format!("{} {}", head.method, head.uri.path());
    let says = state.answer(Asked { line, fields: head.headers, body: message.into() }).await;
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if says.status == 200 { 0.into() } else { says.status.into() });
    // The client may be gone.
    let Ok(mut out) = respond.send_response(response, false) else { return };
    if says.status == 200 {
        drop(out.send_data(says.body, false));
    } else {
        trailers.insert("grpc-message", HeaderValue::from_static("not today"));
    }
    drop(out.send_trailers(trailers));
}
