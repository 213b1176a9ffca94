//! One direction of a connection: bytes from one stream to another, in memory or by `splice(2)`.
//!
//! [`Copy`] is a state machine that is polled with both streams; it owns neither, so two of them drive a connection
//! without locks. Long runs of bytes that a stream keeps in memory anyway (a mux stream does) are passed on as they lie there,
//! others through a buffer. When it waits for its source it holds neither. It never shuts anything down: what the end of a
//! direction means is for `pipe` and `http` to say.

use super::ByteStream;
use super::buffer::{self, BUFFER_SIZE, Buffer, LARGE_BLOCK};
use super::splice::{PROBE_SIZE, Splicer};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::ReadBuf;
use tokio_util::io::poll_read_buf;

/// Buffers moved in one poll; then the other tasks have their turn, however fast the two peers are.
const MAX_ROUNDS: usize = 16;

/// Bytes taken at a time, but for the last piece, from a stream that has them in memory. One that is stopped in mid-bulk makes us
/// hold so much besides.
const TAKEN: usize = 64 * 1024;
/// Pieces of them, which one vectored write takes. Each may keep a whole block in memory, so the few small ones among them count.
const MAX_CHUNKS: usize = 8;

/// Why a direction came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The source has ended, and what it gave has been written.
    Eof,
    /// As many bytes as [`Copy::limited`] was given have been written.
    Limit,
}

/// Which of the two streams broke.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source; everything read before has been written.
    #[error("reading: {0}")]
    Read(io::Error),
    /// The destination.
    #[error("writing: {0}")]
    Write(io::Error),
}

/// One direction. Once it has finished or failed it must not be polled again.
#[derive(Debug, Default)]
pub struct Copy {
    prefix: Bytes,
    held: Held,
    /// The last read brought so much that the next is likely to be worth doing without a copy.
    bulk: bool,
    splicer: Splicer,
    limit: Option<u64>,
    moved: u64,
    spliced: u64,
    unflushed: bool,
    eof: bool,
}

/// Bytes read and not written yet.
#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    /// On loan, for streams that are written to by a copy.
    Buffer(Buffer, Range<usize>),
    /// To be handed over.
    Block(BytesMut),
    /// As the source had them.
    Chunks(VecDeque<Bytes>),
}

impl Held {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Writes once; says how much.
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut dyn ByteStream) -> Poll<io::Result<usize>> {
        let (n, empty) = match self {
            Self::Nothing => return Poll::Ready(Ok(0)),
            Self::Buffer(buffer, Range { start, end }) => {
                let n = ready!(poll_write(cx, to, &buffer[*start..*end]))?;
                *start += n;
                (n, start == end)
            }
            Self::Block(block) => {
                let n = some(ready!(to.poll_write_block(cx, block))?)?;
                (n, block.is_empty())
            }
            Self::Chunks(chunks) => {
                let n = ready!(poll_write_chunks(cx, to, chunks))?;
                (n, chunks.is_empty())
            }
        };
        if empty {
            *self = Self::Nothing;
        }
        Poll::Ready(Ok(n))
    }
}

impl Copy {
    /// Copies until the source ends.
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies until `bytes` have been read from the source, and not one more is taken from it.
    pub fn limited(bytes: u64) -> Self {
        Self { limit: Some(bytes), ..Self::default() }
    }

    /// Lets a copy that has reached its limit read so many bytes more; what it learnt about its source stays.
    pub fn go_on(&mut self, bytes: u64) {
        self.limit = Some(bytes);
    }

    /// Bytes to be written before anything is read; they do not count towards the limit.
    pub fn with_prefix(self, prefix: Bytes) -> Self {
        Self { prefix, ..self }
    }

    /// Bytes written so far, prefix included: as long as it grows the direction is alive.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// How many of them never came to user space.
    pub fn spliced(&self) -> u64 {
        self.spliced
    }

    /// Whether all that was read has been written.
    pub fn is_empty(&self) -> bool {
        self.prefix.is_empty() && self.held.is_empty() && !self.splicer.holds()
    }

    /// What a limited copy has still to read.
    pub fn left(&self) -> Option<u64> {
        self.limit
    }

