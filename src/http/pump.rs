//! One message from one stream to another: a head, then its body as it comes, bytes unchanged.
//!
//! Short bodies and what stands around chunks go through the buffer that the head came in. Long stretches that need not be
//! looked at are left to `net::copy`, which splices them where that pays. `exchange` says what an end means.

use crate::net::BoxStream;
use crate::net::buffer::{self, BLOCK_SIZE};
use crate::net::copy::{Copy, CopyError, Finished};
use crate::net::timer::Timer;
use crate::wire::http::{Body, HeadReader, Limits, Rejected, ReplyHead, RequestHead};
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Room for a read into a buffer that holds something.
const LEAST_READ: usize = 1024;

/// What is kept of a message's body, so that it can be sent a second time.
const MAX_KEPT: usize = 64 * 1024;

/// The rest of a body or of a chunk that is left to `copy`, which begins to splice behind two full reads. Measured with
/// downloads over loopback: splicing takes a third of the CPU time from 256 KiB on, and at 64 KiB makes no difference.
const BULK: u64 = 64 * 1024;

/// A stream and the bytes read from it that nobody has used yet.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub(crate) stream: BoxStream,
    pub(crate) buf: BytesMut,
    /// For whoever waits for something of the stream.
    pub(super) timer: Timer,
    /// How far a head at the front of the buffer has been searched.
    heads: HeadReader,
}

impl Buffered {
    pub(crate) fn new(stream: BoxStream, prefix: Bytes) -> Self {
        Self { stream, buf: BytesMut::from(prefix), timer: Timer::default(), heads: HeadReader::default() }
    }

