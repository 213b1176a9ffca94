//! What both ends of a relay handshake share: one message under a deadline, and what went wrong with it.

use crate::net::BoxStream;
use crate::wire::Malformed;
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// What a peer says first, or leaves unsaid, where something else is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// A record of TLS.
    #[error("the peer speaks TLS, and plain bytes are wanted here: is it the same type at both ends?")]
    Tls,
    /// Nothing.
    #[error("the peer ended the connection before it said anything: is it the same type at both ends?")]
    Silent,
}

impl Unfit {
    /// Whether these bytes begin an alert or a handshake of TLS, as no other protocol here begins.
    pub(crate) fn is_tls(bytes: &[u8]) -> bool {
        matches!(bytes, [0x15 | 0x16, 3, ..])
    }
}

impl From<Unfit> for io::Error {
    fn from(unfit: Unfit) -> Self {
        let kind = match unfit {
            Unfit::Tls => io::ErrorKind::InvalidData,
            Unfit::Silent => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, unfit)
    }
}

/// A relay handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The peer ended the connection, or the network did.
    #[error("connection lost during the handshake: {0}")]
    Io(#[from] io::Error),
    /// Not the relay protocol, or a message that breaks its rules.
    #[error("malformed relay message: {0}")]
    Malformed(#[from] Malformed),
    /// Something else altogether.
    #[error("no relay message: {0}")]
    Unfit(Unfit),
    /// Nothing whole came in time.
    #[error("no relay message in time (handshakeTimeout)")]
    Timeout,
}

/// Reads one relay message; bytes behind it stay in `buf`, for they belong to the mux or to the visitor.
pub(crate) async fn read_message<T>(
    stream: &mut BoxStream,
    buf: &mut BytesMut,
    limit: Duration,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, Malformed>,
) -> Result<T, HandshakeError> {
    let read = async {
        loop {
            if Unfit::is_tls(buf) {
                return Err(HandshakeError::Unfit(Unfit::Tls));
            }
            if let Some((message, len)) = decode(buf)? {
                buf.advance(len);
                return Ok(message);
            }
            if stream.read_buf(buf).await? == 0 {
                return Err(match buf.is_empty() {
                    true => HandshakeError::Unfit(Unfit::Silent),
                    false => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
                });
            }
        }
    };
    timeout(limit, read).await.unwrap_or(Err(HandshakeError::Timeout))
}

/// Writes an encoded message under the same deadline as the peer's.
pub(crate) async fn write_message(
    stream: &mut BoxStream,
    message: &[u8],
    limit: Duration,
) -> Result<(), HandshakeError> {
    let write = async {
        stream.write_all(message).await?;
        stream.flush().await
    };
    Ok(timeout(limit, write).await.map_err(|_| HandshakeError::Timeout)??)
}