    /// Moves what can be moved now.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn ByteStream,
        to: &mut dyn ByteStream,
    ) -> Poll<Result<Finished, CopyError>> {
        for _ in 0..MAX_ROUNDS {
            ready!(self.poll_drain(cx, to)).map_err(CopyError::Write)?;
            if self.eof || self.limit == Some(0) {
                // Whether and when more comes is not known: then no pipe is held.
                self.splicer.rest();
                ready!(self.poll_flush(cx, to)).map_err(CopyError::Write)?;
                return Poll::Ready(Ok(if self.eof { Finished::Eof } else { Finished::Limit }));
            }
            let Poll::Ready(read) = self.poll_fill(cx, from, to) else {
                // Nothing more for now: what was written must not wait in a buffer on the way.
                ready!(self.poll_flush(cx, to)).map_err(CopyError::Write)?;
                return Poll::Pending;
            };
            let n = read.map_err(CopyError::Read)?;
            self.eof = n == 0;
            if let Some(left) = &mut self.limit {
                *left = left.saturating_sub(n as u64);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once; only called when nothing is held. Zero is the end.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn ByteStream,
        to: &dyn ByteStream,
    ) -> Poll<io::Result<usize>> {
        let room = self.limit.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let sockets = from.tcp().filter(|_| to.tcp().is_some());
        if let Some(socket) = sockets
            && self.splicer.wanted()
            && let Some(n) = ready!(self.splicer.poll_fill(cx, socket, room))?
        {
            return Poll::Ready(Ok(n));
        }
        let size = if sockets.is_some() { PROBE_SIZE } else { BUFFER_SIZE };
        ready!(from.poll_readable(cx))?;
        if let n @ 1.. = self.take_chunks(cx, from, room) {
            return Poll::Ready(Ok(n));
        }
        let n = if self.bulk && to.takes_blocks() {
            ready!(self.poll_read_block(cx, from, room))?
        } else {
            // Given back at the end of this block if there was nothing to read after all.
            let mut buffer = Buffer::take();
            let mut read = ReadBuf::new(&mut buffer[..size.min(room)]);
            ready!(Pin::new(from).poll_read(cx, &mut read))?;
            let n = read.filled().len();
            if n > 0 {
                self.held = Held::Buffer(buffer, 0..n);
            }
            n
        };
        self.bulk = n >= PROBE_SIZE;
        self.splicer.saw_read(n == size);
        Poll::Ready(Ok(n))
    }

    /// Reads into a block that is to be handed over.
    fn poll_read_block(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn ByteStream,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        let mut block = buffer::take_large();
        let read = poll_read_buf(Pin::new(from), cx, &mut (&mut block).limit(room.min(LARGE_BLOCK)));
        if let Poll::Ready(Ok(1..)) = read {
            self.held = Held::Block(block.split());
        }
        buffer::give_large(block);
        read
    }

    /// Takes what the source has in memory, as it lies there; says how much. Few bytes may keep a whole block, so that it has to
    /// begin with many.
    fn take_chunks(&mut self, cx: &mut Context<'_>, from: &mut dyn ByteStream, room: usize) -> usize {
        let mut taken = 0;
        let mut chunks = VecDeque::new();
        let mut least = if self.bulk { 1 } else { PROBE_SIZE };
        while taken < room.min(TAKEN)
            && chunks.len() < MAX_CHUNKS
            && let Some(chunk) = from.take_chunk(least, room - taken)
        {
            least = 1;
            taken += chunk.len();
            chunks.push_back(chunk);
            // An error is met again by the next read.
            if !matches!(from.poll_readable(cx), Poll::Ready(Ok(()))) {
                break;
            }
        }
        if taken > 0 {
            self.held = Held::Chunks(chunks);
            self.bulk = taken >= PROBE_SIZE;
        }
        taken
    }

    /// Writes all that is held, in the order in which it came: prefix, buffer or pipe.
    fn poll_drain(&mut self, cx: &mut Context<'_>, to: &mut dyn ByteStream) -> Poll<io::Result<()>> {
        while !self.prefix.is_empty() {
            let n = ready!(poll_write(cx, to, &self.prefix))?;
            self.prefix.advance(n);
            self.wrote(n);
            if self.prefix.is_empty() {
                // An empty view would still keep the memory behind it alive.
                self.prefix = Bytes::new();
            }
        }
        while !self.held.is_empty() {
            let n = ready!(self.held.poll_write(cx, to))?;
            self.wrote(n);
        }
        while self.splicer.holds() {
            let Some(socket) = to.tcp() else {
                return Poll::Ready(Err(io::Error::other("the destination is no socket any more")));
            };
            let n = ready!(self.splicer.poll_drain(cx, socket))?;
            self.moved += n as u64;
            self.spliced += n as u64;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, n: usize) {
        self.moved += n as u64;
        self.unflushed = true;
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut dyn ByteStream) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_write(cx: &mut Context<'_>, to: &mut dyn ByteStream, data: &[u8]) -> Poll<io::Result<usize>> {
    Poll::Ready(some(ready!(Pin::new(to).poll_write(cx, data))?))
}

fn poll_write_chunks(
    cx: &mut Context<'_>,
    to: &mut dyn ByteStream,
    chunks: &mut VecDeque<Bytes>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); MAX_CHUNKS];
    for (slice, chunk) in slices.iter_mut().zip(&*chunks) {
        *slice = IoSlice::new(chunk);
    }
    let count = chunks.len().min(MAX_CHUNKS);
    let n = some(ready!(Pin::new(to).poll_write_vectored(cx, &slices[..count]))?)?;
    let mut left = n;
    while let Some(chunk) = chunks.front_mut().filter(|_| left > 0) {
        let of_chunk = left.min(chunk.len());
        chunk.advance(of_chunk);
        left -= of_chunk;
        if chunk.is_empty() {
            chunks.pop_front();
        }
    }
    Poll::Ready(Ok(n))
}

/// A stream that takes nothing will not take anything later.
fn some(n: usize) -> io::Result<usize> {
    if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::{pattern, tcp_pair};
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_limited_copy_takes_no_byte_too_many() {
        for size in [0, 1, PROBE_SIZE, 1_000_003] {
            let (mut writer, mut from) = tcp_pair().await;
            let (mut to, mut reader) = tcp_pair().await;
            let data = pattern(size + 7);
            let mut copy = Copy::limited(size as u64).with_prefix(Bytes::from_static(b"head"));
            let moving = async {
                let end = poll_fn(|cx| copy.poll(cx, &mut from, &mut to)).await.unwrap();
                assert_eq!(end, Finished::Limit);
                to.shutdown().await.unwrap();
            };
            let sending = async { writer.write_all(&data).await.unwrap() };
            let mut got = Vec::new();
            let (_, _, n) = tokio::join!(moving, sending, reader.read_to_end(&mut got));
            assert_eq!(n.unwrap(), size + 4);
            assert!(got[..4] == *b"head" && got[4..] == data[..size]);
            assert_eq!((copy.moved(), copy.left()), (size as u64 + 4, Some(0)));
            let mut rest = [0; 7];
            from.read_exact(&mut rest).await.unwrap();
            assert_eq!(rest, data[size..]);
        }
    }

    #[tokio::test]
    async fn an_end_before_the_limit_is_told_apart() {
        let (mut writer, mut from) = tcp_pair().await;
        let (mut to, _reader) = tcp_pair().await;
        writer.write_all(b"abc").await.unwrap();
        drop(writer);
        let mut copy = Copy::limited(5);
        let end = poll_fn(|cx| copy.poll(cx, &mut from, &mut to)).await.unwrap();
        assert_eq!((end, copy.left()), (Finished::Eof, Some(2)));
    }

    #[tokio::test]
    async fn waiting_holds_no_buffer() {
        let (_writer, mut from) = tcp_pair().await;
        let (mut to, _reader) = tcp_pair().await;
        let mut copy = Copy::new();
        poll_fn(|cx| {
            assert!(copy.poll(cx, &mut from, &mut to).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(copy.is_empty());
    }

    #[tokio::test]
    async fn a_copy_that_goes_on_keeps_splicing() {
        const PIECE: usize = 3 * PROBE_SIZE;
        let (mut writer, mut from) = tcp_pair().await;
        let (mut to, mut reader) = tcp_pair().await;
        let data = pattern(40 * PIECE);
        let mut copy = Copy::limited(PIECE as u64);
        let moving = async {
            for piece in 0..40 {
                if piece > 0 {
                    copy.go_on(PIECE as u64);
                }
                let end = poll_fn(|cx| copy.poll(cx, &mut from, &mut to)).await.unwrap();
                assert_eq!((end, copy.is_empty()), (Finished::Limit, true));
            }
            to.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, _, n) = tokio::join!(
            moving,
            async { writer.write_all(&data).await.unwrap() },
            reader.read_to_end(&mut got)
        );
        assert_eq!(n.unwrap(), data.len());
        assert!(got == data);
        // Were every piece a new beginning, two thirds of it would be read into memory.
        assert!(!cfg!(target_os = "linux") || copy.spliced() > data.len() as u64 / 2, "{}", copy.spliced());
    }
}
