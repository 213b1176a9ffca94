//! Targets: an HTTP server that says what it saw, streams and sums; over plain TCP, TLS, and WebSocket.

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// After so many bytes the pattern begins again: a prime, so that no mistake in a buffer's size goes unseen.
const PERIOD: usize = 1_048_573;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..PERIOD).map(|i| ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
});

/// Bytes of a stream, any part of which can be made again.
pub(crate) fn pattern(offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let rest = &PATTERN[(offset + bytes.len()) % PERIOD..];
        bytes.extend_from_slice(&rest[..rest.len().min(len - bytes.len())]);
    }
    bytes
}

/// The checksum of the first `len` bytes of the pattern.
pub(crate) fn pattern_sum(len: usize) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    for offset in (0..len).step_by(PERIOD) {
        sum.update(&PATTERN[..PERIOD.min(len - offset)]);
    }
    sum.finalize()
}

async fn answer(
    name: Arc<str>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let host = request.headers().get("host").map(|h| String::from_utf8_lossy(h.as_bytes()).into_owned());
    let text = |text: String| Response::new(Full::new(Bytes::from(text)).boxed());
    if let Some(len) = path.strip_prefix("/bytes/").and_then(|n| n.parse::<usize>().ok()) {
        const STEP: usize = 1 << 16;
        let frames = (0..len)
            .step_by(STEP)
            .map(move |at| Ok::<_, Infallible>(Frame::data(Bytes::from(pattern(at, STEP.min(len - at))))));
        let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
        if request.uri().query() == Some("length") {
            response.headers_mut().insert("content-length", len.into());
        }
        return Ok(response);
    }
    if path == "/sum" {
        let mut body = request.into_body();
        let (mut sum, mut len) = (crc32fast::Hasher::new(), 0);
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                sum.update(&data);
                len += data.len();
            }
        }
        return Ok(text(format!("{len} {:08x}", sum.finalize())));
    }
    Ok(text(format!("{name} {} {path} {}", host.unwrap_or_default(), request.method())))
}

async fn serve(name: Arc<str>, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request| answer(Arc::clone(&name), request));
    // The tests close connections as they like.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
}

/// An HTTP server; its port.
pub(crate) async fn http(name: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let name: Arc<str> = name.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Arc::clone(&name), stream));
        }
    });
    port
}

/// TLS for one host with these application protocols, and the certificate that clients must trust.
pub(crate) fn identity(host: &str, alpn: &[&str]) -> (TlsAcceptor, PathBuf, tempfile::TempDir) {
    let certified = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, certified.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key);
    let mut config = config.unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), file, dir)
}

/// An HTTPS server for one host; its port, and the certificate that clients must trust.
pub(crate) async fn https(name: &str, host: &str) -> (u16, PathBuf, tempfile::TempDir) {
    let (acceptor, file, dir) = identity(host, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let name: Arc<str> = name.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, name) = (acceptor.clone(), Arc::clone(&name));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(name, stream).await;
                }
            });
        }
    });
    (port, file, dir)
}

/// A WebSocket server that sends back what it gets; its port.
pub(crate) async fn websocket() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}
