//! One stream of a smux session: what waits to be sent, what waits to be read, and the two windows.
//!
//! Pure bookkeeping: `session` decides what becomes of it when a rule is broken and keeps the sums over all streams.

use crate::wire::smux::{INITIAL_WINDOW, Update};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

/// From this size on, a received piece is kept where it was read; it pins at most four times its size.
const LARGE: usize = 16 * 1024;
/// Unread smaller pieces of one session that may pin the block they were read into (64 KiB at most). Without the bound a
/// peer could make a few unread bytes hold a whole block each.
const MAX_PINNING: usize = 64;
/// The most that is read before an update: on a long line, that much of the window is never used.
const OFTEN: u32 = 512 * 1024;
/// Smallest room made for unread pieces that are copied together.
const COPIED: usize = 512;

/// Received bytes that wait for the reader.
#[derive(Debug)]
enum Chunk {
    /// Shares the block it was read into.
    Shared(Bytes),
    /// The same, small: counted against [`MAX_PINNING`].
    Pinning(Bytes),
    /// Small pieces copied together.
    Copied(BytesMut),
}

/// Why a stream ended other than by the peer's FIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The peer sent more than its window.
    Overrun,
    /// The peer says it read more than was sent.
    Unsent,
    /// Its reader stood still for so long that the other streams could not wait any longer.
    Stalled,
}

#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Whether this end uses windows (version 2).
    windows: bool,

    /// Pieces accepted for sending, in order.
    queue: VecDeque<BytesMut>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    sent: u32,
    peer_consumed: u32,
    peer_window: u32,
    /// Whether the peer has told that it read something.
    pub(super) peer_has_read: bool,
    /// When its first data was sent, until then.
    pub(super) first_sent: Option<Duration>,

    chunks: VecDeque<Chunk>,
    /// Bytes received and not yet read, those in the reader's hand included.
    pub(super) unread: usize,
    received: u32,
    /// What `received` may grow to.
    limit: u32,
    pub(super) consumed: u32,
    /// By how much the window advertised may be larger than a stream's usual one.
    pub(super) grown: usize,
    /// Since when, and from which `consumed` on, the use of the window is judged.
    pub(super) epoch: Option<(Duration, u32)>,
    reported: u32,
    advertised: u32,
    has_read: bool,

    /// SYN has to be sent first.
    pub(super) syn_due: bool,
    /// A window update has to be sent.
    pub(super) update_due: bool,
    /// FIN has to be sent behind what is queued.
    pub(super) fin_due: bool,
    pub(super) fin_sent: bool,
    pub(super) fin_received: bool,
    /// The local handle is gone.
    pub(super) dropped: bool,
    pub(super) broken: Option<Broken>,
    /// Stands in the session's queue of streams that have something to send.
    pub(super) scheduled: bool,
    /// Version 1: unread data has reached the stream's bound.
    pub(super) full: bool,
    /// Since when, and from which `consumed` on, the reader's progress is judged.
    pub(super) mark: (Duration, u32),
    /// When what is left to send of a dropped stream is given up.
    pub(super) linger_until: Duration,
    pub(super) read_waker: Option<Waker>,
    pub(super) write_waker: Option<Waker>,
}

impl Flow {
    pub(super) fn new(windows: bool) -> Self {
        Self {
            windows,
            peer_window: INITIAL_WINDOW,
            limit: INITIAL_WINDOW,
            advertised: INITIAL_WINDOW,
            ..Self::default()
        }
    }

    /// Queues a piece. One that continues the last piece's memory is joined to it, which makes fewer, larger frames.
    pub(super) fn push(&mut self, piece: BytesMut) {
        if piece.is_empty() {
            return;
        }
        self.queued += piece.len();
        match self.queue.back_mut() {
            Some(last) if last.as_ptr_range().end == piece.as_ptr() => last.unsplit(piece),
            _ => self.queue.push_back(piece),
        }
    }

    /// How many bytes the peer's window allows now.
    fn allowance(&self) -> usize {
        if !self.windows {
            return usize::MAX;
        }
        let in_flight = self.sent.wrapping_sub(self.peer_consumed);
        self.peer_window.saturating_sub(in_flight) as usize
    }

    /// Whether a call to [`take`](Self::take) would give something.
    pub(super) fn can_send(&self) -> bool {
        self.queued > 0 && self.allowance() > 0
    }

