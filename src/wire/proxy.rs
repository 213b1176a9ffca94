//! The PROXY protocol, versions 1 and 2: who is at the other end of a connection that somebody in between has passed on
//! (haproxy's proxy-protocol.txt).

use super::Malformed;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;
/// Addresses and what else version 2 has to say; proxies send some hundred bytes at most.
const MAX_BODY: usize = 4096;
/// Signature, command, family and length.
const HEAD: usize = 16;

/// Which of the two is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What stands at the beginning of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No header: the bytes are the visitor's own.
    Nothing,
    /// A header of so many bytes; without a source where the proxy speaks for itself.
    Header {
        /// Who connected to the proxy.
        source: Option<SocketAddr>,
        /// How long the header is.
        len: usize,
    },
}

/// Looks for a header. `None` while more bytes are needed to tell.
pub fn decode(bytes: &[u8]) -> Result<Option<Found>, Malformed> {
    let begins = |signature: &[u8]| bytes.iter().zip(signature).all(|(a, b)| a == b);
    if begins(SIGNATURE_V1) && bytes.len() >= SIGNATURE_V1.len() {
        return line(bytes);
    }
    if begins(SIGNATURE_V2) && bytes.len() >= SIGNATURE_V2.len() {
        return binary(bytes);
    }
    let may_become = begins(SIGNATURE_V1) || begins(SIGNATURE_V2);
    Ok(if may_become { None } else { Some(Found::Nothing) })
}

fn line(bytes: &[u8]) -> Result<Option<Found>, Malformed> {
    const BAD: Malformed =
        Malformed("PROXY line that does not say TCP4 or TCP6, two addresses and two ports");
    let Some(end) = bytes.iter().take(MAX_LINE).position(|b| *b == b'\n') else {
        return if bytes.len() < MAX_LINE { Ok(None) } else { Err(Malformed("PROXY line without an end")) };
    };
    let text =
        std::str::from_utf8(&bytes[SIGNATURE_V1.len()..end]).ok().and_then(|text| text.strip_suffix('\r'));
    let parts: Vec<_> = text.ok_or(BAD)?.split(' ').collect();
    let source = match parts[..] {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), source, destination, port, destination_port] => {
            let addr = |addr: &str, port: &str| {
                let ip: IpAddr = addr.parse().ok()?;
                let port: u16 = port.parse().ok()?;
                (ip.is_ipv4() == (family == "TCP4")).then(|| SocketAddr::new(ip, port))
            };
            addr(destination, destination_port).ok_or(BAD)?;
            Some(addr(source, port).ok_or(BAD)?)
        }
        _ => return Err(BAD),
    };
    Ok(Some(Found::Header { source, len: end + 1 }))
}

fn binary(bytes: &[u8]) -> Result<Option<Found>, Malformed> {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let Some(head) = bytes.get(..HEAD) else { return Ok(None) };
    let (command, family) = (head[12], head[13]);
    let len = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if len > MAX_BODY {
        return Err(Malformed("PROXY header that is too long"));
    }
    let Some(mut body) = bytes.get(HEAD..HEAD + len) else { return Ok(None) };
    let source = match (command, family >> 4) {
        (LOCAL, _) | (PROXY, 0 | 3) => None,
        (PROXY, 1) if len >= 12 => {
            let ip = Ipv4Addr::from(body.get_u32());
            body.advance(4);
            Some(SocketAddr::new(ip.into(), body.get_u16()))
        }
        (PROXY, 2) if len >= 36 => {
            let ip = Ipv6Addr::from(body.get_u128());
            body.advance(16);
            Some(SocketAddr::new(ip.into(), body.get_u16()))
        }
        _ => return Err(Malformed("PROXY header of another version, or without its addresses")),
    };
    Ok(Some(Found::Header { source, len: HEAD + len }))
}

/// A header for a connection between these two. Of different families, the IPv4 address is written as IPv6 has it.
pub fn encode(version: Version, source: SocketAddr, destination: SocketAddr) -> Bytes {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Addresses::V4(from, to),
        (from, to) => Addresses::V6(mapped(from), mapped(to)),
    };
    let (from_port, to_port) = (source.port(), destination.port());
    if version == Version::V1 {
        return match addresses {
            Addresses::V4(from, to) => format!("PROXY TCP4 {from} {to} {from_port} {to_port}\r\n"),
            Addresses::V6(from, to) => format!("PROXY TCP6 {from} {to} {from_port} {to_port}\r\n"),
        }
        .into();
    }
    let mut header = BytesMut::from(SIGNATURE_V2);
    header.put_u8(0x21);
    match addresses {
        Addresses::V4(from, to) => {
            header.put_slice(&[0x11, 0, 12]);
            header.put_slice(&from.octets());
            header.put_slice(&to.octets());
        }
        Addresses::V6(from, to) => {
            header.put_slice(&[0x21, 0, 36]);
            header.put_slice(&from.octets());
            header.put_slice(&to.octets());
        }
    }
    header.put_u16(from_port);
    header.put_u16(to_port);
    header.freeze()
}

enum Addresses {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn header(text: &str, source: Option<&str>) {
        let found = Found::Header { source: source.map(addr), len: text.len() };
        assert_eq!(decode(text.as_bytes()), Ok(Some(found)), "{text:?}");
    }

    #[test]
    fn lines_say_who_connected() {
        header("PROXY TCP4 192.0.2.1 198.51.100.2 65535 443\r\n", Some("192.0.2.1:65535"));
        header("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", Some("[2001:db8::1]:1"));
        header("PROXY UNKNOWN\r\n", None);
        header("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
    }

    #[test]
    fn what_is_no_header_is_left_alone_and_a_bad_one_is_refused() {
        for text in ["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\n", "\x16\x03\x01", "POST / ", "\r\n\r\nGET"]
        {
            assert_eq!(decode(text.as_bytes()), Ok(Some(Found::Nothing)), "{text:?}");
        }
        for text in
            ["", "P", "PROXY", "\r\n\r\n", "PROXY TCP4 1.2.3.4", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c1234"]
        {
            assert_eq!(decode(text.as_bytes()), Ok(None), "{text:?}");
        }
        for text in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.2 1 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 443\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 443\r\n",
            "PROXY TCP4 192.0.2.1\r\n",
            "\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x03abc",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x03abc",
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(decode(&[b"PROXY ".as_slice(), &[b'x'; MAX_LINE]].concat()).is_err());
    }

    #[test]
    fn two_families_become_one() {
        let line = encode(Version::V1, addr("192.0.2.1:1"), addr("[2001:db8::2]:2"));
        assert_eq!(line, "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
        let line = encode(Version::V1, addr("[::ffff:192.0.2.1]:1"), addr("192.0.2.2:2"));
        assert_eq!(line, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr, v2: bool, rest: Vec<u8>) {
            let version = if v2 { Version::V2 } else { Version::V1 };
            let header = encode(version, source, destination);
            for cut in 0..header.len() {
                prop_assert_eq!(decode(&header[..cut]), Ok(None));
            }
            let Ok(Some(Found::Header { source: Some(found), len })) = decode(&[&header[..], &rest].concat()) else {
                return Err(TestCaseError::fail("no header"));
            };
            prop_assert_eq!(len, header.len());
            prop_assert_eq!((found.ip().to_canonical(), found.port()), (source.ip().to_canonical(), source.port()));
        }

        #[test]
        fn hostile_bytes_end_in_an_answer(bytes: Vec<u8>, v2: bool) {
            let signature = if v2 { SIGNATURE_V2 } else { SIGNATURE_V1 };
            drop(decode(&[signature, &bytes].concat()));
        }
    }
}
