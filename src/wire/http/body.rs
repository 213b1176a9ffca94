//! Follows a body as its bytes pass by: counts lengths, reads chunk lines, checks trailers, and never changes a byte.
//!
//! Data is skipped in one step whatever its size, so are the digits of a chunk's size and a line end that is there as a
//! whole; the rest of chunk lines and trailers is looked at byte by byte. Nothing of them is kept but a few counters, so a
//! body needs no memory.

use super::{Framing, Rejected, is_token, is_value};
use bytes::{Buf, Bytes, BytesMut};

/// Hex digits of a chunk size; more could overflow a counter of ours or, cut short, of another parser.
const MAX_SIZE_DIGITS: u8 = 16;
/// Bytes of a chunk line, extensions included; without it one line could keep a connection busy for ever at no progress.
const MAX_CHUNK_LINE: u16 = 256;
/// Bytes of all trailers together; without it a body could end in a stream of fields that never ends.
const MAX_TRAILER_BYTES: u16 = 16 * 1024;
/// Number of trailers; each costs a receiver more memory than its bytes.
const MAX_TRAILERS: u8 = 64;

const NO_LINE_END: &str = "line end or chunk end other than CRLF";

/// Fields that frame, route or end a message and so have to come before its body (RFC 9110 6.5.1).
const NO_TRAILERS: [&[u8]; 5] = [b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade"];
/// One byte more than the longest of them.
const NAME_KEPT: usize = 18;

/// Follows one body as its bytes pass by, unchanged.
#[derive(Debug, Clone)]
pub struct Body {
    state: State,
    /// Size of the chunk whose line is being read, once its digits are.
    size: u64,
    /// Bytes so far of the chunk line, or of all trailers.
    line: u16,
    trailers: u8,
    name: Name,
}

/// Where in the body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    Close,
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        quoted: bool,
    },
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    LineStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

/// The beginning of a trailer's name: enough to tell the forbidden ones.
#[derive(Debug, Clone, Copy)]
struct Name {
    bytes: [u8; NAME_KEPT],
    len: usize,
}

