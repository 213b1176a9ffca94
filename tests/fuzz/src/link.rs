//! A transport in memory that takes and gives bytes in random pieces and now and then makes both ends wait for nothing.

use pointsman::net::ByteStream;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a socket's buffers may hold.
const CAPACITY: usize = 64 * 1024;

/// The two ends of a link; `seed` chooses the pieces.
pub fn join(seed: u8) -> (Link, Link) {
    let [there, back] = [Arc::<Mutex<Way>>::default(), Arc::default()];
    let random = |n| fastrand::Rng::with_seed(u64::from(seed) * 2 + n);
    let a = Link { read: back.clone(), write: there.clone(), random: random(0) };
    (a, Link { read: there, write: back, random: random(1) })
}

/// One end.
#[derive(Debug)]
pub struct Link {
    read: Arc<Mutex<Way>>,
    write: Arc<Mutex<Way>>,
    random: fastrand::Rng,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    bytes: VecDeque<u8>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Link {
    /// How much may pass now; `None`: come again.
    fn piece(&mut self, cx: &Context<'_>) -> Option<usize> {
        match self.random.u8(..) % 8 {
            0 => {
                cx.waker().wake_by_ref();
                None
            }
            1..4 => Some(self.random.usize(1..20)),
            _ => Some(self.random.usize(1..CAPACITY)),
        }
    }
}

fn lock(way: &Mutex<Way>) -> MutexGuard<'_, Way> {
    way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(piece) = self.piece(cx) else { return Poll::Pending };
        let mut way = lock(&self.read);
        let n = piece.min(buf.remaining()).min(way.bytes.len());
        if n == 0 && !way.ended {
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let (front, back) = way.bytes.as_slices();
        let of_front = n.min(front.len());
        buf.put_slice(&front[..of_front]);
        buf.put_slice(&back[..n - of_front]);
        way.bytes.drain(..n);
        way.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(piece) = self.piece(cx) else { return Poll::Pending };
        let mut way = lock(&self.write);
        let before = way.bytes.len();
        let mut room = piece.min(CAPACITY - before);
        if room == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for buf in bufs {
            let n = room.min(buf.len());
            way.bytes.extend(&buf[..n]);
            room -= n;
        }
        way.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(way.bytes.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = lock(&self.write);
        way.ended = true;
        way.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut way = lock(&self.write);
        way.ended = true;
        way.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl ByteStream for Link {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = lock(&self.read);
        if way.bytes.is_empty() && !way.ended {
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}
