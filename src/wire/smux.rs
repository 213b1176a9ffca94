//! Frames of smux, versions 1 and 2 (the wire specification, section 2.2).
//!
//! [`Decoder`] takes frames off the front of a buffer and hands payload out in whatever pieces have arrived, so that
//! nothing waits for, or is copied into, a whole frame. What frames mean (streams, windows, time) is `mux`'s business.

use super::Malformed;
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a frame before its payload: VER, CMD, LENGTH, STREAMID; the numbers are little-endian.
pub const HEADER_LEN: usize = 8;
/// Bytes of UPD's payload: CONSUMED, WINDOW.
pub const UPDATE_LEN: usize = 8;
/// Largest payload that LENGTH can name.
pub const MAX_PAYLOAD: usize = u16::MAX as usize;
/// What either side of a version 2 stream may send before the first UPD.
pub const INITIAL_WINDOW: u32 = 262_144;

/// The version both ends were configured with; there is no negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// No windows.
    V1 = 1,
    /// A window per stream and direction.
    V2 = 2,
}

/// What a frame does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Opens a stream.
    Syn = 0,
    /// Ends a stream in both directions.
    Fin = 1,
    /// Carries data.
    Psh = 2,
    /// Keeps the session alive.
    Nop = 3,
    /// Tells how much was read and how much may be sent (version 2).
    Upd = 4,
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// CMD.
    pub command: Command,
    /// LENGTH: payload bytes that follow.
    pub length: u16,
    /// STREAMID.
    pub id: u32,
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` when fewer than [`HEADER_LEN`] bytes are there.
    pub fn decode(version: Version, bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(&[ver, cmd, l0, l1, i0, i1, i2, i3]) = bytes.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        if ver != version as u8 {
            return Err(Malformed("smux frame of another version"));
        }
        let command = match cmd {
            0 => Command::Syn,
            1 => Command::Fin,
            2 => Command::Psh,
            3 => Command::Nop,
            4 if version == Version::V2 => Command::Upd,
            _ => return Err(Malformed("smux frame with an unknown command")),
        };
        let length = u16::from_le_bytes([l0, l1]);
        match command {
            Command::Psh => {}
            Command::Upd if usize::from(length) != UPDATE_LEN => {
                return Err(Malformed("smux window update whose length is not 8"));
            }
            Command::Upd => {}
            // The reference does not skip such a payload: the two ends would disagree about where the next frame begins.
            _ if length != 0 => {
                return Err(Malformed("smux frame with a payload that its command does not have"));
            }
            _ => {}
        }
        Ok(Some(Self { command, length, id: u32::from_le_bytes([i0, i1, i2, i3]) }))
    }

    /// The header as sent.
    pub fn encode(self, version: Version) -> [u8; HEADER_LEN] {
        let [l0, l1] = self.length.to_le_bytes();
        let [i0, i1, i2, i3] = self.id.to_le_bytes();
        [version as u8, self.command as u8, l0, l1, i0, i1, i2, i3]
    }
}

/// UPD's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// Bytes of the stream read so far, modulo 2^32.
    pub consumed: u32,
    /// How many bytes beyond `consumed` may be sent.
    pub window: u32,
}

impl Update {
    /// The payload as sent.
    pub fn encode(self) -> [u8; UPDATE_LEN] {
        let [c0, c1, c2, c3] = self.consumed.to_le_bytes();
        let [w0, w1, w2, w3] = self.window.to_le_bytes();
        [c0, c1, c2, c3, w0, w1, w2, w3]
    }
}

/// What a [`Decoder`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A stream is opened.
    Syn(u32),
    /// A stream is ended.
    Fin(u32),
    /// Some payload of a stream: a whole frame's or a part of it, never empty.
    Data(u32, Bytes),
    /// Nothing but a sign of life.
    Nop,
    /// A window update.
    Update(u32, Update),
}

/// Where in the sequence of frames the reading is.
#[derive(Debug)]
pub struct Decoder {
    version: Version,
    /// Stream and length of the payload that is being read.
    payload: Option<(u32, usize)>,
}

impl Decoder {
    /// At the start of a session.
    pub fn new(version: Version) -> Self {
        Self { version, payload: None }
    }

    /// Takes the next item off the front of `buf`; `None` when more bytes are needed. Data shares `buf`'s memory.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Item>, Malformed> {
        loop {
            if let Some((id, left)) = self.payload {
                let n = left.min(buf.len());
                if n == 0 {
                    return Ok(None);
                }
                self.payload = (n < left).then_some((id, left - n));
                return Ok(Some(Item::Data(id, buf.split_to(n).freeze())));
            }
            let Some(header) = Header::decode(self.version, buf)? else { return Ok(None) };
            let item = match header.command {
                Command::Syn => Item::Syn(header.id),
                Command::Fin => Item::Fin(header.id),
                Command::Nop => Item::Nop,
                Command::Psh => {
                    buf.advance(HEADER_LEN);
                    if header.length != 0 {
                        self.payload = Some((header.id, usize::from(header.length)));
                    }
                    continue;
                }
                Command::Upd => {
                    let Some(&[c0, c1, c2, c3, w0, w1, w2, w3]) =
                        buf[HEADER_LEN..].first_chunk::<UPDATE_LEN>()
                    else {
                        return Ok(None);
                    };
                    buf.advance(UPDATE_LEN);
                    let consumed = u32::from_le_bytes([c0, c1, c2, c3]);
                    let window = u32::from_le_bytes([w0, w1, w2, w3]);
                    Item::Update(header.id, Update { consumed, window })
                }
            };
            buf.advance(HEADER_LEN);
            return Ok(Some(item));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version() -> impl Strategy<Value = Version> {
        prop_oneof![Just(Version::V1), Just(Version::V2)]
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            any::<u32>().prop_map(Item::Syn),
            any::<u32>().prop_map(Item::Fin),
            Just(Item::Nop),
            (any::<u32>(), any::<u32>(), any::<u32>())
                .prop_map(|(id, consumed, window)| Item::Update(id, Update { consumed, window })),
            (any::<u32>(), prop::collection::vec(any::<u8>(), 1..300))
                .prop_map(|(id, d)| Item::Data(id, d.into())),
        ]
    }

    fn encode(version: Version, item: &Item, out: &mut BytesMut) {
        let head = |command, length: usize, id| {
            Header { command, length: u16::try_from(length).unwrap(), id }.encode(version)
        };
        match item {
            Item::Syn(id) => out.extend_from_slice(&head(Command::Syn, 0, *id)),
            Item::Fin(id) => out.extend_from_slice(&head(Command::Fin, 0, *id)),
            Item::Nop => out.extend_from_slice(&head(Command::Nop, 0, 0)),
            Item::Update(id, update) => {
                out.extend_from_slice(&head(Command::Upd, UPDATE_LEN, *id));
                out.extend_from_slice(&update.encode());
            }
            Item::Data(id, data) => {
                out.extend_from_slice(&head(Command::Psh, data.len(), *id));
                out.extend_from_slice(data);
            }
        }
    }

    proptest! {
        #[test]
        fn items_survive_any_segmentation(
            version in version(),
            items in prop::collection::vec(item(), 0..12),
            cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let items: Vec<_> = items
                .into_iter()
                .filter(|i| version == Version::V2 || !matches!(i, Item::Update(..)))
                .collect();
            let mut wire = BytesMut::new();
            for item in &items {
                encode(version, item, &mut wire);
            }
            let mut decoder = Decoder::new(version);
            let mut buf = BytesMut::new();
            let mut got: Vec<Item> = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut whole = true;
            while !wire.is_empty() {
                buf.extend_from_slice(&wire.split_to((*cuts.next().unwrap()).min(wire.len())));
                while let Some(item) = decoder.next(&mut buf).unwrap() {
                    match (got.last_mut(), item) {
                        (Some(Item::Data(id, first)), Item::Data(other, rest)) if !whole && *id == other => {
                            *first = [first.as_ref(), rest.as_ref()].concat().into();
                        }
                        (_, item) => got.push(item),
                    }
                    whole = decoder.payload.is_none();
                }
            }
            prop_assert!(buf.is_empty());
            prop_assert_eq!(got, items);
        }

        #[test]
        fn arbitrary_bytes_never_panic(version in version(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(version);
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.next(&mut buf) {}
        }
    }

    #[test]
    fn refuses_what_the_protocol_does_not_have() {
        let bad: [(Version, [u8; 8]); 6] = [
            (Version::V1, [2, 3, 0, 0, 0, 0, 0, 0]),
            (Version::V2, [1, 3, 0, 0, 0, 0, 0, 0]),
            (Version::V2, [2, 5, 0, 0, 0, 0, 0, 0]),
            (Version::V1, [1, 4, 8, 0, 3, 0, 0, 0]),
            (Version::V2, [2, 4, 9, 0, 3, 0, 0, 0]),
            (Version::V2, [2, 0, 1, 0, 3, 0, 0, 0]),
        ];
        for (version, bytes) in bad {
            assert!(Header::decode(version, &bytes).is_err(), "{version:?} {bytes:?}");
        }
    }

    #[test]
    fn every_shorter_prefix_needs_more() {
        let mut wire = BytesMut::new();
        encode(Version::V2, &Item::Update(7, Update { consumed: 1, window: 2 }), &mut wire);
        for n in 0..wire.len() {
            let mut buf = BytesMut::from(&wire[..n]);
            assert_eq!(Decoder::new(Version::V2).next(&mut buf), Ok(None), "prefix of {n}");
            assert_eq!(buf.len(), n, "an unfinished frame stays in the buffer");
        }
    }
}
