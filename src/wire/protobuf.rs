//! Numbers of protobuf messages, and what gRPC has in front of each message.

use super::Malformed;
use bytes::{BufMut, BytesMut};

/// Not compressed, and the length of the message.
pub(super) const PREFIX: usize = 5;
/// Of a number of 64 bits.
pub(super) const MAX_VARINT: usize = 10;

pub(super) fn put_varint(to: &mut BytesMut, mut n: u64) {
    while n >= 0x80 {
        to.put_u8((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    to.put_u8(n as u8);
}

/// A number and how many bytes it has; `None` while it is not complete.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let mut value = 0_u64;
    for (n, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((value, n + 1)));
        }
    }
    if bytes.len() < MAX_VARINT { Ok(None) } else { Err(Malformed("gRPC message with an endless number")) }
}
