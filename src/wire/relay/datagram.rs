//! Datagrams in a byte stream (the wire specification, section 1.4).
//!
//! Form A, for streams with a single peer: length and payload. Form B, for a port that a server opened: the length in the
//! reserved field of a SOCKS5 header, which names the peer. Nothing here knows of sockets or of who may send where.

use super::{EncodeError, RelayAddr, decode_addr, encode_addr};
use crate::wire::Malformed;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Most that a length of two bytes holds.
pub const MAX_LEN: usize = u16::MAX as usize;

/// In place of a SOCKS5 fragment's number: the reserved field holds the payload's length.
const WHOLE: u8 = 0xff;
const LEN: usize = 2;
/// Length and [`WHOLE`].
const HEAD: usize = LEN + 1;

/// Takes one datagram of form A off the front of `buf`; `None`: there is no whole one.
pub fn take(buf: &mut BytesMut) -> Option<Bytes> {
    let len = usize::from(u16::from_be_bytes(*buf.first_chunk()?));
    if buf.len() - LEN < len {
        return None;
    }
    buf.advance(LEN);
    Some(buf.split_to(len).freeze())
}

/// Appends a datagram in form A to `buf`, or nothing.
pub fn put(payload: &[u8], buf: &mut BytesMut) -> Result<(), EncodeError> {
    buf.put_u16(len(payload)?);
    buf.put_slice(payload);
    Ok(())
}

/// Takes one datagram of form B off the front of `buf`, with the peer at its other end; `None`: there is no whole one.
pub fn take_addressed(buf: &mut BytesMut) -> Result<Option<(RelayAddr, Bytes)>, Malformed> {
    let Some(&[high, low, mark]) = buf.first_chunk::<HEAD>() else { return Ok(None) };
    if mark != WHOLE {
        return Err(Malformed("datagram that is a fragment"));
    }
    let (mut rest, behind) = (&buf[HEAD..], buf.len() - HEAD);
    let addr = match decode_addr(&mut rest) {
        Ok(addr) => addr,
        Err(error) if is_unknown(&buf[HEAD..]) => return Err(error),
        Err(_) => return Ok(None),
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if rest.len() < len {
        return Ok(None);
    }
    let head = HEAD + behind - rest.len();
    buf.advance(head);
    Ok(Some((addr, buf.split_to(len).freeze())))
}

/// Appends a datagram in form B to `buf`, or nothing. An empty one does not fit: the reference takes a length of 0 for a
/// payload that ends with the connection.
pub fn put_addressed(peer: &RelayAddr, payload: &[u8], buf: &mut BytesMut) -> Result<(), EncodeError> {
    if payload.is_empty() {
        return Err(EncodeError("an empty datagram"));
    }
    let start = buf.len();
    buf.put_u16(len(payload)?);
    buf.put_u8(WHOLE);
    if let Err(error) = encode_addr(peer, buf) {
        buf.truncate(start);
        return Err(error);
    }
    buf.put_slice(payload);
    Ok(())
}

fn len(payload: &[u8]) -> Result<u16, EncodeError> {
    u16::try_from(payload.len()).map_err(|_| EncodeError("the datagram"))
}

/// Whether an address begins with a type that there is not: no more bytes would help.
fn is_unknown(addr: &[u8]) -> bool {
    addr.first().is_some_and(|kind| !matches!(*kind, super::ATYP_IPV4 | super::ATYP_NAME | super::ATYP_IPV6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::HostPort;
    use proptest::prelude::*;

    fn addr(text: &str) -> RelayAddr {
        RelayAddr::from(&HostPort::parse(text, 0).unwrap())
    }

    fn name() -> HostPort {
        HostPort::parse("a.b:53", 0).unwrap()
    }

    #[test]
    fn datagrams_keep_their_bounds() {
        let mut buf = BytesMut::new();
        let datagrams = [&b""[..], b"one", &[7; MAX_LEN], b"two"];
        datagrams.iter().for_each(|datagram| put(datagram, &mut buf).unwrap());
        assert!(put(&[0; MAX_LEN + 1], &mut buf).is_err());
        let whole = buf.clone();
        for datagram in datagrams {
            assert_eq!(take(&mut buf).unwrap(), datagram);
        }
        assert!(buf.is_empty());
        for (cut, first) in [(0, None), (1, None), (6, Some(Bytes::new()))] {
            assert_eq!(take(&mut BytesMut::from(&whole[..cut])), first);
        }
        assert_eq!(take(&mut BytesMut::from(&b"\0\x03on"[..])), None);
    }

    /// The bytes of the recording 12.
    #[test]
    fn a_peer_is_named_as_the_reference_names_it() {
        let mut buf = BytesMut::new();
        put_addressed(&addr("127.0.0.1:36981"), b"hello", &mut buf).unwrap();
        assert_eq!(&buf[..], b"\0\x05\xff\x01\x7f\0\0\x01\x90\x75hello");
        for cut in 0..buf.len() {
            assert_eq!(take_addressed(&mut buf.clone().split_to(cut)), Ok(None), "{cut}");
        }
        assert_eq!(take_addressed(&mut buf), Ok(Some((addr("127.0.0.1:36981"), "hello".into()))));
        assert!(put_addressed(&addr("a.b:1"), b"", &mut buf).is_err());
        assert!(put_addressed(&addr("a.b:1"), &[0; MAX_LEN + 1], &mut buf).is_err());
        assert!(buf.is_empty());
    }

    #[test]
    fn what_is_no_datagram_is_told_at_once() {
        for bytes in [&b"\0\x05\0"[..], b"\0\x05\xff\x02", b"\0\x05\xff\0"] {
            assert!(take_addressed(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
        let empty = take_addressed(&mut BytesMut::from(&b"\0\0\xff\x01\x7f\0\0\x01\0\x35"[..]));
        assert_eq!(empty, Ok(Some((addr("127.0.0.1:53"), Bytes::new()))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            peer in prop_oneof![any::<std::net::IpAddr>().prop_map(|ip| HostPort::new(ip.into(), 53)), Just(name())],
            payload in prop::collection::vec(any::<u8>(), 1..300),
            tail: Vec<u8>,
        ) {
            let peer = RelayAddr::from(&peer);
            let mut buf = BytesMut::new();
            put_addressed(&peer, &payload, &mut buf).unwrap();
            for cut in 0..buf.len() {
                prop_assert_eq!(take_addressed(&mut buf.clone().split_to(cut)), Ok(None));
            }
            buf.put_slice(&tail);
            prop_assert_eq!(take_addressed(&mut buf), Ok(Some((peer, payload.into()))));
            prop_assert_eq!(&buf[..], &tail[..]);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            drop(take(&mut BytesMut::from(&bytes[..])));
            drop(take_addressed(&mut BytesMut::from(&bytes[..])));
        }
    }
}
