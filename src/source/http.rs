//! A client for HTTP/1: one request, one bounded reply, on a connection that is kept for the next one.
//!
//! Deadlines are the caller's.

use super::url::Url;
use crate::addr::Host;
use crate::channel::tls::{self, TlsError};
use crate::net::dial::dial;
use crate::net::{self, BoxStream};
use crate::wire::http::{Body, HeadReader, Limits, Rejected, ReplyHead, RequestHead};
use bytes::{Bytes, BytesMut};
use std::fmt::Write;
use std::future::poll_fn;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Most that a server says before the body.
const LIMITS: Limits = Limits { max_bytes: 32 * 1024, max_fields: 100 };
/// Servers end connections that nobody uses; many do so after a minute.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// How long a `Location` is that an error shows.
const MAX_SHOWN: usize = 200;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask<'a> {
    /// `GET` unless something else is said.
    pub(super) method: &'a str,
    /// More of a query, behind that of the URL.
    pub(super) query: String,
    pub(super) authorization: Option<&'a str>,
    /// Says that JSON is spoken, in the body if there is one.
    pub(super) json: bool,
    pub(super) body: Option<String>,
}

/// Asks one URL.
#[derive(Debug)]
pub(super) struct Client {
    url: Url,
    tls: Option<tls::Connector>,
    connect_timeout: Duration,
    /// Bytes of a body that are taken.
    max: usize,
    /// Connections that are kept for later requests; more at once are made and not kept.
    max_idle: usize,
    idle: Mutex<Vec<(Instant, Link)>>,
}

/// A connection to the server.
#[derive(Debug)]
struct Link {
    stream: BoxStream,
    buf: BytesMut,
}