    /// Reads more into the buffer; `Ok(0)` is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buf.is_empty() {
            ready!(self.stream.poll_readable(cx))?;
        }
        match self.buf.capacity() {
            0 => self.buf = buffer::take_block(),
            _ if self.buf.is_empty() => self.buf.reserve(BLOCK_SIZE),
            // Behind what is there already; a block has room for most heads, in however many pieces they come.
            _ => self.buf.reserve(LEAST_READ),
        }
        tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.buf)
    }

    /// Whether there are bytes that nobody has used yet, as far as is known without waiting.
    pub(super) async fn holds_bytes(&mut self) -> bool {
        // An end or an error is no byte; whoever reads on meets it again.
        drop(poll_fn(|cx| Poll::Ready(self.poll_fill(cx))).await);
        !self.buf.is_empty()
    }

    /// Reads up to the end of a request head; `None` when the stream ended or failed before.
    pub(super) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Result<Option<RequestHead>, Rejected>> {
        loop {
            if let Some(head) = self.heads.request(&mut self.buf, limits)? {
                // What is done about the request may take its time.
                self.release();
                return Poll::Ready(Ok(Some(head)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// The reply head at the front of the buffer, if all of it is there.
    pub(super) fn take_reply(
        &mut self,
        limits: &Limits,
        request: &RequestHead,
    ) -> Result<Option<ReplyHead>, Rejected> {
        self.heads.reply(&mut self.buf, limits, request)
    }

    /// Waits without a buffer for the first bytes, and reads them; ready with `false` at the end.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let read = self.poll_fill(cx);
        // What the runtime took for readable may have been read already.
        self.release();
        read.map(|read| read.is_ok_and(|n| n > 0))
    }

    /// Gives the buffer back while there is nothing in it.
    pub(crate) fn release(&mut self) {
        if self.buf.is_empty() && self.buf.capacity() > 0 {
            buffer::give_block(std::mem::take(&mut self.buf));
        }
    }
}

/// Why a message stopped half-way.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The reading side failed or ended too early.
    Read,
    /// The writing side failed.
    Write(io::ErrorKind),
    /// The framing is broken.
    Malformed(Rejected),
}

/// Moves one message.
#[derive(Debug)]
pub(super) struct Pump {
    head: Bytes,
    body: Body,
    /// Bytes at the front of the source's buffer that were checked and may be written.
    checked: usize,
    /// Made for the first long stretch; in a box, as most messages have none.
    copy: Option<Box<Copy>>,
    /// The length of the stretch that `copy` is moving; zero when it is not.
    stretch: u64,
    moved: u64,
    /// The body bytes written, while all of them are kept.
    kept: Option<BytesMut>,
    begun: bool,
    flushed: bool,
}

impl Pump {
    pub(super) fn new(head: Bytes, body: Body) -> Self {
        Self {
            head,
            body,
            checked: 0,
            copy: None,
            stretch: 0,
            moved: 0,
            kept: None,
            begun: false,
            flushed: false,
        }
    }

    /// Keeps what is written of the body, while it is not too much.
    pub(super) fn keep(&mut self) {
        self.kept = Some(BytesMut::new());
    }

    /// Lets go of what was kept.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// Body bytes written.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether anything was written.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the message can be sent a second time.
    pub(super) fn repeatable(&self) -> bool {
        self.moved == 0 || self.kept.is_some()
    }

    /// Puts what was written of the body back in front of what its source still holds.
    pub(super) fn put_back(self, from: &mut Buffered) {
        if let Some(mut kept) = self.kept
            && !kept.is_empty()
        {
            kept.extend_from_slice(&from.buf);
            from.buf = kept;
        }
    }

    /// Whether all that the source gave has been written: then it is the source that is waited for.
    pub(super) fn is_starved(&self) -> bool {
        self.head.is_empty() && self.checked == 0 && self.copy.as_ref().is_none_or(|copy| copy.is_empty())
    }

    /// Moves what can be moved now; ready when the message is complete and flushed.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Buffered,
        to: &mut BoxStream,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            if self.stretch > 0 {
                ready!(self.poll_stretch(cx, from, to))?;
                continue;
            }
            if self.checked == 0 && !from.buf.is_empty() && !self.body.is_done() {
                // With the head, if that has not been written yet: a short message is one segment.
                self.checked = self.body.advance(&from.buf).map_err(Stopped::Malformed)?;
            }
            ready!(self.poll_write(cx, from, to)).map_err(write_failed)?;
            if self.body.is_done() {
                if !self.flushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(write_failed)?;
                    self.flushed = true;
                }
                return Poll::Ready(Ok(()));
            }
            if from.buf.is_empty() {
                if self.begin_stretch() {
                    from.release();
                    continue;
                }
                ready!(self.poll_fill(cx, from, to))?;
            }
        }
    }

    /// Reads more into the source's buffer, or to the end of a body that ends so.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Buffered,
        to: &mut BoxStream,
    ) -> Poll<Result<(), Stopped>> {
        match from.poll_fill(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(self.body.end().map_err(|_| Stopped::Read)),
            Poll::Ready(read) => Poll::Ready(read.map(drop).map_err(|_| Stopped::Read)),
            Poll::Pending => {
                from.release();
                // What was written so far must not wait for the rest of the body.
                ready!(Pin::new(to).poll_flush(cx)).map_err(write_failed)?;
                Poll::Pending
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Buffered,
        to: &mut BoxStream,
    ) -> Poll<io::Result<()>> {
        while !self.head.is_empty() || self.checked > 0 {
            let n = if self.checked == 0 {
                ready!(Pin::new(&mut *to).poll_write(cx, &self.head))?
            } else {
                let slices = [io::IoSlice::new(&self.head), io::IoSlice::new(&from.buf[..self.checked])];
                ready!(Pin::new(&mut *to).poll_write_vectored(cx, &slices))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            let of_head = n.min(self.head.len());
            self.head.advance(of_head);
            self.take(from, n - of_head);
        }
        Poll::Ready(Ok(()))
    }

    /// `n` bytes of the body have been written.
    fn take(&mut self, from: &mut Buffered, n: usize) {
        if let Some(kept) = &mut self.kept {
            if kept.len() + n > MAX_KEPT {
                self.kept = None;
            } else {
                kept.extend_from_slice(&from.buf[..n]);
            }
        }
        from.buf.advance(n);
        self.checked -= n;
        self.moved += n as u64;
    }

    /// Whether a stretch for `copy` begins here. Never with the first bytes: what `copy` has taken from the source cannot be
    /// sent a second time.
    fn begin_stretch(&mut self) -> bool {
        let opaque = self.body.opaque();
        if self.moved == 0 || opaque < BULK {
            return false;
        }
        self.kept = None;
        match &mut self.copy {
            Some(copy) => copy.go_on(opaque),
            None => self.copy = Some(Copy::limited(opaque).into()),
        }
        self.stretch = opaque;
        true
    }

    fn poll_stretch(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Buffered,
        to: &mut BoxStream,
    ) -> Poll<Result<(), Stopped>> {
        let copy = self.copy.get_or_insert_default();
        let before = copy.moved();
        let end = copy.poll(cx, &mut *from.stream, &mut **to);
        self.moved += copy.moved() - before;
        let end = ready!(end).map_err(|error| match error {
            CopyError::Read(_) => Stopped::Read,
            CopyError::Write(error) => write_failed(error),
        })?;
        match end {
            Finished::Limit => self.body.skip(self.stretch),
            Finished::Eof => self.body.end().map_err(|_| Stopped::Read)?,
        }
        self.stretch = 0;
        Poll::Ready(Ok(()))
    }
}

fn write_failed(error: io::Error) -> Stopped {
    Stopped::Write(error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::{pattern, tcp_pair};
    use crate::wire::http::Framing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Whoever has asked may have to wait for a target.
    #[tokio::test]
    async fn a_head_that_was_read_leaves_no_block_behind() {
        let (mut writer, reader) = tcp_pair().await;
        let before = buffer::free_blocks();
        writer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut from = Buffered::new(Box::new(reader), Bytes::new());
        let head = poll_fn(|cx| from.poll_request(cx, &Limits::default())).await.unwrap();
        assert!(head.is_some());
        assert_eq!((from.buf.capacity(), buffer::free_blocks()), (0, before.max(1)));
    }

    async fn pumped(framing: Framing, body: &[u8]) -> Pump {
        let (mut writer, from) = tcp_pair().await;
        let (to, mut reader) = tcp_pair().await;
        let (mut from, mut to) = (Buffered::new(Box::new(from), Bytes::new()), Box::new(to) as BoxStream);
        let mut pump = Pump::new(Bytes::from_static(b"head"), Body::new(framing));
        let mut got = vec![0; 4 + body.len()];
        let (end, (), read) = tokio::join!(
            poll_fn(|cx| pump.poll(cx, &mut from, &mut to)),
            async {
                writer.write_all(body).await.unwrap();
                if framing == Framing::Close {
                    writer.shutdown().await.unwrap();
                }
            },
            reader.read_exact(&mut got)
        );
        end.unwrap();
        read.unwrap();
        assert!(got.starts_with(b"head") && got[4..] == *body);
        assert_eq!(pump.moved(), body.len() as u64);
        assert!(pump.is_starved());
        pump
    }

    /// Long stretches of every framing never come to user space; what is short is not worth it.
    #[tokio::test]
    async fn long_bodies_are_spliced_whatever_their_framing() {
        const LONG: usize = 16 * 1024 * 1024;
        let data = pattern(LONG);
        let chunk = format!("{LONG:x}\r\n").into_bytes();
        let chunked = [&chunk[..], &data, b"\r\n", &chunk, &data, b"\r\n0\r\n\r\n"].concat();
        for (framing, body) in
            [(Framing::Length(LONG as u64), &data[..]), (Framing::Close, &data), (Framing::Chunked, &chunked)]
        {
            let pump = pumped(framing, body).await;
            let spliced = pump.copy.unwrap().spliced();
            assert!(!cfg!(target_os = "linux") || spliced > body.len() as u64 / 2, "{framing:?}: {spliced}");
        }
        let short = BULK as usize - 1;
        assert!(pumped(Framing::Length(short as u64), &data[..short]).await.copy.is_none());
    }
}
