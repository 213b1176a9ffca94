//! The handles of a smux session: one lock around the state machine, and streams that read and write through it.
//!
//! The lock is held for bookkeeping only: payload is copied outside it, and wakers run after it.

use super::flow::Broken;
use super::session::{Machine, Received, Room};
use super::{CloseReason, OpenError};
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::sync::watch;
use tokio::time::Instant;

/// Room made for a small write; the writes that follow share it.
const SMALL_WRITE: usize = 512;

#[derive(Debug)]
pub(super) struct Shared {
    machine: Mutex<Machine>,
    epoch: Instant,
    over: watch::Sender<bool>,
    max_frame_size: usize,
}

impl Shared {
    pub(super) fn new(machine: Machine, max_frame_size: usize) -> Self {
        Self {
            machine: Mutex::new(machine),
            epoch: Instant::now(),
            over: watch::Sender::new(false),
            max_frame_size,
        }
    }

    /// Runs `f` under the lock, then wakes whom it named.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut machine);
        let (one, more) = machine.take_wakes();
        drop(machine);
        if let Some(waker) = one {
            waker.wake();
            more.into_iter().for_each(Waker::wake);
        }
        result
    }

    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn instant(&self, at: Duration) -> Option<Instant> {
        self.epoch.checked_add(at)
    }

    pub(super) fn end(&self, reason: CloseReason) {
        self.with(|m| m.end(reason));
        self.over.send_replace(true);
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    pub(super) async fn closed(&self) -> CloseReason {
        // An error would mean that the sender is gone, and `self` holds it.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
        self.with(|m| m.over().cloned()).unwrap_or(CloseReason::Local)
    }

    pub(super) fn close(&self) {
        let now = self.now();
        self.with(|m| m.close(now));
    }

    pub(super) fn streams(&self) -> usize {
        self.with(|m| m.streams())
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.epoch + self.with(|m| m.last_heard())
    }
}

/// What session clones and the acceptor have in common: when the last is gone, the session ends with its last stream.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn open(&self, header: &[u8]) -> Result<SmuxStream, OpenError> {
        let mut tail = BytesMut::new();
        // What is written next may come behind it in the same frame.
        let header = copy(&mut tail, &[IoSlice::new(header)], header.len());
        let id = self.shared.with(|m| m.open(header))?;
        Ok(SmuxStream::new(self.shared.clone(), id, tail))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(Machine::abandon);
    }
}

#[derive(Debug)]
pub(super) struct Acceptor {
    handle: Arc<Handle>,
}

impl Acceptor {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    pub(super) async fn accept(&mut self) -> Option<SmuxStream> {
        let shared = &self.handle.shared;
        let id = poll_fn(|cx| match shared.with(|m| m.accept(cx.waker())) {
            Ok(Some(id)) => Poll::Ready(Some(id)),
            Ok(None) => Poll::Pending,
            Err(_) => Poll::Ready(None),
        })
        .await?;
        Some(SmuxStream::new(shared.clone(), id, BytesMut::new()))
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let now = self.handle.shared.now();
        self.handle.shared.with(|m| m.refuse_streams(now));
    }
}

#[derive(Debug)]
pub(super) struct SmuxStream {
    shared: Arc<Shared>,
    id: u32,
    /// Received bytes in the reader's hand.
    current: Bytes,
    /// Bytes read from `current` that the session was not told of.
    unreported: usize,
    has_read: bool,
    /// How much may be queued without asking.
    room: usize,
    /// Where small writes go that follow one another without a wait for the peer.
    tail: BytesMut,
}

