//! What both ends of a relay handshake share: one message under a deadline, and what went wrong with it.

use crate::net::BoxStream;
use crate::wire::Malformed;
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A relay handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The peer ended the connection, or the network did.
    #[error("connection lost during the handshake: {0}")]
    Io(#[from] io::Error),
    /// Not the relay protocol, or a message that breaks its rules.
    #[error("malformed relay message: {0}")]
    Malformed(#[from] Malformed),
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
            if let Some((message, len)) = decode(buf)? {
                buf.advance(len);
                return Ok(message);
            }
            if stream.read_buf(buf).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
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
