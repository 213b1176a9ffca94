//! The one task that owns a smux session's transport: reads into a reused block, writes batches, keeps the timer.
//!
//! It decides nothing: `session` says what bytes mean, what to send and when to be called.

use super::session::{Machine, Outgoing};
use super::stream::{Handle, Shared};
use super::{CloseReason, Role, Settings};
use crate::net::BoxStream;
use crate::net::buffer::{self, LARGE_BLOCK};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

/// What is read at a time from a quiet transport, so that an idle session holds little; from a busy one it is [`LARGE_BLOCK`].
const SMALL_BLOCK: usize = 4 * 1024;
/// A block with less than one part in so many left is not read into any more.
const WORTH_A_READ: usize = 4;
/// Slices handed to one vectored write: a header and a payload for each frame of a batch.
const MAX_SLICES: usize = 128;
/// Rounds of reading and writing before other tasks get their turn.
const ROUNDS: usize = 16;
/// How long the transport may take to end.
const SHUTDOWN: Duration = Duration::from_secs(5);

pub(super) fn start(
    io: BoxStream,
    received: Bytes,
    role: Role,
    settings: &Settings,
) -> (Arc<Handle>, impl Future<Output = ()> + Send + 'static) {
    let shared = Arc::new(Shared::new(Machine::new(role, settings), settings.max_frame_size.max(1)));
    let handle = Arc::new(Handle { shared: shared.clone() });
    let driver = Driver {
        shared,
        io,
        inbox: BytesMut::from(received),
        block: SMALL_BLOCK,
        outbox: Outbox::default(),
        paused: false,
        gathering: false,
        timer: None,
        failed: None,
    };
    (handle, driver.run())
}

#[derive(Debug)]
struct Driver {
    shared: Arc<Shared>,
    io: BoxStream,
    inbox: BytesMut,
    block: usize,
    outbox: Outbox,
    /// The session does not want any more bytes for now.
    paused: bool,
    /// What is to be sent waits for what other streams have to add.
    gathering: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Set when nothing more can be sent: what can still be read is read first.
    failed: Option<CloseReason>,
}

impl Driver {
    async fn run(mut self) {
        let now = self.shared.now();
        let (shared, inbox) = (&self.shared, &mut self.inbox);
        let wants_more = shared.with(|m| m.receive(now, inbox).map(|()| m.wants_bytes(now)));
        let reason = match wants_more {
            Ok(wants_more) => {
                self.paused = !wants_more;
                std::future::poll_fn(|cx| self.poll(cx)).await
            }
            Err(malformed) => CloseReason::Protocol(malformed),
        };
        let orderly = reason == CloseReason::Local;
        self.shared.end(reason);
        // The peer may be gone: what it does not take in time is its loss.
        let _ = Box::pin(tokio::time::timeout(SHUTDOWN, self.shut_down(orderly))).await;
    }

