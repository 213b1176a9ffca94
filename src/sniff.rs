//! The first bytes of a connection, looked at without being consumed: what protocol, and for TLS which host.
//!
//! Everything read stays in the caller's buffer. Silence is an outcome, not an error: a protocol in which the server
//! speaks first passes as [`Sniffed::Unknown`] after the time-out. Reading an HTTP head is `http`'s work.

pub mod flow;

use crate::net::{BoxStream, Conn, buffer};
use crate::wire::Malformed;
use crate::wire::tls::{ClientHello, ClientHelloReader, MAX_HELLO};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

/// How long is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `sniffing.timeout`: how long to wait for the first bytes before the connection passes as unknown.
    pub timeout: Duration,
    /// `sniffing.clientHelloTimeout`: how long a ClientHello that has begun may take.
    pub client_hello_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(3), client_hello_timeout: Duration::from_secs(10) }
    }
}

/// What the client sends first on an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SSH_BANNER: &[u8] = b"SSH-2";
/// The longest method that is taken for HTTP; registered ones have at most 17 letters.
const MAX_METHOD: usize = 32;
/// Blanks and line ends in front of a method that are waited through; servers skip line ends (RFC 9112, section 2.2), lenient
/// ones blanks too, and without a bound a visitor could send nothing else for as long as the sniff lasts.
const MAX_BLANKS: usize = 32;
/// What a hello in records of one byte each would take; far more than any real one.
const MAX_HELLO_INPUT: usize = 6 * MAX_HELLO;

/// What a connection began with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// HTTP/1, not read further than its method.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A complete ClientHello.
    Tls(ClientHello),
    /// An SSH client.
    Ssh,
    /// Something else, or nothing until the time-out.
    Unknown,
}

/// Why a connection cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// It failed, or ended before it began.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// TLS, but no ClientHello that could be passed on safely.
    #[error("bad ClientHello: {0}")]
    ClientHello(#[from] Malformed),
    /// A ClientHello that began and did not end.
    #[error("ClientHello not complete in time (sniffing.clientHelloTimeout)")]
    ClientHelloTimeout,
}

impl SniffError {
    /// The word for logs and metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Io(_) => "visitor_gone",
            Self::ClientHello(_) => "bad_client_hello",
            Self::ClientHelloTimeout => "client_hello_timeout",
        }
    }
}

/// What can be said about the first bytes.
#[derive(Debug, PartialEq, Eq)]
enum Guess {
    More,
    Tls,
    Is(Sniffed),
}

fn guess(bytes: &[u8]) -> Guess {
    let starts = |pattern: &[u8]| bytes.len() <= pattern.len() && pattern.starts_with(bytes);
    match bytes {
        [] | [0x16] | [0x16, 3] => Guess::More,
        [0x16, 3, 0..=4, ..] => Guess::Tls,
        _ if bytes.starts_with(HTTP2_PREFACE) => Guess::Is(Sniffed::Http2),
        _ if bytes.starts_with(SSH_BANNER) => Guess::Is(Sniffed::Ssh),
        _ if starts(HTTP2_PREFACE) || starts(SSH_BANNER) => Guess::More,
        _ => {
            let blanks = bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
            if blanks > MAX_BLANKS {
                return Guess::Is(Sniffed::Http1);
            }
            guess_method(&bytes[blanks..])
        }
    }
}