    /// The payload of the next frame.
    pub(super) fn take(&mut self, max: usize) -> Option<Bytes> {
        let n = max.min(self.allowance());
        let front = self.queue.front_mut()?;
        if n == 0 {
            return None;
        }
        let piece = if front.len() <= n { self.queue.pop_front()? } else { front.split_to(n) };
        self.queued -= piece.len();
        self.sent = self.sent.wrapping_add(piece.len() as u32);
        Some(piece.freeze())
    }

    /// Forgets what was to be sent.
    pub(super) fn discard_queue(&mut self) {
        self.queue.clear();
        self.queued = 0;
    }

    /// The peer's window update.
    pub(super) fn on_update(&mut self, update: Update) -> Result<(), Broken> {
        let in_flight = self.sent.wrapping_sub(self.peer_consumed);
        let progress = update.consumed.wrapping_sub(self.peer_consumed);
        if progress > in_flight {
            return Err(Broken::Unsent);
        }
        self.peer_consumed = update.consumed;
        self.peer_window = update.window;
        self.peer_has_read = true;
        Ok(())
    }

    /// Received payload; `pinning` counts the small shared pieces of the session.
    pub(super) fn receive(&mut self, data: Bytes, pinning: &mut usize) -> Result<(), Broken> {
        let len = data.len();
        if self.windows {
            let left = self.limit.wrapping_sub(self.received) as usize;
            if len > left {
                return Err(Broken::Overrun);
            }
            self.received = self.received.wrapping_add(len as u32);
        }
        self.unread += len;
        if len >= LARGE {
            self.chunks.push_back(Chunk::Shared(data));
        } else if *pinning < MAX_PINNING {
            *pinning += 1;
            self.chunks.push_back(Chunk::Pinning(data));
        } else {
            match self.chunks.back_mut() {
                Some(Chunk::Copied(last)) if last.capacity() - last.len() >= len => {
                    last.extend_from_slice(&data)
                }
                _ => {
                    let mut room = BytesMut::with_capacity((2 * len).clamp(COPIED, LARGE));
                    room.extend_from_slice(&data);
                    self.chunks.push_back(Chunk::Copied(room));
                }
            }
        }
        Ok(())
    }

    /// The next piece for the reader, which has to say when it was [`consume`](Self::consume)d.
    pub(super) fn next_chunk(&mut self, pinning: &mut usize) -> Option<Bytes> {
        Some(match self.chunks.pop_front()? {
            Chunk::Shared(data) => data,
            Chunk::Pinning(data) => {
                *pinning -= 1;
                data
            }
            Chunk::Copied(data) => data.freeze(),
        })
    }

    /// Forgets what was received, when nobody will read it any more; says how much that was. It counts as read: the peer may
    /// wait for that before it reads what is still to be sent here.
    pub(super) fn discard_unread(&mut self, pinning: &mut usize) -> usize {
        while self.next_chunk(pinning).is_some() {}
        let unread = self.unread;
        self.consume(unread);
        unread
    }

    /// Forgets what was received and not handed to the reader yet; says how much that was.
    pub(super) fn discard_held(&mut self, pinning: &mut usize) -> usize {
        let mut held = 0;
        while let Some(data) = self.next_chunk(pinning) {
            held += data.len();
        }
        self.unread -= held;
        held
    }

    /// Notes that the reader took `n` bytes: an update is due after the first read and whenever a quarter of the window was
    /// read, or [`OFTEN`].
    pub(super) fn consume(&mut self, n: usize) {
        self.unread -= n;
        self.consumed = self.consumed.wrapping_add(n as u32);
        if !self.windows || self.fin_sent || self.fin_received || n == 0 {
            return;
        }
        let news = self.consumed.wrapping_sub(self.reported);
        if !self.has_read || news >= (self.advertised / 4).clamp(1, OFTEN) {
            self.has_read = true;
            self.update_due = true;
        }
    }

    /// The update to send, promising `window` more bytes. What was promised before stays allowed: it may be under way.
    pub(super) fn update(&mut self, window: u32) -> Update {
        self.update_due = false;
        self.reported = self.consumed;
        self.advertised = window;
        let ahead = self.limit.wrapping_sub(self.consumed);
        if window > ahead {
            self.limit = self.consumed.wrapping_add(window);
        }
        Update { consumed: self.consumed, window }
    }

    /// Whether any frame could be sent now.
    pub(super) fn wants_turn(&self) -> bool {
        self.syn_due
            || self.update_due
            || self.can_send()
            || (self.fin_due && !self.fin_sent && self.queued == 0)
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self) -> (u32, u32) {
        (self.sent.wrapping_sub(self.peer_consumed), self.peer_window)
    }
}
