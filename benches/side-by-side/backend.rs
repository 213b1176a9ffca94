//! The target behind every contender: HTTP/1 in clear text or in TLS, in the benchmark's own process.
//!
//! | path | answer |
//! |---|---|
//! | `/echo/N` | the target's name and N |
//! | `/bytes/N` | N bytes of a pattern |
//! | `/paced/R/N` | the same, at R bytes a second |
//! | `/held/N` | the head of a reply of N bytes, of which none comes |
//! | `/?host=H...` | the first tunnel, as GOST's plugins for an ingress answer |

use crate::contenders::Tunnel;
use crate::pattern;
use anyhow::{Context, Result};
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A request's head is small; a longer one is a fault of the contender.
const HEAD_LIMIT: usize = 16 << 10;
/// How often a paced body goes on.
const PACE: Duration = Duration::from_millis(5);

/// A running target; its port closes when it is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    /// At 127.0.0.1.
    pub(crate) port: u16,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

/// What has come to a target.
#[derive(Debug, Default)]
struct Counts {
    /// Requests so far.
    asked: AtomicU64,
    /// Connections that are open.
    held: AtomicU64,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Backend {
    /// Answers under this name; with an identity, over TLS.
    pub(crate) async fn start(name: &'static str, identity: Option<&Identity>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a target")?;
        let port = listener.local_addr()?.port();
        let acceptor = identity.map(|identity| identity.acceptor.clone());
        let counts = Arc::<Counts>::default();
        let counter = Arc::clone(&counts);
        let accepting = tokio::spawn(async move {
            // An error is a connection that has ended before it was taken.
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(connection(stream, acceptor.clone(), name, Arc::clone(&counter)));
            }
        });
        Ok(Self { port, counts, accepting })
    }

    /// How many requests have come so far.
    pub(crate) fn asked(&self) -> u64 {
        self.counts.asked.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub(crate) fn held(&self) -> u64 {
        self.counts.held.load(Ordering::Relaxed)
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    name: &'static str,
    counts: Arc<Counts>,
) {
    drop(stream.set_nodelay(true));
    counts.held.fetch_add(1, Ordering::Relaxed);
    // Whoever goes away in the middle is counted at the other end.
    match acceptor {
        None => drop(serve(stream, name, &counts.asked).await),
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                drop(serve(stream, name, &counts.asked).await);
            }
        }
    }
    counts.held.fetch_sub(1, Ordering::Relaxed);
}

/// Request after request, until the peer ends or asks for the end.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str, asked: &AtomicU64) -> Result<()> {
    let mut buf = Vec::with_capacity(1 << 10);
    loop {
        let Some(head) = pattern::head(&mut stream, &mut buf, HEAD_LIMIT).await? else { return Ok(()) };
        asked.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(&buf[..head]).to_ascii_lowercase();
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let close = text.contains("\r\nconnection: close\r\n");
        buf.drain(..head);
        answer(&mut stream, &path, name, close).await?;
        if close {
            return Ok(stream.shutdown().await?);
        }
    }
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), path: &str, name: &str, close: bool) -> Result<()> {
    let mut parts = path.split('/').skip(1);
    let what = parts.next();
    let numbers: Vec<u64> = parts.filter_map(|part| part.parse().ok()).collect();
    match (what, &numbers[..]) {
        (Some("echo"), [number]) => {
            let body = format!("{name} {number}");
            let reply = head(body.len() as u64, close) + &body;
            stream.write_all(reply.as_bytes()).await?;
        }
        (Some("bytes"), [count]) => {
            stream.write_all(head(*count, close).as_bytes()).await?;
            pattern::write(stream, 0, *count).await?;
        }
        (Some("held"), [count]) => stream.write_all(head(*count, close).as_bytes()).await?,
        (Some("paced"), [rate, count]) => {
            stream.write_all(head(*count, close).as_bytes()).await?;
            paced(stream, *rate, *count).await?;
        }
        (Some(query), _) if query.starts_with("?host=") => {
            let body = format!("{{\"endpoint\":\"{}\"}}", Tunnel::id(0));
            let reply = head(body.len() as u64, close) + &body;
            stream.write_all(reply.as_bytes()).await?;
        }
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?,
    }
    Ok(stream.flush().await?)
}

fn head(length: u64, close: bool) -> String {
    let close = if close { "Connection: close\r\n" } else { "" };
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{close}Content-Length: {length}\r\n\r\n")
}

/// So many bytes, `rate` a second; what a slow reader holds up is made good later.
async fn paced(stream: &mut (impl AsyncWrite + Unpin), rate: u64, count: u64) -> Result<()> {
    let (start, mut sent) = (Instant::now(), 0);
    while sent < count {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        let next = due.min(count).saturating_sub(sent);
        pattern::write(stream, sent, next).await?;
        stream.flush().await?;
        sent += next;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// A certificate for all hosts of the benchmark, and whoever trusts it.
#[derive(Clone)]
pub(crate) struct Identity {
    acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
}

impl Identity {
    /// Makes one; handshakes are never resumed, so that all cost the same.
    pub(crate) fn generate(hosts: &[String]) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(hosts).context("a certificate for the targets")?;
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut trusted = rustls::RootCertStore::empty();
        trusted.add(certificate.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())?;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        client.resumption = rustls::client::Resumption::disabled();
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }
}