/// More than a strict parser takes: what a lenient one behind us could read as a request has to come before ours, which
/// refuses it, and must not pass unrouted.
fn guess_method(text: &[u8]) -> Guess {
    let method = text.iter().take_while(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_')).count();
    match text.get(method) {
        Some(b' ' | b'\t' | b'\x0b' | b'\x0c') if (1..=MAX_METHOD).contains(&method) => {
            Guess::Is(Sniffed::Http1)
        }
        None if method <= MAX_METHOD => Guess::More,
        _ => Guess::Is(Sniffed::Unknown),
    }
}

/// Looks at the first bytes of a connection; those that were read stay in front of the others.
pub async fn look(conn: &mut Conn, settings: &Settings) -> Result<Sniffed, SniffError> {
    let mut buf = BytesMut::from(std::mem::take(&mut conn.prefix));
    let sniffed = sniff(&mut conn.stream, &mut buf, settings).await;
    conn.prefix = match sniffed {
        // Its reader goes on with the block.
        Ok(Sniffed::Http1 | Sniffed::Http2) => buf.freeze(),
        // Waits for a target, beside which a whole block would be much.
        _ => {
            let prefix = Bytes::copy_from_slice(&buf);
            buffer::give_block(buf);
            prefix
        }
    };
    sniffed
}

/// Reads into `buf` until the protocol is known, the time is up, or the peer has ended.
async fn sniff(
    stream: &mut BoxStream,
    buf: &mut BytesMut,
    settings: &Settings,
) -> Result<Sniffed, SniffError> {
    let deadline = Instant::now() + settings.timeout;
    loop {
        match guess(buf) {
            Guess::Is(what) => return Ok(what),
            Guess::Tls => return client_hello(stream, buf, settings.client_hello_timeout).await,
            Guess::More => {}
        }
        match timeout_at(deadline, read(stream, buf)).await {
            Ok(Ok(0)) if buf.is_empty() => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(Ok(0)) | Err(_) => return Ok(Sniffed::Unknown),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
        }
    }
}

async fn client_hello(
    stream: &mut BoxStream,
    buf: &mut BytesMut,
    limit: Duration,
) -> Result<Sniffed, SniffError> {
    let mut reader = ClientHelloReader::default();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(hello) = reader.read(buf)? {
            return Ok(Sniffed::Tls(hello));
        }
        if buf.len() > MAX_HELLO_INPUT {
            return Err(Malformed("ClientHello in too many records").into());
        }
        let n =
            timeout_at(deadline, read(stream, buf)).await.map_err(|_| SniffError::ClientHelloTimeout)??;
        if n == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Takes no buffer before there is something to read.
async fn read(stream: &mut BoxStream, buf: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_readable(cx)).await?;
    match buf.capacity() {
        0 => *buf = buffer::take_block(),
        _ => buf.reserve(4096),
    }
    stream.read_buf(buf).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        use Guess::*;
        for (bytes, expected) in [
            (&b""[..], More),
            (b"GE", More),
            (b"GET ", Is(Sniffed::Http1)),
            (b"M-SEARCH ", Is(Sniffed::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n", More),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Is(Sniffed::Http2)),
            (b"PRI /", Is(Sniffed::Http1)),
            (b"GET\t/", Is(Sniffed::Http1)),
            (b"GET\x0b/", Is(Sniffed::Http1)),
            (b"\r", More),
            (b"\r\n\r\nGE", More),
            (b"\r\nGET ", Is(Sniffed::Http1)),
            (b"\n\n\nGET ", Is(Sniffed::Http1)),
            (b"\r\nPRI * HTTP/2.0\r\n\r\n", Is(Sniffed::Http1)),
            (&[b'\n'; 32], More),
            (&[b'\n'; 33], Is(Sniffed::Http1)),
            (b"\r\nhello", Is(Sniffed::Unknown)),
            (b"PING\r\n", Is(Sniffed::Unknown)),
            (b"PROPFIND /", Is(Sniffed::Http1)),
            (b"SSH-2.0-x", Is(Sniffed::Ssh)),
            (b"SSH-", More),
            (b"\x16\x03\x01", Tls),
            (b"\x16\x02", Is(Sniffed::Unknown)),
            (b"get /", Is(Sniffed::Unknown)),
            (b" ", More),
            (b" \tGET /", Is(Sniffed::Http1)),
            (b" x", Is(Sniffed::Unknown)),
            (b"\xff\xfe", Is(Sniffed::Unknown)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", Is(Sniffed::Unknown)),
        ] {
            assert_eq!(guess(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
