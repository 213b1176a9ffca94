//! Follows a body as its bytes pass by: counts lengths, reads chunk lines, checks trailers, and never changes a byte.
//!
//! Data is skipped in one step whatever its size; only chunk lines and trailers are looked at byte by byte, and
//! nothing of them is kept but a few counters, so a body needs no memory.

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
                0 => {
                    self.step(bytes[used])?;
                    used += 1;
                }
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
                    let byte = buf.get_u8();
                    self.step(byte)?;
                    if self.is_in_trailers() {
                        trailer(byte);
                    }
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

    /// Whether the byte before was one of a trailer's line.
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

    /// One byte of what stands around the data of chunks.
    fn step(&mut self, byte: u8) -> Result<(), Rejected> {
        self.state = match self.state {
            State::Size { .. } | State::Extension { .. } => self.chunk_line(byte)?,
            State::LineStart | State::TrailerName | State::TrailerValue => self.trailer(byte)?,
            State::SizeLf if self.size == 0 => expect(byte, b'\n', State::LineStart)?,
            State::SizeLf => expect(byte, b'\n', State::Data(self.size))?,
            State::DataCr => expect(byte, b'\r', State::DataLf)?,
            State::DataLf => expect(byte, b'\n', State::Size { value: 0, digits: 0 })?,
            State::TrailerLf => expect(byte, b'\n', State::LineStart)?,
            State::LastLf => expect(byte, b'\n', State::Done)?,
            unseen @ (State::Done | State::Length(_) | State::Close | State::Data(_)) => unseen,
        };
        Ok(())
    }

    /// Size and extensions of a chunk. White space is taken inside a quoted value only, and a quote must end on its
    /// line: a reader that knows quotes and one that does not find the same end.
    fn chunk_line(&mut self, byte: u8) -> Result<State, Rejected> {
        self.line += 1;
        if self.line > MAX_CHUNK_LINE {
            return Err(malformed("chunk line too long"));
        }
        match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Size { value, digits: 1.. }, b'\r') => {
                self.line = 0;
                self.size = value;
                Ok(State::SizeLf)
            }
            (State::Size { value, digits: 1.. }, b';') => {
                self.size = value;
                Ok(State::Extension { quoted: false })
            }
            (State::Size { .. }, _) => Err(malformed("malformed chunk size")),
            (State::Extension { quoted: false }, b'\r') => {
                self.line = 0;
                Ok(State::SizeLf)
            }
            (State::Extension { quoted }, b'"') => Ok(State::Extension { quoted: !quoted }),
            (State::Extension { quoted: true }, b' ' | b'\t') => Ok(self.state),
            (State::Extension { .. }, b'!'..=b'~') if byte != b'\\' => Ok(self.state),
            _ => Err(malformed("malformed chunk extension")),
        }
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

fn expect(byte: u8, wanted: u8, next: State) -> Result<State, Rejected> {
    if byte == wanted { Ok(next) } else { Err(malformed("line end or chunk end other than CRLF")) }
}

fn malformed(reason: &'static str) -> Rejected {
    Rejected { status: 400, reason }
}