    /// Ends the transport. After an orderly end the rest of what the peer sends is read: closing a socket with bytes
    /// unread would destroy what it has not taken yet.
    async fn shut_down(&mut self, orderly: bool) -> io::Result<()> {
        self.io.shutdown().await?;
        if !orderly {
            return Ok(());
        }
        loop {
            self.inbox.clear();
            self.inbox.reserve(SMALL_BLOCK);
            if self.io.read_buf(&mut self.inbox).await? == 0 {
                return Ok(());
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        for _ in 0..ROUNDS {
            let now = self.shared.now();
            let mut received = self.poll_receive(cx, now);
            if let Poll::Ready(Ok(())) = received {
                // Mostly there is no more, and the task may sleep once it has sent what there is to send.
                received = self.poll_receive(cx, now);
            }
            let sent = self.poll_send(cx, now);
            // A failing write must not hide what the peer said before it closed.
            if let Poll::Ready(Err(reason)) = received {
                return Poll::Ready(reason);
            }
            if let Poll::Ready(Err(reason)) = &sent {
                if *reason == CloseReason::Local {
                    return Poll::Ready(CloseReason::Local);
                }
                self.failed = Some(reason.clone());
            }
            if self.gathering {
                // Behind all tasks that are ready now.
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            if received.is_pending() && sent.is_pending() {
                if let Some(reason) = self.failed.take_if(|_| !self.paused) {
                    return Poll::Ready(reason);
                }
                match self.poll_sleep(cx, now) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read. Pending also while the session does not want any more bytes.
    fn poll_receive(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<Result<(), CloseReason>> {
        // Only what is received can make a session pause.
        if self.paused {
            self.paused = !self.shared.with(|m| m.wants_bytes(now));
        }
        if self.paused {
            return Poll::Pending;
        }
        let Poll::Ready(read) = self.poll_read(cx) else {
            if self.inbox.is_empty() && self.block == SMALL_BLOCK {
                self.inbox = BytesMut::new();
            }
            return Poll::Pending;
        };
        if read.map_err(|e| transport(&e))? == 0 {
            return Poll::Ready(Err(CloseReason::Ended));
        }
        let inbox = &mut self.inbox;
        let wants_more = self.shared.with(|m| m.receive(now, inbox).map(|()| m.wants_bytes(now)));
        self.paused = !wants_more.map_err(CloseReason::Protocol)?;
        Poll::Ready(Ok(()))
    }

    /// Reads into the inbox, and says how much; zero is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (read, room) = if self.block == SMALL_BLOCK {
            // Copied, so that what is read takes the memory of its own bytes and no more, which is also the quicker way.
            let mut scratch = [MaybeUninit::uninit(); SMALL_BLOCK];
            let mut read = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            self.inbox.extend_from_slice(read.filled());
            (read.filled().len(), SMALL_BLOCK)
        } else {
            // The whole block again where its pieces have been read meanwhile, else the rest of it, else a new one.
            let scarce = self.inbox.capacity() - self.inbox.len() < LARGE_BLOCK / WORTH_A_READ;
            if scarce && !self.inbox.try_reclaim(LARGE_BLOCK) {
                ready!(self.io.poll_readable(cx))?;
                // What is left in the old one is the beginning of a header at the most.
                let mut block = buffer::take_large();
                block.extend_from_slice(&self.inbox);
                buffer::give_large(std::mem::replace(&mut self.inbox, block));
            }
            let room = self.inbox.capacity() - self.inbox.len();
            (ready!(pin!(self.io.read_buf(&mut self.inbox)).poll(cx))?, room)
        };
        if read == room {
            self.block = LARGE_BLOCK;
        }
        Poll::Ready(Ok(read))
    }

    /// What is left of the last batch, or the next one. Pending also when there is nothing more to send, as far as is known.
    fn poll_send(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<Result<(), CloseReason>> {
        if self.failed.is_some() {
            return Poll::Pending;
        }
        if !self.outbox.is_empty() {
            ready!(self.poll_write(cx))?;
            self.shared.with(|m| m.sent(now));
            return Poll::Ready(Ok(()));
        }
        let (frames, gathering) = (&mut self.outbox.frames, &mut self.gathering);
        let drained = self.shared.with(|m| {
            *gathering = !*gathering && m.may_gather();
            if !*gathering {
                m.transmit(now, frames);
            }
            m.is_drained()
        });
        if self.gathering {
            return Poll::Pending;
        }
        if !self.outbox.is_empty() {
            ready!(self.poll_write(cx))?;
            if !self.outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(|e| transport(&e))?;
        if drained { Poll::Ready(Err(CloseReason::Local)) } else { Poll::Pending }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        self.outbox.poll_write(Pin::new(&mut self.io), cx).map_err(|e| transport(&e))
    }

    /// Nothing can be read or written: waits for the timer or for a handle; ready when there is work after all.
    fn poll_sleep(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<Result<(), CloseReason>> {
        let idle_out = self.outbox.is_empty() && self.failed.is_none();
        let next = self.shared.with(|m| {
            m.handle_timeout(now)?;
            if idle_out && (m.has_output() || m.is_drained()) || m.may_resume() {
                return Ok(None);
            }
            m.driver = Some(cx.waker().clone());
            Ok(Some(m.next_timeout()))
        });
        let next = match next {
            Err(reason) => return Poll::Ready(Err(reason)),
            Ok(None) => return Poll::Ready(Ok(())),
            Ok(Some(next)) => next,
        };
        let Some(at) = next.and_then(|at| self.shared.instant(at)) else { return Poll::Pending };
        // Deadlines mostly move away, so a timer that is early enough is left alone and simply asked again when it fires.
        match &mut self.timer {
            Some(timer) if !timer.is_elapsed() && timer.deadline() <= at => {}
            Some(timer) => timer.as_mut().reset(at),
            None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        // A quiet moment: the next block is a small one again.
        self.block = SMALL_BLOCK;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Where the task was cancelled; otherwise the reason is there already.
        self.shared.end(CloseReason::Local);
    }
}

/// Frames being written.
#[derive(Debug, Default)]
struct Outbox {
    frames: VecDeque<Outgoing>,
    /// Bytes of the first frame's header that are written.
    head_written: usize,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// One vectored write of everything.
    fn poll_write(&mut self, io: Pin<&mut impl AsyncWrite>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut n = 0;
        let mut skip = self.head_written;
        for frame in &self.frames {
            if n + 2 > MAX_SLICES {
                break;
            }
            let head = &frame.head()[skip..];
            skip = 0;
            for part in [head, &frame.payload[..]] {
                if !part.is_empty() {
                    slices[n] = IoSlice::new(part);
                    n += 1;
                }
            }
        }
        let written = ready!(io.poll_write_vectored(cx, &slices[..n]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(frame) = self.frames.front_mut() {
            let head_left = frame.head().len() - self.head_written;
            if n < head_left {
                self.head_written += n;
                return;
            }
            let body = n - head_left;
            if body < frame.payload.len() {
                self.head_written = frame.head().len();
                frame.payload.advance(body);
                return;
            }
            n = body - frame.payload.len();
            self.head_written = 0;
            self.frames.pop_front();
        }
    }
}

fn transport(error: &io::Error) -> CloseReason {
    CloseReason::Transport(error.to_string().into())
}
