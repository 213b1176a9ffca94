//! QUIC Initial packets of a client to its ClientHello (RFC 9000 and 9001; version 2: RFC 9369).
//!
//! Their keys follow from what stands in their headers, so anybody can read them, and only in that sense they are encrypted.
//! A hello with post-quantum key shares takes several packets, whose CRYPTO frames come in any order. Nothing is answered
//! and nothing is changed: the datagrams go on as they came.

mod crypto;

use super::Malformed;
use super::tls::{ClientHello, handshake};
use crypto::Crypto;
use rustls::Side;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Version};
use std::fmt;

const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;
/// A client's first datagram is at least so long (RFC 9000, section 14.1): servers drop shorter ones.
const MIN_DATAGRAM: usize = 1200;
/// The longest connection ID of either version.
const MAX_ID: usize = 20;
/// Long header, and the bit that is always set.
const LONG: u8 = 0xc0;
/// Where the sample for the header's protection begins behind the packet number, and its length.
const SAMPLE: (usize, usize) = (4, 16);

const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;
const CONNECTION_CLOSE: u64 = 0x1c;

/// Reads the datagrams of one client until its ClientHello is there.
pub struct InitialReader {
    version: Version,
    number: u32,
    /// The connection ID that the client has chosen for the server, from which the keys follow.
    id: Vec<u8>,
    keys: DirectionalKeys,
    crypto: Crypto,
}

/// A packet with a long header.
#[derive(Debug)]
struct Packet<'a> {
    version: u32,
    kind: u8,
    id: &'a [u8],
    /// Length of everything before the packet number.
    header: usize,
    /// The whole packet, its protection in place.
    bytes: &'a [u8],
}

impl InitialReader {
    /// A reader for a client whose first datagram is this; `None`: it does not begin with an Initial packet of a version that is
    /// known. The datagram itself is still to be read.
    pub fn begin(datagram: &[u8]) -> Option<Self> {
        if datagram.len() < MIN_DATAGRAM {
            return None;
        }
        let (packet, _) = packet(datagram)?;
        let version = match packet.version {
            VERSION_1 => Version::V1,
            VERSION_2 => Version::V2,
            _ => return None,
        };
        let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
        let keys = suite.keys(packet.id, Side::Server, version).remote;
        let (number, id) = (packet.version, packet.id.to_vec());
        let reader = Self { version, number, id, keys, crypto: Crypto::default() };
        // What only looks like one is somebody else's protocol.
        let is_initial = packet.kind == reader.initial() && reader.open(&packet).is_some();
        is_initial.then_some(reader)
    }

    /// Reads the next datagram, the first one included; `None` while the ClientHello is incomplete. Packets that are none of
    /// this client's Initials are passed over.
    pub fn read(&mut self, datagram: &[u8]) -> Result<Option<ClientHello>, Malformed> {
        let mut rest = datagram;
        while let Some((packet, behind)) = packet(rest) {
            if packet.version == self.number
                && packet.kind == self.initial()
                && packet.id == self.id
                && let Some(payload) = self.open(&packet)
            {
                self.frames(&payload)?;
            }
            rest = behind;
        }
        handshake(self.crypto.beginning())
    }

    /// The number that stands for Initial in a header.
    fn initial(&self) -> u8 {
        match self.version {
            Version::V2 => 1,
            _ => 0,
        }
    }

    /// The frames of a packet; `None`: it is not sealed with the keys of this connection.
    fn open(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let mut bytes = packet.bytes.to_vec();
        let sample_at = packet.header + SAMPLE.0;
        let sample = packet.bytes.get(sample_at..sample_at + SAMPLE.1)?;
        let (header, number) = bytes.split_at_mut(packet.header);
        let first = header.first_mut()?;
        self.keys.header.decrypt_in_place(sample, first, number.get_mut(..4)?).ok()?;
        let len = usize::from(*first & 3) + 1;
        let number = number.iter().take(len).fold(0, |number, byte| number << 8 | u64::from(*byte));
        let mut payload = bytes.split_off(packet.header + len);
        // Numbers begin near 0 and are written whole, as nothing has been acknowledged yet.
        let opened = self.keys.packet.decrypt_in_place(number, &bytes, &mut payload).ok()?.len();
        payload.truncate(opened);
        Some(payload)
    }

    fn frames(&mut self, mut payload: &[u8]) -> Result<(), Malformed> {
        let rest = &mut payload;
        while !rest.is_empty() {
            match varint(rest)? {
                PADDING => *rest = &rest[rest.iter().take_while(|byte| **byte == 0).count()..],
                PING => {}
                kind @ (ACK | ACK_ECN) => ack(rest, kind == ACK_ECN)?,
                CRYPTO => {
                    let offset = varint(rest)?;
                    let len = usize::try_from(varint(rest)?).map_err(|_| TRUNCATED)?;
                    self.crypto.add(offset, take(rest, len)?)?;
                }
                CONNECTION_CLOSE => return Err(Malformed("the client has closed the connection")),
                _ => return Err(Malformed("frame that belongs in no Initial packet")),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for InitialReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitialReader").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The packet at the beginning of `bytes`, and what is behind it; `None`: no long header, or one that is cut.
fn packet(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    if first & LONG != LONG {
        return None;
    }
    let (version, behind) = rest.split_first_chunk()?;
    let version = u32::from_be_bytes(*version);
    rest = behind;
    let id = id(&mut rest)?;
    self::id(&mut rest)?;
    let kind = first >> 4 & 3;
    // Only an Initial has a token.
    if (version, kind) == (VERSION_1, 0) || (version, kind) == (VERSION_2, 1) {
        let len = usize::try_from(varint(&mut rest).ok()?).ok()?;
        take(&mut rest, len).ok()?;
    }
    let len = usize::try_from(varint(&mut rest).ok()?).ok()?;
    let header = bytes.len() - rest.len();
    let end = header.checked_add(len)?;
    let (bytes, behind) = bytes.split_at_checked(end)?;
    Some((Packet { version, kind, id, header, bytes }, behind))
}

fn id<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&len, behind) = rest.split_first()?;
    *rest = behind;
    take(rest, usize::from(len)).ok().filter(|id| id.len() <= MAX_ID)
}

fn ack(rest: &mut &[u8], ecn: bool) -> Result<(), Malformed> {
    let (_largest, _delay) = (varint(rest)?, varint(rest)?);
    let ranges = varint(rest)?;
    varint(rest)?;
    // Each has bytes of its own: more than there are end the loop.
    for _ in 0..ranges {
        varint(rest)?;
        varint(rest)?;
    }
    for _ in 0..if ecn { 3 } else { 0 } {
        varint(rest)?;
    }
    Ok(())
}

const TRUNCATED: Malformed = Malformed("truncated QUIC frame");

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = rest.split_at_checked(len).ok_or(TRUNCATED)?;
    *rest = tail;
    Ok(head)
}

/// A number of 1, 2, 4 or 8 bytes (RFC 9000, section 16).
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let len = 1 << (rest.first().ok_or(TRUNCATED)? >> 6);
    let bytes = take(rest, len)?;
    let first = u64::from(bytes[0] & 0x3f);
    Ok(bytes[1..].iter().fold(first, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
