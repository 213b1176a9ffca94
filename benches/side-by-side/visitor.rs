//! A visitor: one connection to a contender, requests on it, and every reply compared with what was asked for.

use crate::pattern;
use anyhow::{Context, Result, bail, ensure};
use crc32fast::Hasher;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

const HEAD_LIMIT: usize = 16 << 10;
/// Bytes that are read at once.
const READ: usize = 128 << 10;

/// Where visitors come in, and what for.
#[derive(Clone)]
pub(crate) struct Door {
    /// At 127.0.0.1.
    pub(crate) port: u16,
    /// Asked for in turn; all have the same target.
    pub(crate) hosts: Arc<[String]>,
    /// The names of the targets that may answer.
    pub(crate) targets: Arc<[&'static str]>,
    pub(crate) tls: Option<TlsConnector>,
}

impl Door {
    /// A whole visit: connect, one small request, and the end. Which target answered.
    pub(crate) async fn visit(&self, number: u64, patience: Duration) -> Result<&'static str> {
        let visit = async { Visitor::connect(self, number).await?.echo(number, true).await };
        timeout(patience, visit).await.with_context(|| format!("no reply within {patience:?}"))?
    }

    /// One host after the other.
    pub(crate) fn host(&self, number: u64) -> &str {
        &self.hosts[(number % self.hosts.len() as u64) as usize]
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection, with what has been read and not yet used.
pub(crate) struct Visitor {
    stream: Box<dyn Stream>,
    door: Door,
    buf: Vec<u8>,
    /// The other side has said that it will end after this reply.
    pub(crate) ends: bool,
}

/// How much of a body has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) bytes: u64,
    sum: Hasher,
}

impl Progress {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sum.update(bytes);
    }

    /// Whether it is the beginning of the pattern.
    pub(crate) fn verify(self) -> Result<()> {
        let bytes = self.bytes;
        ensure!(
            self.sum.finalize() == pattern::sum(bytes),
            "the {bytes} bytes that came are not those that were sent"
        );
        Ok(())
    }
}

impl Visitor {
    /// Connects; `number` chooses the server name in TLS.
    pub(crate) async fn connect(door: &Door, number: u64) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", door.port)).await.context("connect")?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &door.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(door.host(number).to_owned())?;
                Box::new(tls.connect(name, stream).await.context("TLS")?)
            }
        };
        Ok(Self { stream, door: door.clone(), buf: Vec::with_capacity(1 << 10), ends: false })
    }

    /// A small request whose reply has to name its number and one of the door's targets; which one.
    pub(crate) async fn echo(&mut self, number: u64, close: bool) -> Result<&'static str> {
        let length = self.ask(number, &format!("/echo/{number}"), close).await?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        ensure!(length < 64, "a body of {length} bytes");
        while self.buf.len() < length {
            ensure!(self.stream.read_buf(&mut self.buf).await? > 0, "ended in the middle of a body");
        }
        let body: Vec<_> = self.buf.drain(..length).collect();
        let body = String::from_utf8_lossy(&body);
        let named = body.split_once(' ').filter(|(_, asked)| asked.parse() == Ok(number));
        let target = named.and_then(|(name, _)| self.door.targets.iter().find(|target| **target == name));
        target.copied().with_context(|| format!("request {number} was answered with \"{body}\""))
    }

    /// Asks for bytes of the pattern and reads them all.
    pub(crate) async fn download(&mut self, count: u64) -> Result<()> {
        self.begin(&format!("/bytes/{count}"), count).await?;
        let mut progress = Progress::default();
        self.read(&mut progress, count).await?;
        progress.verify()
    }

    /// Asks for a body of so many bytes, and reads the reply's head.
    pub(crate) async fn begin(&mut self, path: &str, count: u64) -> Result<()> {
        let length = self.ask(0, path, false).await?;
        ensure!(length == count, "a length of {length} for {count} bytes");
        Ok(())
    }

    /// Reads until so many bytes of the body have come.
    pub(crate) async fn read(&mut self, progress: &mut Progress, until: u64) -> Result<()> {
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        self.read_until(progress, until, far).await?;
        ensure!(progress.bytes == until, "ended after {} of {until} bytes", progress.bytes);
        Ok(())
    }

    /// Reads until so many bytes of the body have come, or the time has.
    pub(crate) async fn read_until(
        &mut self,
        progress: &mut Progress,
        until: u64,
        when: Instant,
    ) -> Result<()> {
        let early = self.buf.len().min(usize::try_from(until - progress.bytes).unwrap_or(usize::MAX));
        progress.take(&self.buf[..early]);
        self.buf.drain(..early);
        let mut buf = vec![0; READ];
        while progress.bytes < until {
            let most = usize::try_from(until - progress.bytes).unwrap_or(READ).min(READ);
            match timeout_at(when, self.stream.read(&mut buf[..most])).await {
                Err(_) => break,
                Ok(count) => match count? {
                    0 => bail!("ended after {} of {until} bytes", progress.bytes),
                    count => progress.take(&buf[..count]),
                },
            }
        }
        Ok(())
    }

    /// Sends a request and reads the head of its reply; the length of the body.
    async fn ask(&mut self, number: u64, path: &str, close: bool) -> Result<u64> {
        let close = if close { "Connection: close\r\n" } else { "" };
        let host = self.door.host(number);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{close}\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let end = pattern::head(&mut self.stream, &mut self.buf, HEAD_LIMIT).await?;
        let end = end.context("ended instead of a reply")?;
        let head = String::from_utf8_lossy(&self.buf[..end]).to_ascii_lowercase();
        self.buf.drain(..end);
        let line = head.lines().next().unwrap_or_default();
        ensure!(line.starts_with("http/1.1 200 "), "the reply is \"{line}\"");
        self.ends = head.contains("\r\nconnection: close\r\n");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        length.and_then(|length| length.trim().parse().ok()).context("a reply without a length")
    }
}
