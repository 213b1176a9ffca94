//! The TLS ClientHello, over as many reads and records as it takes (RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3).
//!
//! Nothing is decrypted and nothing is consumed: the reader looks at a growing buffer, remembers how far it came, and
//! tells the server name and the application protocols (ALPN, RFC 7301). Which versions or ciphers are offered is no concern
//! of ours.

use super::Malformed;
use crate::addr::Host;

/// Handshake bytes of one ClientHello. Post-quantum key shares take 2 KiB; without a bound a stranger could make us hold
/// 16 MiB, which the length field allows.
pub const MAX_HELLO: usize = 16 * 1024;

/// Payload of one record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const TYPE_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;

/// What is learnt from a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The `server_name` extension's host name.
    pub server_name: Option<Host>,
    /// The protocols of the `application_layer_protocol_negotiation` extension, in their order; none where its list is broken,
    /// which is for the server to say.
    pub alpn: Vec<Box<str>>,
}

/// Collects the handshake bytes of one ClientHello out of its records.
#[derive(Debug, Default)]
pub struct ClientHelloReader {
    /// Bytes of the input that were used.
    used: usize,
    handshake: Vec<u8>,
}

impl ClientHelloReader {
    /// Looks at the whole input so far, which only ever grows; `None` while the ClientHello is incomplete.
    pub fn read(&mut self, input: &[u8]) -> Result<Option<ClientHello>, Malformed> {
        loop {
            if let Some(hello) = self.complete()? {
                return parse(hello).map(Some);
            }
            let rest = input.get(self.used..).unwrap_or_default();
            if rest.first().is_some_and(|&kind| kind != TYPE_HANDSHAKE) {
                return Err(Malformed("record of another type inside a ClientHello"));
            }
            if rest.get(1).is_some_and(|&major| major != 3) {
                return Err(Malformed("not a TLS record"));
            }
            let [_, _, _, high, low, payload @ ..] = rest else { return Ok(None) };
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            if len == 0 || len > MAX_RECORD {
                return Err(Malformed("record of a forbidden length"));
            }
            let Some(payload) = payload.get(..len) else {
                // The length of the message is known early; one that is too long is not waited for.
                return self.check_length(payload).map(|()| None);
            };
            self.check_length(payload)?;
            self.handshake.extend_from_slice(payload);
            self.used += RECORD_HEADER + len;
        }
    }

    /// Refuses as soon as the handshake header shows another message or one that is too long.
    fn check_length(&self, more: &[u8]) -> Result<(), Malformed> {
        let mut header = self.handshake.iter().chain(more).copied();
        if header.next().is_some_and(|kind| kind != CLIENT_HELLO) {
            return Err(Malformed("handshake does not begin with a ClientHello"));
        }
        if let (Some(a), Some(b), Some(c)) = (header.next(), header.next(), header.next())
            && u32::from_be_bytes([0, a, b, c]) as usize > MAX_HELLO
        {
            return Err(Malformed("ClientHello over 16 KiB"));
        }
        if self.handshake.len() + more.len() > HANDSHAKE_HEADER + MAX_HELLO + MAX_RECORD {
            return Err(Malformed("ClientHello over 16 KiB"));
        }
        Ok(())
    }

    fn complete(&self) -> Result<Option<&[u8]>, Malformed> {
        let [_, a, b, c, body @ ..] = &self.handshake[..] else { return Ok(None) };
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        Ok(body.get(..len))
    }
}

/// The ClientHello at the beginning of handshake bytes that came in no records, which only ever grow; `None` while it is
/// incomplete.
pub fn handshake(bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
    let reader = ClientHelloReader {
        used: 0,
        handshake: bytes.get(..HANDSHAKE_HEADER + MAX_HELLO).unwrap_or(bytes).to_vec(),
    };
    reader.check_length(&[])?;
    reader.complete()?.map(parse).transpose()
}

/// The body of a ClientHello.
fn parse(hello: &[u8]) -> Result<ClientHello, Malformed> {
    let mut rest = hello;
    take(&mut rest, 2 + 32)?;
    let session_id = vector8(&mut rest)?;
    let ciphers = vector16(&mut rest)?;
    let compressions = vector8(&mut rest)?;
    if session_id.len() > 32 || ciphers.is_empty() || ciphers.len() % 2 != 0 || compressions.is_empty() {
        return Err(Malformed("ClientHello with a field of a forbidden length"));
    }
    let (mut server_name, mut alpn) = (None, Vec::new());
    if !rest.is_empty() {
        let mut extensions = vector16(&mut rest)?;
        while !extensions.is_empty() {
            let kind = number16(&mut extensions)?;
            let data = vector16(&mut extensions)?;
            if kind == EXTENSION_SERVER_NAME {
                if server_name.is_some() {
                    return Err(Malformed("two server_name extensions"));
                }
                server_name = Some(parse_server_name(data)?);
            } else if kind == EXTENSION_ALPN {
                alpn = parse_alpn(data).unwrap_or_default();
            }
        }
    }
    if !rest.is_empty() {
        return Err(Malformed("bytes behind the ClientHello's extensions"));
    }
    Ok(ClientHello { server_name, alpn })
}

fn parse_alpn(mut data: &[u8]) -> Result<Vec<Box<str>>, Malformed> {
    let mut list = vector16(&mut data)?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        protocols.push(String::from_utf8_lossy(vector8(&mut list)?).into());
    }
    Ok(protocols)
}

