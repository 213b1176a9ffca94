//! HTTP/1 heads and the framing of bodies (RFC 9112), strict about whatever two parsers could read in two ways.
//!
//! The proxy passes bytes on as they came. This module says where a head ends, what it means, and how many of the bytes
//! behind it are body; what it cannot say beyond doubt it refuses. Sockets, time-outs, the choice of a route and the
//! text of an error reply are the caller's.
//!
//! [`HeadReader`] finds the end of a head in bytes that come in any pieces, [`RequestHead`] and [`ReplyHead`] are
//! what it finds, [`Body`] follows what comes behind, and [`edit_head`] makes the changes a configuration asks for.

mod body;
mod edit;
mod fields;
mod reply;
mod request;
mod scan;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use body::Body;
pub use edit::edit_head;
pub use reply::ReplyHead;
pub use request::{H2C_FIELDS, RequestHead, is_idempotent};
pub use scan::HeadReader;
#[cfg(test)]
pub(crate) use scan::LOOKED_AT;

/// What a head may grow to. Without it one visitor could fill the memory with a head that never ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of start line and fields together, with the empty line.
    pub max_bytes: usize,
    /// Number of fields.
    pub max_fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024, max_fields: 256 }
    }
}

/// A message that is refused: the status a visitor gets for it and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// HTTP status for a request (400, or 431 for too large a head); a rejected reply is always 502 for the visitor.
    pub status: u16,
    /// The rule that was broken.
    pub reason: &'static str,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body (`Content-Length: 0` counts as that too).
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection ends (replies only).
    Close,
}

/// Which of the two kinds of message is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Reply,
}

impl Kind {
    fn reject(self, reason: &'static str) -> Rejected {
        Rejected { status: if self == Self::Request { 400 } else { 502 }, reason }
    }

    fn too_large(self, reason: &'static str) -> Rejected {
        Rejected { status: if self == Self::Request { 431 } else { 502 }, reason }
    }
}

/// Whether `byte` may stand in a token (method, field name): RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// The answer for each byte.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Whether `byte` may stand in a field value: visible ASCII, space, tab and obs-text; no control byte.
fn is_value(byte: u8) -> bool {
    (byte == b'\t') | ((byte >= b' ') & (byte != 0x7f))
}