/// A request that was not answered with a 200.
#[derive(Debug)]
enum Failed {
    /// The connection had been kept and was at its end: another one may do.
    Stale,
    Other(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<Rejected> for Failed {
    fn from(rejected: Rejected) -> Self {
        Self::Other(format!("no reply of an HTTP server: {rejected}"))
    }
}

impl Client {
    /// `tls` counts for `https` only; without it the server is verified by what the system trusts.
    pub(super) fn new(
        url: Url,
        tls: Option<&tls::ClientSettings>,
        connect_timeout: Duration,
        max: usize,
        max_idle: usize,
    ) -> Result<Self, TlsError> {
        let verified = tls::ClientSettings { secure: true, ..tls::ClientSettings::default() };
        let tls = url.tls.then(|| tls::Connector::new(tls.unwrap_or(&verified))).transpose()?;
        Ok(Self { url, tls, connect_timeout, max, max_idle, idle: Mutex::default() })
    }

    /// The body of a reply with status 200.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Bytes, String> {
        let request =
            self.request(ask).map_err(|rejected| format!("the request cannot be written: {rejected}"))?;
        let body = ask.body.as_deref().unwrap_or_default().as_bytes();
        if let Some(link) = self.kept().await {
            match self.exchange(link, &request, body, true).await {
                Err(Failed::Stale) => {}
                answered => return answered.map_err(text),
            }
        }
        let link = self.connect().await?;
        self.exchange(link, &request, body, false).await.map_err(text)
    }

    fn request(&self, ask: &Ask<'_>) -> Result<RequestHead, Rejected> {
        let Url { authority, path, basic, .. } = &self.url;
        let method = if ask.method.is_empty() { "GET" } else { ask.method };
        let (mark, query) = match (&*ask.query, path.contains('?')) {
            ("", _) => ("", ""),
            (query, true) => ("&", query),
            (query, false) => ("?", query),
        };
        let mut head = format!("{method} {path}{mark}{query} HTTP/1.1\r\nHost: {authority}\r\n");
        // Writing to a string does not fail.
        let _ = write!(head, "User-Agent: pointsman/{}\r\n", env!("CARGO_PKG_VERSION"));
        if let Some(authorization) = ask.authorization.or(basic.as_deref()) {
            let _ = write!(head, "Authorization: {authorization}\r\n");
        }
        if ask.json {
            head.push_str("Content-Type: application/json\r\n");
        }
        if let Some(body) = &ask.body {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let request = HeadReader::default().request(&mut BytesMut::from(head.as_bytes()), &LIMITS)?;
        request.ok_or(Rejected { status: 400, reason: "incomplete request" })
    }

    /// A connection that is open and says nothing.
    async fn kept(&self) -> Option<Link> {
        loop {
            let mut link = self.last_kept()?;
            if poll_fn(|cx| Poll::Ready(net::is_quiet(&mut *link.stream, cx))).await {
                return Some(link);
            }
        }
    }

    fn last_kept(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < MAX_IDLE_TIME);
        idle.pop().map(|(_, link)| link)
    }

    fn keep(&self, link: Link) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.max_idle {
            idle.push((Instant::now(), link));
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        let stream =
            connect(&self.url.target, self.tls.as_ref().map(|tls| (tls, "http/1.1")), self.connect_timeout)
                .await?;
        Ok(Link { stream, buf: BytesMut::new() })
    }

    async fn exchange(
        &self,
        mut link: Link,
        request: &RequestHead,
        body: &[u8],
        kept: bool,
    ) -> Result<Bytes, Failed> {
        let stale = |failed: Failed| if kept { Failed::Stale } else { failed };
        link.send(request, body).await.map_err(|error| stale(error.into()))?;
        let reply = match link.head(request).await? {
            Some(reply) => reply,
            None if link.buf.is_empty() => {
                return Err(stale(Failed::Other(
                    "the server ended the connection without a reply".to_owned(),
                )));
            }
            None => return Err(Failed::Other("the server's reply is cut off".to_owned())),
        };
        if reply.status() != 200 {
            return Err(Failed::Other(refusal(&reply)));
        }
        let body = link.body(&reply, self.max).await?;
        if reply.keep_alive() && link.buf.is_empty() {
            self.keep(link);
        }
        Ok(body)
    }
}

fn text(failed: Failed) -> String {
    match failed {
        Failed::Stale => "the server ended the connection".to_owned(),
        Failed::Other(text) => text,
    }
}

/// A connection to a server, with TLS for an application protocol or without.
pub(super) async fn connect(
    target: &crate::addr::HostPort,
    tls: Option<(&tls::Connector, &str)>,
    limit: Duration,
) -> Result<BoxStream, String> {
    let stream: BoxStream = Box::new(dial(target, limit).await.map_err(|error| error.to_string())?);
    let Some((tls, alpn)) = tls else { return Ok(stream) };
    let host: &Host = &target.host;
    let stream = tls.connect(stream, host, &[alpn]).await.map_err(|error| error.to_string())?;
    Ok(Box::new(stream))
}

fn refusal(reply: &ReplyHead) -> String {
    let status = reply.status();
    let location = reply.fields().find(|(name, _)| name.eq_ignore_ascii_case("location"));
    match location {
        Some((_, to)) if (300..400).contains(&status) => {
            let to: String = String::from_utf8_lossy(to).chars().take(MAX_SHOWN).collect();
            format!(
                "the server redirects ({status}) to {to:?}: that is not followed, name it in place of this one"
            )
        }
        _ => format!("the server answers {status}"),
    }
}

impl Link {
    async fn send(&mut self, request: &RequestHead, body: &[u8]) -> io::Result<()> {
        self.stream.write_all(&[request.raw(), body].concat()).await?;
        self.stream.flush().await
    }

