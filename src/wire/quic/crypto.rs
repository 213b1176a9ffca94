//! The bytes of CRYPTO frames, which come in pieces and in any order.

use crate::wire::Malformed;
use crate::wire::tls::MAX_HELLO;

/// Pieces with gaps between them. Browsers shuffle a hello into a dozen or so; without a bound a stranger could make us sort
/// thousands.
const MAX_PIECES: usize = 64;
/// A ClientHello with its header.
const MAX_LEN: usize = MAX_HELLO + 4;

/// What has come.
#[derive(Debug, Default)]
pub(super) struct Crypto {
    bytes: Vec<u8>,
    /// Beginning and end of what is known of `bytes`, in order, with gaps between them.
    known: Vec<(usize, usize)>,
}

impl Crypto {
    /// Adds the bytes at that place. What is there already stays as it is: the packets are sealed, and a client that says two
    /// things is broken.
    pub(super) fn add(&mut self, offset: u64, data: &[u8]) -> Result<(), Malformed> {
        let begin = usize::try_from(offset).ok().filter(|begin| *begin <= MAX_LEN);
        let begin = begin.ok_or(Malformed("ClientHello over 16 KiB"))?;
        let end = begin + data.len();
        if end > MAX_LEN {
            return Err(Malformed("ClientHello over 16 KiB"));
        }
        if data.is_empty() {
            return Ok(());
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        for (at, byte) in (begin..end).zip(data) {
            if !self.is_known(at) {
                self.bytes[at] = *byte;
            }
        }
        self.join(begin, end);
        if self.known.len() > MAX_PIECES {
            return Err(Malformed("ClientHello in too many pieces"));
        }
        Ok(())
    }

    /// What there is without a gap.
    pub(super) fn beginning(&self) -> &[u8] {
        match self.known.first() {
            Some((0, end)) => &self.bytes[..*end],
            _ => &[],
        }
    }

    fn is_known(&self, at: usize) -> bool {
        let behind = self.known.partition_point(|(begin, _)| *begin <= at);
        behind.checked_sub(1).is_some_and(|piece| at < self.known[piece].1)
    }

    /// Adds a piece to those that are known; what it touches becomes one with it.
    fn join(&mut self, mut begin: usize, mut end: usize) {
        self.known.retain(|(b, e)| {
            let apart = *e < begin || end < *b;
            if !apart {
                (begin, end) = (begin.min(*b), end.max(*e));
            }
            apart
        });
        let place = self.known.partition_point(|(b, _)| *b < begin);
        self.known.insert(place, (begin, end));
    }
}
