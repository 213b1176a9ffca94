//! Finds the end of a head, whatever pieces it comes in.
//!
//! Every byte is looked at once: a head of 64 KiB sent byte by byte costs no more than one sent whole. What can be
//! refused before the end is known is refused at once: line ends that are not CRLF, a beginning that is no HTTP,
//! too many bytes, too many fields. What the lines mean is for `request`, `reply` and `fields`.

use super::{Kind, Limits, Rejected, ReplyHead, RequestHead, reply, request};
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

#[cfg(test)]
thread_local! {
    /// Bytes looked at on this thread, for tests of what a head costs.
    pub(crate) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The place in a growing buffer up to which a head was searched; ready for the next head once one was taken.
///
/// Between two calls the buffer may only grow at its end.
#[derive(Debug, Clone, Default)]
pub struct HeadReader {
    /// No line end that is still to be handled stands before this.
    scanned: usize,
    /// Where the line that is being read begins.
    line_start: usize,
    /// Complete lines so far, start line included.
    lines: usize,
    /// One empty line before the request line was dropped.
    blank_dropped: bool,
}

impl HeadReader {
    /// Takes a whole request head off the front of `buf`, or `None` while it is incomplete.
    ///
    /// One empty line before the request line is dropped and not passed on (RFC 9112 2.2: old clients send one behind a
    /// body); a second one is refused.
    pub fn request(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<Option<RequestHead>, Rejected> {
        match self.head(buf, limits, Kind::Request)? {
            Some((raw, fields)) => RequestHead::parse(raw, fields).map(Some),
            None => Ok(None),
        }
    }

    /// Takes a whole reply head off the front of `buf`, or `None` while it is incomplete; `request` is the one it answers
    /// and decides how the body is framed (HEAD, CONNECT, Upgrade).
    pub fn reply(
        &mut self,
        buf: &mut BytesMut,
        limits: &Limits,
        request: &RequestHead,
    ) -> Result<Option<ReplyHead>, Rejected> {
        match self.head(buf, limits, Kind::Reply)? {
            Some((raw, fields)) => ReplyHead::parse(raw, fields, request).map(Some),
            None => Ok(None),
        }
    }

    /// The bytes of the head and the number of its field lines.
    fn head(
        &mut self,
        buf: &mut BytesMut,
        limits: &Limits,
        kind: Kind,
    ) -> Result<Option<(Bytes, usize)>, Rejected> {
        // Places inside a head are kept as u32.
        let max = limits.max_bytes.min(u32::MAX as usize);
        if self.scanned > buf.len() {
            *self = Self::default();
        }
        while let Some(line_end) = self.next_line(&buf[..buf.len().min(max)], kind)? {
            let after = line_end + 2;
            match (line_end == self.line_start, self.lines) {
                (true, 0) => {
                    if kind == Kind::Reply || self.blank_dropped {
                        return Err(kind.reject("empty line before the start line"));
                    }
                    buf.advance(after);
                    *self = Self { blank_dropped: true, ..Self::default() };
                }
                (true, lines) => {
                    *self = Self::default();
                    // A copy: a head is kept until the exchange is over, and the block that it came in is free before that.
                    let head = Bytes::copy_from_slice(&buf[..after]);
                    buf.advance(after);
                    return Ok(Some((head, lines - 1)));
                }
                (false, lines) => {
                    if lines == 0 {
                        check_start_line(&buf[self.line_start..line_end], kind)?;
                    } else if lines > limits.max_fields {
                        return Err(kind.too_large("too many fields in the head (http.maxHeadFields)"));
                    }
                    self.lines += 1;
                    (self.line_start, self.scanned) = (after, after);
                }
            }
        }
        if buf.len() >= max { Err(kind.too_large("head too large (http.maxHeadSize)")) } else { Ok(None) }
    }

    /// Where the current line ends (the place of its CRLF), if `window` holds that.
    fn next_line(&mut self, window: &[u8], kind: Kind) -> Result<Option<usize>, Rejected> {
        let fresh = window.get(self.scanned..).unwrap_or_default();
        let hit = memchr2(b'\r', b'\n', fresh);
        let text = &fresh[..hit.unwrap_or(fresh.len())];
        if self.lines == 0 {
            check_beginning(&window[self.line_start..self.scanned + text.len()], text, kind)?;
        }
        #[cfg(test)]
        LOOKED_AT.set(LOOKED_AT.get() + text.len() + usize::from(hit.is_some()));
        self.scanned += text.len();
        match (hit, window.get(self.scanned), window.get(self.scanned + 1)) {
            (None, ..) | (_, Some(b'\r'), None) => Ok(None),
            (_, Some(b'\r'), Some(b'\n')) => Ok(Some(self.scanned)),
            (_, Some(b'\r'), _) => Err(kind.reject("CR without LF in the head")),
            _ => Err(kind.reject("LF without CR in the head")),
        }
    }
}

/// Refuses a start line that can become none, before it is whole; `fresh` is the part of `text` that is new.
fn check_beginning(text: &[u8], fresh: &[u8], kind: Kind) -> Result<(), Rejected> {
    match kind {
        Kind::Request => {
            if text.first() == Some(&b' ')
                || !fresh.iter().fold(true, |printable, b| printable & (b' '..=b'~').contains(b))
            {
                return Err(kind.reject("byte that no request line has"));
            }
        }
        Kind::Reply => {
            const BEGINNING: &[u8] = b"HTTP/1.";
            let len = text.len().min(BEGINNING.len());
            if text[..len] != BEGINNING[..len] {
                return Err(kind.reject("reply does not begin with HTTP/1."));
            }
        }
    }
    Ok(())
}

/// The first line of a buffer that holds all of it.
pub(super) fn start_line(buf: &[u8]) -> &[u8] {
    &buf[..memchr(b'\r', buf).unwrap_or(buf.len())]
}

fn check_start_line(line: &[u8], kind: Kind) -> Result<(), Rejected> {
    match kind {
        Kind::Request => request::split_line(line).map(drop),
        Kind::Reply => reply::split_line(line).map(drop),
    }
    .map_err(|reason| kind.reject(reason))
}