impl SmuxStream {
    fn new(shared: Arc<Shared>, id: u32, tail: BytesMut) -> Self {
        Self { shared, id, current: Bytes::new(), unreported: 0, has_read: false, room: 0, tail }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        std::task::ready!(self.poll_fill(cx))?;
        let n = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current[..n]);
        self.current.advance(n);
        self.took(n);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        std::task::ready!(self.poll_fill(cx))?;
        let chunk = std::mem::take(&mut self.current);
        self.took(chunk.len());
        Poll::Ready(Ok(chunk))
    }

    /// What is in the reader's hand already.
    pub(super) fn take_chunk(&mut self, least: usize, most: usize) -> Option<Bytes> {
        let n = self.current.len().min(most);
        if n < least.max(1) {
            return None;
        }
        let chunk = self.current.split_to(n);
        self.took(n);
        Some(chunk)
    }

    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_fill(cx)
    }

    /// Ready with bytes in `current`, or with none at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.current.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let id = self.id;
        let received = self.shared.with(|m| m.read(id, cx.waker()));
        Poll::Ready(match received {
            Received::Data(data) => {
                self.current = data;
                Ok(())
            }
            Received::End => Ok(()),
            Received::Broken(broken) => Err(broken.into()),
            Received::Lost(reason) => Err(lost(io::ErrorKind::ConnectionAborted, &reason)),
            Received::Wait => {
                // Whoever listens may do so for long.
                self.tail = BytesMut::new();
                return Poll::Pending;
            }
        })
    }

    /// Notes a read. The first is reported at once, for the peer's window depends on it; later ones when the piece is
    /// used up, for a reader may not come back for long.
    fn took(&mut self, n: usize) {
        self.unreported += n;
        if (!self.has_read && n > 0) || self.current.is_empty() {
            self.has_read = true;
            if self.current.is_empty() {
                // Lets go of the block that the piece lay in.
                self.current = Bytes::new();
            }
            let (id, read) = (self.id, std::mem::take(&mut self.unreported));
            self.shared.with(|m| m.consume(id, read));
        }
    }

    /// Takes from the slices, in order, what there is room for in one frame.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = data.iter().map(|slice| slice.len()).sum::<usize>();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = std::task::ready!(self.poll_room(cx))?;
        let n = wanted.min(room).min(self.shared.max_frame_size);
        let piece = copy(&mut self.tail, data, n);
        Poll::Ready(self.write(piece))
    }

    /// Takes bytes off the front of a block, without a copy.
    pub(super) fn poll_write_block(
        &mut self,
        cx: &mut Context<'_>,
        block: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if block.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = std::task::ready!(self.poll_room(cx))?;
        let piece = block.split_to(block.len().min(room));
        Poll::Ready(self.write(piece))
    }

    /// How much may be queued, which is not nothing.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let id = self.id;
        if self.room == 0 {
            self.room = match self.shared.with(|m| m.room(id, cx.waker())) {
                Room::Bytes(n) => n,
                Room::Ended => return Poll::Ready(Err(ended())),
                Room::Wait => return Poll::Pending,
            };
        }
        Poll::Ready(Ok(self.room))
    }

    fn write(&mut self, piece: BytesMut) -> io::Result<usize> {
        let (id, n) = (self.id, piece.len());
        self.room = self.shared.with(|m| m.write(id, piece)).ok_or_else(ended)?;
        Ok(n)
    }

    pub(super) fn finish(&mut self) {
        let id = self.id;
        self.shared.with(|m| m.finish(id));
    }

    pub(super) fn far_end_has_read(&self) -> Option<bool> {
        self.shared.with(|m| m.peer_has_read(self.id))
    }

    pub(super) fn far_end_is_gone(&self) -> bool {
        self.shared.with(|m| m.peer_has_ended(self.id))
    }
}

impl Drop for SmuxStream {
    fn drop(&mut self) {
        let (id, now) = (self.id, self.shared.now());
        self.shared.with(|m| m.drop_stream(now, id));
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(
            io::ErrorKind::ConnectionAborted,
            match broken {
                Broken::Overrun => "the peer sent more than the stream's window",
                Broken::Unsent => "the peer says it read more than was sent",
                Broken::Stalled => "the stream stood in the way of the others for too long",
            },
        )
    }
}

/// The one copy on the way out: the first `n` bytes of `data`, by way of `tail`.
fn copy(tail: &mut BytesMut, data: &[IoSlice<'_>], n: usize) -> BytesMut {
    if tail.capacity() < n {
        *tail = BytesMut::with_capacity(n.max(SMALL_WRITE));
    }
    for slice in data {
        let left = n - tail.len();
        tail.extend_from_slice(&slice[..left.min(slice.len())]);
    }
    let piece = tail.split();
    if tail.capacity() == 0 {
        *tail = BytesMut::new();
    }
    piece
}

fn lost(kind: io::ErrorKind, reason: &CloseReason) -> io::Error {
    io::Error::new(kind, format!("the mux session is over: {reason}"))
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the mux stream has ended")
}

#[cfg(test)]
mod tests {
    use super::super::{Role, Settings};
    use super::*;

    /// What is kept for the next write is let go of by whoever has to wait for the peer.
    #[test]
    fn a_stream_that_waits_holds_no_room() {
        let machine = Machine::new(Role::Client, &Settings::relay());
        let mut stream = Handle { shared: Arc::new(Shared::new(machine, 1024)) }.open(b"first").unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_write(&mut cx, &[IoSlice::new(b"second")]).is_ready());
        assert!(stream.tail.capacity() > 0);
        assert!(stream.poll_readable(&mut cx).is_pending());
        assert_eq!(stream.tail.capacity(), 0);
    }
}