    /// The head of the reply; `None`: the connection ended first.
    async fn head(&mut self, request: &RequestHead) -> Result<Option<ReplyHead>, Failed> {
        let mut reader = HeadReader::default();
        loop {
            match reader.reply(&mut self.buf, &LIMITS, request)? {
                Some(reply) if reply.is_interim() => {}
                Some(reply) => return Ok(Some(reply)),
                None => match self.stream.read_buf(&mut self.buf).await {
                    Ok(0) => return Ok(None),
                    Ok(_) => {}
                    // A server that was about to end the connection resets it.
                    Err(_) if self.buf.is_empty() => return Ok(None),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    async fn body(&mut self, reply: &ReplyHead, max: usize) -> Result<Bytes, Failed> {
        let (mut body, mut taken) = (Body::new(reply.framing()), BytesMut::new());
        let invalid = |rejected| Failed::Other(format!("the body of the reply is wrong: {rejected}"));
        while !body.is_done() {
            if self.buf.is_empty() && self.stream.read_buf(&mut self.buf).await? == 0 {
                body.end().map_err(invalid)?;
                break;
            }
            let Some(data) = body.take_data(&mut self.buf, |_| {}).map_err(invalid)? else { continue };
            if taken.len() + data.len() > max {
                return Err(Failed::Other(format!("the body of the reply has more than {max} bytes")));
            }
            taken.extend_from_slice(&data);
        }
        Ok(taken.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Answers each connection with the replies of its script, one for each request, and then ends it.
    async fn server(scripts: Vec<Vec<&'static str>>) -> (Client, tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let serving = tokio::spawn(async move {
            let mut requests = 0;
            for script in scripts {
                let (mut stream, _) = listener.accept().await.unwrap();
                for reply in script {
                    let mut got = BytesMut::new();
                    while !got.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut got).await.unwrap() == 0 {
                            return requests;
                        }
                    }
                    requests += 1;
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            }
            requests
        });
        (Client::new(url, None, Duration::from_secs(5), 10, 1).unwrap(), serving)
    }

    async fn answers(scripts: Vec<Vec<&'static str>>) -> (Vec<Result<String, String>>, usize) {
        let count = scripts.iter().map(Vec::len).sum();
        let (client, serving) = server(scripts).await;
        let mut answers = Vec::new();
        for _ in 0..count {
            let answer = client.ask(&Ask::default()).await;
            answers.push(answer.map(|body| String::from_utf8(body.into()).unwrap()));
        }
        (answers, serving.await.unwrap())
    }

    #[tokio::test]
    async fn bodies_come_whole_however_they_are_framed() {
        let (answers, _) = answers(vec![
            vec!["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"],
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nA: b\r\n\r\n"],
            vec!["HTTP/1.0 200 OK\r\n\r\nabc"],
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        ])
        .await;
        let expected = ["abc", "abc", "abc", ""].map(|text| Ok(text.to_owned()));
        assert_eq!(answers, expected);
    }

    #[tokio::test]
    async fn what_is_no_good_reply_is_named() {
        for (reply, told) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "the server answers 404"),
            (
                "HTTP/1.1 301 X\r\nlocation: /there\r\nContent-Length: 0\r\n\r\n",
                "redirects (301) to \"/there\"",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n0123456789a", "more than 10 bytes"),
            ("HTTP/1.1 200 OK\r\n\r\n0123456789a", "more than 10 bytes"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "the body of the reply is wrong"),
            ("HTTP/1.1 200 OK\r\nContent-", "cut off"),
            ("SSH-2.0-x\r\n", "no reply of an HTTP server"),
            ("", "ended the connection without a reply"),
        ] {
            let (answers, _) = answers(vec![vec![reply]]).await;
            let error = answers[0].as_ref().unwrap_err();
            assert!(error.contains(told), "{reply:?}: {error}");
        }
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na";

    /// A connection serves one request after another; one that the server has ended costs no request.
    #[tokio::test]
    async fn connections_are_kept_and_replaced() {
        let (answers, requests) = answers(vec![vec![OK, OK], vec![OK]]).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(requests, 3);
        // The kept one ends instead of answering: the request goes to another.
        let (client, serving) = server(vec![vec![OK, ""], vec![OK]]).await;
        for _ in 0..2 {
            assert_eq!(client.ask(&Ask::default()).await.as_deref(), Ok(&b"a"[..]));
        }
        assert_eq!(serving.await.unwrap(), 3);
    }
}