impl Body {
    /// The state before the first byte.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::Close => State::Close,
        };
        Self { state, size: 0, line: 0, trailers: 0, name: Name { bytes: [0; NAME_KEPT], len: 0 } }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Says how many bytes at the front of `bytes` belong to the body and may be passed on (all of them unless the body
    /// ends inside). After an error the state means nothing any more.
    ///
    /// The status of the error is 400; to the visitor a reply's body can only be cut off.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Rejected> {
        let mut used = 0;
        while used < bytes.len() && !self.is_done() {
            match self.opaque() {
                0 => used += self.step(&bytes[used..])?,
                opaque => {
                    let rest = (bytes.len() - used) as u64;
                    let skipped = opaque.min(rest);
                    self.skip(skipped);
                    // No more than the length of a slice.
                    used += skipped as usize;
                }
            }
        }
        Ok(used)
    }

    /// How many raw bytes certainly belong to the body whatever they are: the rest of a Length, of a chunk, or `u64::MAX`
    /// for Close.
    pub fn opaque(&self) -> u64 {
        match self.state {
            State::Length(n) | State::Data(n) => n,
            State::Close => u64::MAX,
            _ => 0,
        }
    }

    /// Notes that `n` of the [`opaque`](Self::opaque) bytes were passed on without being seen (spliced).
    pub fn skip(&mut self, n: u64) {
        debug_assert!(n <= self.opaque(), "only opaque bytes can be skipped");
        self.state = match self.state {
            State::Length(left) if left <= n => State::Done,
            State::Length(left) => State::Length(left - n),
            State::Data(left) if left <= n => State::DataCr,
            State::Data(left) => State::Data(left - n),
            other => other,
        };
    }

    /// Takes the next piece of data off the front of `buf`, and what stands before it around chunks; `None` where there is none
    /// yet, or no more. `trailer` is given each byte of the trailers' lines.
    pub fn take_data(
        &mut self,
        buf: &mut BytesMut,
        mut trailer: impl FnMut(u8),
    ) -> Result<Option<Bytes>, Rejected> {
        while !buf.is_empty() && !self.is_done() {
            match self.opaque() {
                0 => {
                    let n = self.step(buf)?;
                    if self.is_in_trailers() {
                        buf[..n].iter().copied().for_each(&mut trailer);
                    }
                    buf.advance(n);
                }
                opaque => {
                    let n = buf.len().min(usize::try_from(opaque).unwrap_or(usize::MAX));
                    self.skip(n as u64);
                    return Ok(Some(buf.split_to(n).freeze()));
                }
            }
        }
        Ok(None)
    }

    /// Whether the bytes of the step before were of a trailer's line.
    fn is_in_trailers(&self) -> bool {
        matches!(self.state, State::TrailerName | State::TrailerValue | State::TrailerLf)
            || (self.state == State::LineStart && self.trailers > 0)
    }

    /// The connection ended: fine for Close, or when done.
    pub fn end(&mut self) -> Result<(), Rejected> {
        match self.state {
            State::Done => Ok(()),
            State::Close => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(malformed("connection ended inside the body")),
        }
    }

    /// One step over what stands around the data of chunks, at the front of `bytes`, which are not empty; says how many
    /// bytes that was.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Rejected> {
        let size = State::Size { value: 0, digits: 0 };
        match self.state {
            State::Size { value, digits } => self.chunk_size(value, digits, bytes),
            State::Extension { quoted } => self.extension(quoted, bytes),
            State::SizeLf => self.line_feed(bytes, self.behind_size()),
            State::DataCr => self.line_end(bytes, State::DataLf, size),
            State::DataLf => self.line_feed(bytes, size),
            State::LineStart | State::TrailerName | State::TrailerValue => {
                self.state = self.trailer(bytes[0])?;
                Ok(1)
            }
            State::TrailerLf => self.line_feed(bytes, State::LineStart),
            State::LastLf => self.line_feed(bytes, State::Done),
            State::Done | State::Length(_) | State::Close | State::Data(_) => Ok(0),
        }
    }

    /// What a chunk line is followed by.
    fn behind_size(&self) -> State {
        if self.size == 0 { State::LineStart } else { State::Data(self.size) }
    }

    /// Digits of a chunk's size as far as they are there, and the end of the line right behind them.
    fn chunk_size(&mut self, mut value: u64, mut digits: u8, bytes: &[u8]) -> Result<usize, Rejected> {
        for (at, &byte) in bytes.iter().enumerate() {
            match char::from(byte).to_digit(16) {
                Some(digit) if digits < MAX_SIZE_DIGITS => {
                    value = value << 4 | u64::from(digit);
                    digits += 1;
                }
                None if digits > 0 && byte == b'\r' => {
                    self.size = value;
                    return Ok(at + self.line_end(&bytes[at..], State::SizeLf, self.behind_size())?);
                }
                None if digits > 0 && byte == b';' => {
                    self.size = value;
                    self.line = u16::from(digits) + 1;
                    self.state = State::Extension { quoted: false };
                    return Ok(at + 1);
                }
                _ => return Err(malformed("malformed chunk size")),
            }
        }
        self.state = State::Size { value, digits };
        Ok(bytes.len())
    }

    /// One byte of a chunk's extensions. White space is taken inside a quoted value only, and a quote must end on its line: a
    /// reader that knows quotes and one that does not find the same end.
    fn extension(&mut self, quoted: bool, bytes: &[u8]) -> Result<usize, Rejected> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE {
            return Err(malformed("chunk line too long"));
        }
        self.state = match (quoted, bytes[0]) {
            (false, b'\r') => {
                self.line = 0;
                State::SizeLf
            }
            (_, b'"') => State::Extension { quoted: !quoted },
            (true, b' ' | b'\t') => self.state,
            (_, b'!'..=b'~') if bytes[0] != b'\\' => self.state,
            _ => return Err(malformed("malformed chunk extension")),
        };
        Ok(1)
    }

    /// The end of a line, or its first half where no more is there.
    fn line_end(&mut self, bytes: &[u8], half: State, next: State) -> Result<usize, Rejected> {
        let (n, state) = match bytes {
            [b'\r', b'\n', ..] => (2, next),
            [b'\r'] => (1, half),
            _ => return Err(malformed(NO_LINE_END)),
        };
        self.state = state;
        Ok(n)
    }

    /// The second half of a line's end.
    fn line_feed(&mut self, bytes: &[u8], next: State) -> Result<usize, Rejected> {
        if bytes[0] != b'\n' {
            return Err(malformed(NO_LINE_END));
        }
        self.state = next;
        Ok(1)
    }

    /// A line behind the last chunk, held to the rules of header fields.
    fn trailer(&mut self, byte: u8) -> Result<State, Rejected> {
        self.line += 1;
        if self.line > MAX_TRAILER_BYTES {
            return Err(malformed("trailers too large"));
        }
        match (self.state, byte) {
            (State::LineStart, b'\r') => Ok(State::LastLf),
            (State::LineStart, _) if is_token(byte) => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS {
                    return Err(malformed("too many trailers"));
                }
                self.name.len = 0;
                self.name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if self.name.is_forbidden() => {
                Err(malformed("trailer that frames or routes the message"))
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token(byte) => {
                self.name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_value(byte) => Ok(State::TrailerValue),
            _ => Err(malformed("malformed trailer")),
        }
    }
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    fn is_forbidden(&self) -> bool {
        let name = &self.bytes[..self.len];
        NO_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
    }
}

fn malformed(reason: &'static str) -> Rejected {
    Rejected { status: 400, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Chunked bodies, most of them with something changed.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![4 => Just(""), 1 => Just(";a=b"), 1 => Just(";a=\"b c\"")];
        let chunk = (1_usize..300, line, any::<bool>()).prop_map(|(size, extension, zeros)| {
            let zeros = if zeros { "00" } else { "" };
            format!("{zeros}{size:X}{extension}\r\n{}\r\n", "x".repeat(size))
        });
        let trailers = prop_oneof![Just(""), Just("A: b\r\n"), Just("A: b\r\nC:\r\n")];
        let text = (prop::collection::vec(chunk, 0..6), trailers).prop_map(|(chunks, trailers)| {
            format!("{}0\r\n{trailers}\r\nnext", chunks.concat()).into_bytes()
        });
        let change = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';'), any::<u8>()];
        (text, prop::option::of((any::<prop::sample::Index>(), change))).prop_map(|(mut text, change)| {
            if let Some((at, byte)) = change {
                *at.get_mut(&mut text) = byte;
            }
            text
        })
    }

    /// What is used of the pieces, whether that is all, and the data and the trailers in it; `None` when they are refused.
    fn pass<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(usize, bool, Vec<u8>, Vec<u8>)> {
        let (mut body, mut taken) = (Body::new(Framing::Chunked), Body::new(Framing::Chunked));
        let (mut used, mut data, mut trailers) = (0, Vec::new(), Vec::new());
        let mut buf = BytesMut::new();
        for piece in pieces {
            used += body.advance(piece).ok()?;
            buf.extend_from_slice(piece);
            while let Some(piece) = taken.take_data(&mut buf, |byte| trailers.push(byte)).ok()? {
                data.extend_from_slice(&piece);
            }
        }
        assert_eq!(taken.is_done(), body.is_done());
        Some((used, body.is_done(), data, trailers))
    }

    proptest! {
        #[test]
        fn no_split_of_the_bytes_makes_a_difference(text in text(), cuts in prop::collection::vec(1_usize..40, 1..20)) {
            let whole = pass([&text[..]].into_iter());
            let (mut rest, mut cuts) = (&text[..], cuts.iter().cycle());
            let split = std::iter::from_fn(|| {
                let (piece, others) = rest.split_at((*cuts.next()?).min(rest.len()));
                rest = others;
                (!piece.is_empty()).then_some(piece)
            });
            prop_assert_eq!(&pass(split), &whole);
            prop_assert_eq!(pass(text.chunks(1)), whole);
        }
    }
}
