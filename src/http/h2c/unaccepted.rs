//! Requests that `h2` refuses by itself. It tells nobody, so they are found in what it writes.
//!
//! A head that is far too large is answered, and a malformed one reset, before it is accepted. [`Watched`] follows the frames on
//! their way to the visitor: the first one on a stream that has not been accepted is such a refusal, and leaves a line in the log.

use super::{Context, MAX_STREAMS};
use crate::net::prefixed::Prefixed;
use crate::record::Record;
use h2::Reason;
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{self, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Streams that are remembered: more than are open at once. Without it a visitor could make us remember all that it ever had.
const MAX_KNOWN: usize = 2 * MAX_STREAMS as usize;
/// Length of what each frame begins with (RFC 9113, section 4.1).
const HEAD: usize = 9;

/// The streams of a connection whose requests have their line, or will have it.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<BTreeSet<u32>>);

impl Known {
    /// Whether nobody knew of this stream. Those that are older than all that are remembered have had their line.
    pub(super) fn add(&self, stream: u32) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = known.len() == MAX_KNOWN && known.first().is_some_and(|first| stream < *first);
        let new = !forgotten && known.insert(stream);
        if known.len() > MAX_KNOWN {
            known.pop_first();
        }
        new
    }
}

/// A frame with which a request can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// What a reply begins with.
    Headers,
    Reset(Reason),
}

/// Finds these frames in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Frames {
    /// The beginning of a frame, with the code behind it in a RST_STREAM.
    begun: [u8; HEAD + 4],
    filled: usize,
    /// How much of the frame is still to come and of no interest.
    rest: usize,
}

impl Frames {
    fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(u32, Frame)) {
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len());
            self.rest -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.filled >= HEAD { HEAD + 4 } else { HEAD };
            let taken = (wanted - self.filled).min(bytes.len());
            self.begun[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            let [a, b, c, kind, _, id @ ..] = self.begun;
            if self.filled < wanted || (wanted == HEAD && kind == RST_STREAM) {
                continue;
            }
            let [id, code] = [&id[..4], &id[4..]]
                .map(|four| four.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)));
            match kind {
                HEADERS => each(id, Frame::Headers),
                RST_STREAM => each(id, Frame::Reset(code.into())),
                _ => {}
            }
            let length = [a, b, c].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            self.rest = (length + HEAD).saturating_sub(self.filled);
            self.filled = 0;
        }
    }
}

/// The visitor's connection.
#[derive(Debug)]
pub(super) struct Watched<'c> {
    stream: Prefixed,
    frames: Frames,
    known: &'c Known,
    context: &'c Context<'c>,
}

impl<'c> Watched<'c> {
    pub(super) fn new(stream: Prefixed, known: &'c Known, context: &'c Context<'c>) -> Self {
        Self { stream, frames: Frames::default(), known, context }
    }

    fn written(&mut self, bytes: &[u8]) {
        let Self { known, context, .. } = *self;
        self.frames.follow(bytes, |stream, frame| {
            if known.add(stream) {
                refused(frame, context);
            }
        });
    }
}

/// The line of a request of which no more is known.
fn refused(frame: Frame, context: &Context<'_>) {
    let mut record = Record::new(&context.port.service, context.client, Instant::now());
    match frame {
        Frame::Headers => {
            record.replied(431);
            record.failed("bad_request", "head too large (http.maxHeadSize)").request();
        }
        Frame::Reset(Reason::REFUSED_STREAM) => {
            let error = format_args!("more than {MAX_STREAMS} requests at once on one connection");
            record.failed("too_many_requests", error).request();
        }
        Frame::Reset(reason) => {
            record.failed("bad_request", format_args!("malformed HTTP/2 request ({reason:?})")).request();
        }
    }
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        if let Poll::Ready(Ok(n)) = written {
            self.written(&data[..n]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        if let Poll::Ready(Ok(mut left)) = written {
            for piece in data {
                let n = left.min(piece.len());
                self.written(&piece[..n]);
                left -= n;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_any_pieces() {
        let bytes = [
            // SETTINGS without content; HEADERS on 5 with two bytes, RST_STREAM on 7, DATA, RST_STREAM on 9.
            &[0, 0, 0, 4, 0, 0, 0, 0, 0][..],
            &[0, 0, 2, 1, 5, 0, 0, 0, 5, 3, 3],
            &[0, 0, 4, 3, 0, 0, 0, 0, 7, 0, 0, 0, 1],
            &[0, 0, 5, 0, 0, 0, 0, 0, 5, 3, 3, 3, 3, 3],
            &[0, 0, 4, 3, 0, 0, 0, 1, 9, 0, 0, 0, 7],
        ]
        .concat();
        let expected = [
            (5, Frame::Headers),
            (7, Frame::Reset(Reason::PROTOCOL_ERROR)),
            (0x109, Frame::Reset(Reason::REFUSED_STREAM)),
        ];
        for size in 1..=bytes.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                frames.follow(piece, |stream, frame| found.push((stream, frame)));
            }
            assert_eq!(found, expected, "{size}");
        }
    }

    #[test]
    fn old_streams_are_known_though_forgotten() {
        let known = Known::default();
        assert!(known.add(5) && known.add(1) && !known.add(5));
        let last = 2 * u32::try_from(MAX_KNOWN).unwrap() + 5;
        assert!((7..last).step_by(2).all(|stream| known.add(stream)));
        assert!(!known.add(1) && !known.add(3) && known.add(last));
        assert_eq!(known.0.lock().unwrap().len(), MAX_KNOWN);
    }
}