fn parse_server_name(mut data: &[u8]) -> Result<Host, Malformed> {
    let mut list = vector16(&mut data)?;
    let [kind] = take(&mut list, 1)? else { return Err(TRUNCATED) };
    let name = vector16(&mut list)?;
    if !data.is_empty() || !list.is_empty() || *kind != NAME_TYPE_HOST {
        return Err(Malformed("server_name is not exactly one host name"));
    }
    let name = std::str::from_utf8(name).ok().and_then(|name| Host::parse(name).ok());
    // An IP literal is no server name (RFC 6066), and neither is a name with a port: the reference takes the latter, and
    // that lets a stranger end other people's tunnels (section 9.2 of the wire specification).
    name.filter(|host| !host.is_empty() && host.ip().is_none())
        .ok_or(Malformed("server_name is no host name"))
}

const TRUNCATED: Malformed = Malformed("truncated ClientHello");

fn take<'a>(data: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = data.split_at_checked(len).ok_or(TRUNCATED)?;
    *data = tail;
    Ok(head)
}

fn number16(data: &mut &[u8]) -> Result<u16, Malformed> {
    let (head, tail) = data.split_first_chunk().ok_or(TRUNCATED)?;
    *data = tail;
    Ok(u16::from_be_bytes(*head))
}

fn vector8<'a>(data: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (&len, tail) = data.split_first().ok_or(TRUNCATED)?;
    *data = tail;
    take(data, usize::from(len))
}

fn vector16<'a>(data: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = number16(data)?;
    take(data, usize::from(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello's handshake bytes with that name and `padding` bytes of another extension.
    fn hello(name: &[u8], padding: usize) -> Vec<u8> {
        let u16be = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let mut extensions = Vec::new();
        extensions.extend([[0, 21], u16be(padding)].concat());
        extensions.extend(vec![0; padding]);
        extensions.extend([[0, 0], u16be(name.len() + 5), u16be(name.len() + 3)].concat());
        extensions.push(0);
        extensions.extend(u16be(name.len()));
        extensions.extend(name);
        let mut body = vec![3; 34];
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        body.extend(u16be(extensions.len()));
        body.extend(extensions);
        let mut message = vec![1, 0];
        message.extend(u16be(body.len()));
        message.extend(body);
        message
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |chunk: &[u8]| {
            let len = u16::try_from(chunk.len()).unwrap().to_be_bytes();
            [&[22, 3, 1, len[0], len[1]], chunk].concat()
        };
        message.chunks(size).flat_map(record).collect()
    }

    fn name_of(input: &[u8]) -> Result<Option<Option<Host>>, Malformed> {
        Ok(ClientHelloReader::default().read(input)?.map(|hello| hello.server_name))
    }

    #[test]
    fn a_hello_in_many_records_and_reads() {
        let expected = Host::parse("srv-0.local").unwrap();
        for size in [1, 7, 100, 4000] {
            let input = records(&hello(b"SRV-0.local", 2000), size);
            let mut reader = ClientHelloReader::default();
            for cut in 0..input.len() {
                assert_eq!(reader.read(&input[..cut]), Ok(None), "{cut}");
            }
            assert_eq!(reader.read(&input).unwrap().unwrap().server_name, Some(expected.clone()));
            assert_eq!(name_of(&input), Ok(Some(Some(expected.clone()))));
        }
    }

    #[test]
    fn protocols_are_told_in_their_order_and_a_broken_list_tells_none() {
        let read = |extension: &[u8]| {
            let mut message = hello(b"a.b", 0);
            message.extend([&[0, 16, 0, extension.len() as u8], extension].concat());
            let added = extension.len() as u8 + 4;
            // The lengths of message and extensions.
            message[3] += added;
            message[46] += added;
            ClientHelloReader::default().read(&records(&message, 4000)).unwrap().unwrap().alpn
        };
        assert_eq!(read(b"\0\x0c\x02h2\x08http/1.1"), ["h2".into(), "http/1.1".into()]);
        assert_eq!(read(b"\0\x03\x02\xff\xfe"), ["\u{fffd}\u{fffd}".into()]);
        for broken in [&b""[..], b"\0", b"\0\x03\x02h", b"\0\x03\x09h2"] {
            assert!(read(broken).is_empty(), "{broken:?}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for name in ["known.host:abc", "127.0.0.1", "::1", "", "a b", "a\0", "a..b", "é"] {
            assert!(name_of(&records(&hello(name.as_bytes(), 0), 4000)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn too_much_is_refused_before_it_has_come() {
        assert!(name_of(&[22, 3, 1, 0x40, 0x00, 1, 0x00, 0x40, 0x01]).is_err());
        assert!(name_of(&[22, 3, 1, 0x40, 0x01]).is_err());
        assert!(name_of(&[22, 3, 1, 0, 0]).is_err());
        assert!(name_of(&[22, 3, 1, 0, 5, 2]).is_err());
        assert!(name_of(&records(&hello(b"a.b", MAX_HELLO - 200), 4000)).is_ok_and(|name| name.is_some()));
    }

    proptest! {
        #[test]
        fn any_change_is_survived(at in 0usize..200, to: u8, cut in 0usize..200) {
            let mut input = records(&hello(b"srv-0.local", 40), 60);
            if let Some(byte) = input.get_mut(at) {
                *byte = to;
            }
            let whole = name_of(&input);
            let prefix = name_of(&input[..cut.min(input.len())]);
            prop_assert!(prefix == Ok(None) || prefix == whole || prefix.is_err());
        }
    }
}
