//! Buffers for copying, lent for as long as they hold data.
//!
//! A connection takes one when bytes are there to be read and gives it back when they are written, so idle connections
//! hold none. Free ones wait in a small pool per thread: no lock, no allocation in the steady state.

use bytes::BytesMut;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes in one buffer. Each direction of a connection whose reader has stopped holds one, so this times twice
/// `maxConnections` is what stalled visitors can make us hold.
pub(crate) const BUFFER_SIZE: usize = 32 * 1024;

/// Free buffers kept per thread (512 KiB); a burst of connections leaves no more than this behind.
const MAX_FREE: usize = 16;

/// Bytes in one block.
pub(crate) const BLOCK_SIZE: usize = 16 * 1024;

/// Free blocks kept per thread (256 KiB).
const MAX_FREE_BLOCKS: usize = 16;

/// Bytes in one large block.
pub(crate) const LARGE_BLOCK: usize = 64 * 1024;

/// Large blocks kept per thread, of which pieces may still be in use (1 MiB). Bulk needs one after the other, and memory that is
/// allocated and freed at that pace is taken from the system and given back to it each time.
const MAX_LENT: usize = 16;

thread_local! {
    static LENT: RefCell<VecDeque<BytesMut>> = const { RefCell::new(VecDeque::new()) };
    static BLOCKS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// [`BUFFER_SIZE`] bytes with arbitrary content; goes back to the pool when dropped.
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    /// A free one, or a new one.
    pub(crate) fn take() -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        Self(free.unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // While a thread ends its pool is gone already; then the buffer simply goes too.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < MAX_FREE {
                free.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffer")
    }
}

/// Empty, with room for [`BLOCK_SIZE`] bytes, to be read into and cut up.
pub(crate) fn take_block() -> BytesMut {
    let free = BLOCKS.try_with(|blocks| blocks.borrow_mut().pop()).ok().flatten();
    free.unwrap_or_else(|| BytesMut::with_capacity(BLOCK_SIZE))
}

/// Keeps a block for the next who takes one, if nothing that was cut from it is in use any more.
pub(crate) fn give_block(mut block: BytesMut) {
    block.clear();
    if block.try_reclaim(BLOCK_SIZE) && block.capacity() < 2 * BLOCK_SIZE {
        let _ = BLOCKS.try_with(|blocks| {
            let mut blocks = blocks.borrow_mut();
            if blocks.len() < MAX_FREE_BLOCKS {
                blocks.push(block);
            }
        });
    }
}

/// Empty, with room for [`LARGE_BLOCK`] bytes, to be read into and cut up.
pub(crate) fn take_large() -> BytesMut {
    let free = LENT.try_with(|lent| {
        let mut lent = lent.borrow_mut();
        let mut oldest = lent.pop_front()?;
        if oldest.try_reclaim(LARGE_BLOCK) {
            return Some(oldest);
        }
        // Whoever still holds a part of it after that many others may have it for himself.
        if lent.len() + 1 < MAX_LENT {
            lent.push_front(oldest);
        }
        None
    });
    free.ok().flatten().unwrap_or_else(|| BytesMut::with_capacity(LARGE_BLOCK))
}

/// Keeps a large block until nothing that was cut from it is in use any more, for the next who takes one.
pub(crate) fn give_large(mut block: BytesMut) {
    block.clear();
    let _ = LENT.try_with(|lent| {
        let mut lent = lent.borrow_mut();
        if lent.len() < MAX_LENT {
            lent.push_back(block);
        }
    });
}

/// How many blocks wait on this thread.
#[cfg(test)]
pub(crate) fn free_blocks() -> usize {
    BLOCKS.with(|blocks| blocks.borrow().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_reused_and_the_pool_is_bounded() {
        let first = Buffer::take();
        let address = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take().as_ptr(), address);
        drop((0..MAX_FREE + 10).map(|_| Buffer::take()).collect::<Vec<_>>());
        assert_eq!(FREE.with(|free| free.borrow().len()), MAX_FREE);
    }

    #[test]
    fn blocks_are_reused_once_nobody_holds_a_part() {
        let mut block = take_block();
        let address = block.as_ptr();
        block.extend_from_slice(b"head, body");
        let part = block.split_to(4).freeze();
        give_block(block);
        assert_eq!((free_blocks(), &part[..]), (0, &b"head"[..]));
        let mut block = BytesMut::from(part);
        block.reserve(BLOCK_SIZE - 4);
        let mut other = take_block();
        assert_ne!(other.as_ptr(), address);
        other.extend_from_slice(b"head");
        let (address, part) = (other.as_ptr(), other.split().freeze());
        drop(part);
        give_block(other);
        let again = take_block();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert!(again.capacity() >= BLOCK_SIZE);
    }

    #[test]
    fn large_blocks_come_back_when_their_pieces_are_gone() {
        let mut block = take_large();
        let address = block.as_ptr();
        block.extend_from_slice(b"piece, rest");
        let piece = block.split_to(5).freeze();
        give_large(block);
        assert_ne!(take_large().as_ptr(), address);
        assert_eq!(piece, "piece");
        drop(piece);
        let again = take_large();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (address, 0, LARGE_BLOCK));
        // One whose pieces stay is let go of, and no longer in the way of the others.
        let mut held = again;
        held.extend_from_slice(b"held");
        let _piece = held.split_to(4);
        give_large(held);
        let others: Vec<_> = (0..MAX_LENT + 3).map(|_| take_large()).collect();
        others.into_iter().for_each(give_large);
        assert_eq!(LENT.with(|lent| lent.borrow().len()), MAX_LENT);
        let addresses: Vec<_> = (0..MAX_LENT).map(|_| take_large().as_ptr()).collect();
        assert!(!addresses.contains(&address));
    }
}
