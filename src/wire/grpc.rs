//! The messages of channel `grpc`: `Chunk { bytes data = 1 }`, each behind its length (section 7.3 of the wire specification).

use super::Malformed;
use super::protobuf::{MAX_VARINT, PREFIX, put_varint, varint};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Data in one message; peers take messages of up to 4 MiB.
pub const MAX_DATA: usize = 32 * 1024;
/// A peer's message, at most: what gRPC libraries take unless they are told otherwise.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Field 1, of bytes.
const DATA: u64 = 0x0a;

/// A message with that data.
pub fn encode(data: &[u8]) -> Bytes {
    let mut field = BytesMut::with_capacity(PREFIX + 1 + MAX_VARINT + data.len());
    let head = if data.is_empty() { 0 } else { 1 + varint_len(data.len() as u64) };
    field.put_u8(0);
    field.put_u32(u32::try_from(head + data.len()).unwrap_or(u32::MAX));
    if !data.is_empty() {
        field.put_u8(0x0a);
        put_varint(&mut field, data.len() as u64);
        field.put_slice(data);
    }
    field.freeze()
}

fn varint_len(n: u64) -> usize {
    let bits = 64 - (n | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes the data out of messages as it comes, however they are cut into pieces; what it does not know it passes over.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Not enough yet to say what it is.
    pending: BytesMut,
    /// Bytes of the message that are still to come.
    message: usize,
    /// Bytes of a field that are still to come, and whether they are data.
    field: usize,
    is_data: bool,
}

impl Decoder {
    /// Takes all of `bytes` in, and gives what data there is in it to `data`.
    pub fn decode(&mut self, mut bytes: Bytes, mut data: impl FnMut(Bytes)) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            if self.field > 0 {
                let n = self.field.min(bytes.len());
                let part = bytes.split_to(n);
                self.field -= n;
                self.message -= n;
                if self.is_data {
                    data(part);
                }
                continue;
            }
            // A prefix or a key with its length: few bytes, taken one at a time.
            self.pending.put_u8(bytes.get_u8());
            if self.message == 0 { self.prefix()? } else { self.key()? }
        }
        Ok(())
    }

    /// Whether an end here is one between messages.
    pub fn is_between(&self) -> bool {
        self.message == 0 && self.pending.is_empty()
    }

    fn prefix(&mut self) -> Result<(), Malformed> {
        if self.pending[0] != 0 {
            return Err(Malformed("compressed gRPC message"));
        }
        if self.pending.len() == PREFIX {
            self.pending.advance(1);
            self.message = self.pending.get_u32() as usize;
            if self.message > MAX_MESSAGE {
                return Err(Malformed("gRPC message over 4 MiB"));
            }
        }
        Ok(())
    }

    /// The key of a field and, where it has one, its length.
    fn key(&mut self) -> Result<(), Malformed> {
        let Some((key, at)) = varint(&self.pending)? else { return self.fits() };
        let (len, head) = match key & 7 {
            // A number, which is passed over with its key.
            0 => match varint(&self.pending[at..])? {
                Some((_, n)) => (0, at + n),
                None => return self.fits(),
            },
            1 => (8, at),
            2 => match varint(&self.pending[at..])? {
                Some((len, n)) => (len, at + n),
                None => return self.fits(),
            },
            5 => (4, at),
            _ => return Err(Malformed("gRPC message that is no protobuf")),
        };
        self.pending.clear();
        let rest = self.message.checked_sub(head).ok_or(TOO_LONG)?;
        self.field = usize::try_from(len).ok().filter(|len| *len <= rest).ok_or(TOO_LONG)?;
        (self.message, self.is_data) = (rest, key == DATA);
        Ok(())
    }

    /// What is not complete must not be as long as the message already.
    fn fits(&self) -> Result<(), Malformed> {
        if self.pending.len() < self.message { Ok(()) } else { Err(TOO_LONG) }
    }
}

const TOO_LONG: Malformed = Malformed("gRPC message whose field is longer than itself");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(pieces: impl Iterator<Item = Bytes>) -> Result<(Vec<u8>, bool), Malformed> {
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.decode(piece, |part| data.extend_from_slice(&part))?;
        }
        Ok((data, decoder.is_between()))
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_out_however_it_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8),
            cut in 1..50_usize,
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|data| encode(data)).collect();
            let pieces = wire.chunks(cut).map(Bytes::copy_from_slice);
            prop_assert_eq!(decoded(pieces), Ok((messages.concat(), true)));
        }

        #[test]
        fn hostile_bytes_are_refused_or_taken(wire in prop::collection::vec(any::<u8>(), 0..200)) {
            let all = decoded(std::iter::once(Bytes::copy_from_slice(&wire)));
            let one_by_one = decoded(wire.chunks(1).map(Bytes::copy_from_slice));
            prop_assert_eq!(all, one_by_one);
        }
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let message = b"\x00\x00\x00\x00\x1a\x10\x96\x01\x1a\x02xx\x25abcd\x21abcdefgh\x0a\x03abc";
        let data = decoded(std::iter::once(Bytes::from_static(message)));
        assert_eq!(data, Ok((b"abc".to_vec(), true)));
    }

    #[test]
    fn what_is_no_message_is_named() {
        let error = |wire: &'static [u8]| decoded(std::iter::once(Bytes::from_static(wire))).unwrap_err().0;
        assert_eq!(error(b"\x01"), "compressed gRPC message");
        assert_eq!(error(b"\x00\x00\x40\x00\x01"), "gRPC message over 4 MiB");
        assert_eq!(error(b"\x00\x00\x00\x00\x03\x0a\x02a"), TOO_LONG.0);
        assert_eq!(error(b"\x00\x00\x00\x00\x01\x0a"), TOO_LONG.0);
        assert_eq!(
            error(b"\x00\x00\x00\x00\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            "gRPC message with an endless number"
        );
        assert_eq!(error(b"\x00\x00\x00\x00\x02\x0c\x00"), "gRPC message that is no protobuf");
    }
}
