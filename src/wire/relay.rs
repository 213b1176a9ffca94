//! GOST's relay protocol: requests, responses and their features (the wire specification, section 1).
//!
//! Big-endian, one message of at most 65,539 bytes, features as type, length, data. Decoding is strict about lengths,
//! skips feature types it does not know, and never allocates more than the message itself holds. What a message means to
//! a tunnel or relay handler is decided in `tunnel`.

pub mod datagram;

use super::Malformed;
use crate::addr::{Host, HostPort};
use bytes::{BufMut, BytesMut};
use md5::{Digest, Md5};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use uuid::Uuid;

const VERSION: u8 = 0x01;
/// Flag on a command: UDP, beside the Network feature.
const FLAG_UDP: u8 = 0x80;
const HEADER_LEN: usize = 4;
/// Metadata pairs that a receiver looks at; the rest is ignored (section 1.2).
const MAX_PAIRS: usize = 20;
/// Features in one message. Without a bound, 64 KiB of empty unknown features cost a stranger nothing and us 21,845 turns.
const MAX_FEATURES: usize = 64;

const TYPE_AUTH: u8 = 0x01;
const TYPE_ADDR: u8 = 0x02;
const TYPE_TUNNEL: u8 = 0x03;
const TYPE_NETWORK: u8 = 0x04;
const TYPE_METADATA: u8 = 0x05;

const ATYP_IPV4: u8 = 1;
const ATYP_NAME: u8 = 3;
const ATYP_IPV6: u8 = 4;

/// The low nibble of a request's second byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// 1: reach an address.
    Connect,
    /// 2: be reached.
    Bind,
    /// Anything else, which the handlers answer with status 1.
    Other(u8),
}

/// The second byte of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 0
    Ok,
    /// 1
    BadRequest,
    /// 2
    Unauthorized,
    /// 3
    Forbidden,
    /// 4
    Timeout,
    /// 5
    ServiceUnavailable,
    /// 6
    HostUnreachable,
    /// 7
    NetworkUnreachable,
    /// 8
    InternalError,
    /// A status that the specification does not name.
    Other(u8),
}

impl From<u8> for Status {
    fn from(byte: u8) -> Self {
        match byte {
            0 => Self::Ok,
            1 => Self::BadRequest,
            2 => Self::Unauthorized,
            3 => Self::Forbidden,
            4 => Self::Timeout,
            5 => Self::ServiceUnavailable,
            6 => Self::HostUnreachable,
            7 => Self::NetworkUnreachable,
            8 => Self::InternalError,
            other => Self::Other(other),
        }
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => 0,
            Status::BadRequest => 1,
            Status::Unauthorized => 2,
            Status::Forbidden => 3,
            Status::Timeout => 4,
            Status::ServiceUnavailable => 5,
            Status::HostUnreachable => 6,
            Status::NetworkUnreachable => 7,
            Status::InternalError => 8,
            Status::Other(other) => other,
        }
    }
}

/// A host as the peer wrote it, with a port; the text of a name is checked only by [`to_host_port`](Self::to_host_port).
#[derive(Clone, PartialEq, Eq)]
pub struct RelayAddr {
    host: AddrHost,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum AddrHost {
    Ip(IpAddr),
    Name(Vec<u8>),
}

impl RelayAddr {
    /// 0 where none is known.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address in its normal form; `None` for a name that can be no host.
    pub fn to_host_port(&self) -> Option<HostPort> {
        let host = match &self.host {
            AddrHost::Ip(ip) => Host::from(*ip),
            AddrHost::Name(name) => Host::parse(std::str::from_utf8(name).ok()?).ok()?,
        };
        Some(HostPort::new(host, self.port))
    }

    /// An address to bind. The reference client turns `:8081` into the name `0.0.0.0::8081` with port 0 (section 5); that is
    /// taken for what it means.
    pub fn to_bind(&self) -> Option<HostPort> {
        if let AddrHost::Name(name) = &self.host
            && self.port == 0
            && let Some(port) = std::str::from_utf8(name).ok()?.strip_prefix("0.0.0.0::")
        {
            return HostPort::parse(&format!("0.0.0.0:{port}"), 0).ok();
        }
        self.to_host_port()
    }
}

impl fmt::Display for RelayAddr {
    /// What is no printable ASCII in a name is escaped: a peer chose it, and it may go to a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            AddrHost::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            AddrHost::Name(name) => write!(f, "{}:{}", name.escape_ascii(), self.port),
        }
    }
}

impl fmt::Debug for RelayAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl From<&HostPort> for RelayAddr {
    fn from(addr: &HostPort) -> Self {
        let host = addr
            .host
            .ip()
            .map_or_else(|| AddrHost::Name(addr.host.as_str().as_bytes().to_vec()), AddrHost::Ip);
        Self { host, port: addr.port }
    }
}

/// A tunnel's or a connector's ID with what goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelFeature {
    /// The ID; only these 16 bytes identify it.
    pub id: Uuid,
    /// 0x80 private (a tunnel), 0x01 UDP (a connector).
    pub flags: u8,
    /// 0 counts as 1, 255 takes all.
    pub weight: u8,
}

/// One feature of a message.
#[derive(Clone, PartialEq, Eq)]
pub enum Feature {
    /// User name and password, at most 255 bytes each.
    Auth {
        /// Who.
        username: Vec<u8>,
        /// Hidden by `Debug`.
        password: Vec<u8>,
    },
    /// An address.
    Addr(RelayAddr),
    /// A tunnel or connector.
    Tunnel(TunnelFeature),
    /// 0 tcp, 1 udp, 2 ip, 0x10 unix, 0x11 serial.
    Network(u16),
    /// Up to 20 pairs.
    Metadata(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Feature {
    /// The Network feature for UDP.
    pub const UDP: Self = Self::Network(1);

    /// An Addr feature.
    pub fn addr(addr: &HostPort) -> Self {
        Self::Addr(addr.into())
    }
}

impl fmt::Debug for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auth { username, .. } => write!(f, "Auth({:?}, ***)", String::from_utf8_lossy(username)),
            Self::Addr(addr) => write!(f, "Addr({addr:?})"),
            Self::Tunnel(tunnel) => write!(f, "{tunnel:?}"),
            Self::Network(id) => write!(f, "Network({id})"),
            Self::Metadata(pairs) => write!(f, "Metadata({} pairs)", pairs.len()),
        }
    }
}

/// What the dialling side says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// CONNECT or BIND.
    pub command: Command,
    /// The legacy UDP flag; the tunnel handler looks at the Network feature only.
    pub udp: bool,
    /// In the order of the wire.
    pub features: Vec<Feature>,
}

/// The answer, and the header of a stream that a server opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 0 is success.
    pub status: Status,
    /// In the order of the wire.
    pub features: Vec<Feature>,
}

/// A message that cannot be written; nothing of it has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not fit a relay message")]
pub struct EncodeError(&'static str);

impl Request {
    /// A request for UDP, which both the flag and the Network feature say: which of them is looked at differs (section 1.3).
    pub fn is_udp(&self) -> bool {
        self.udp || self.is_udp_network()
    }

    /// Takes one message off the front of `buf`, with its length.
    pub fn decode(buf: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some((byte, features, len)) = decode(buf)? else { return Ok(None) };
        let command = match byte & 0x0f {
            1 => Command::Connect,
            2 => Command::Bind,
            other => Command::Other(other),
        };
        Ok(Some((Self { command, udp: byte & FLAG_UDP != 0, features }, len)))
    }

    /// Appends the message to `buf`, or nothing.
    pub fn encode(&self, buf: &mut BytesMut) -> Result<(), EncodeError> {
        let command = match self.command {
            Command::Connect => 1,
            Command::Bind => 2,
            Command::Other(other) => other & 0x0f,
        };
        encode(command | if self.udp { FLAG_UDP } else { 0 }, &self.features, buf)
    }

    /// The last Tunnel feature.
    pub fn tunnel(&self) -> Option<&TunnelFeature> {
        self.features.iter().rev().find_map(|f| if let Feature::Tunnel(t) = f { Some(t) } else { None })
    }

    /// The tunnel handler's first address.
    pub fn source(&self) -> Option<&RelayAddr> {
        addrs(&self.features).next()
    }

    /// The tunnel handler's second address: the last one behind the first.
    pub fn destination(&self) -> Option<&RelayAddr> {
        addrs(&self.features).skip(1).last()
    }

    /// The relay handler's only address: the last one.
    pub fn address(&self) -> Option<&RelayAddr> {
        addrs(&self.features).last()
    }

    /// Whether the Network feature says UDP, which is all that the tunnel handler looks at (section 1.3).
    pub fn is_udp_network(&self) -> bool {
        let last = self
            .features
            .iter()
            .rev()
            .find_map(|f| if let Feature::Network(n) = f { Some(*n) } else { None });
        last == Some(1)
    }
}

impl Response {
    /// Takes one message off the front of `buf`, with its length.
    pub fn decode(buf: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        Ok(decode(buf)?.map(|(byte, features, len)| (Self { status: byte.into(), features }, len)))
    }

    /// Appends the message to `buf`, or nothing.
    pub fn encode(&self, buf: &mut BytesMut) -> Result<(), EncodeError> {
        encode(self.status.into(), &self.features, buf)
    }

    /// The addresses in order.
    pub fn addrs(&self) -> impl Iterator<Item = &RelayAddr> {
        addrs(&self.features)
    }

    /// The last Tunnel feature: the connector's name in a BIND reply.
    pub fn tunnel(&self) -> Option<&TunnelFeature> {
        self.features.iter().rev().find_map(|f| if let Feature::Tunnel(t) = f { Some(t) } else { None })
    }
}

fn addrs(features: &[Feature]) -> impl Iterator<Item = &RelayAddr> {
    features.iter().filter_map(|f| if let Feature::Addr(a) = f { Some(a) } else { None })
}

/// The name that stands for a tunnel in BIND replies: half the MD5 of the ID's text (section 2.1).
pub fn endpoint_name(tunnel: &Uuid) -> String {
    let digest = Md5::digest(tunnel.to_string().as_bytes());
    digest.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn decode(buf: &[u8]) -> Result<Option<(u8, Vec<Feature>, usize)>, Malformed> {
    if buf.first().is_some_and(|&version| version != VERSION) {
        return Err(Malformed("relay version is not 1"));
    }
    let [_, byte, high, low, rest @ ..] = buf else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    let Some(mut area) = rest.get(..len) else { return Ok(None) };
    let mut features = Vec::new();
    for _ in 0..MAX_FEATURES {
        if area.is_empty() {
            return Ok(Some((*byte, features, HEADER_LEN + len)));
        }
        let kind = take_u8(&mut area)?;
        let data_len = take_u16(&mut area)?;
        let data = take(&mut area, usize::from(data_len))?;
        features.extend(decode_feature(kind, data)?);
    }
    Err(Malformed("too many relay features"))
}

fn decode_feature(kind: u8, mut data: &[u8]) -> Result<Option<Feature>, Malformed> {
    let data = &mut data;
    Ok(Some(match kind {
        TYPE_AUTH => Feature::Auth { username: take_short(data)?, password: take_short(data)? },
        TYPE_ADDR => Feature::Addr(decode_addr(data)?),
        TYPE_TUNNEL => {
            let id = Uuid::from_bytes(take_array(data)?);
            let [flags, _, _, weight] = take_array(data)?;
            Feature::Tunnel(TunnelFeature { id, flags, weight })
        }
        TYPE_NETWORK => Feature::Network(take_u16(data)?),
        TYPE_METADATA => {
            let count = usize::from(take_u16(data)?).min(MAX_PAIRS);
            let pairs = (0..count).map(|_| Ok((take_long(data)?, take_long(data)?)));
            Feature::Metadata(pairs.collect::<Result<_, _>>()?)
        }
        _ => return Ok(None),
    }))
}

fn decode_addr(data: &mut &[u8]) -> Result<RelayAddr, Malformed> {
    let host = match take_u8(data)? {
        ATYP_IPV4 => AddrHost::Ip(Ipv4Addr::from(take_array::<4>(data)?).into()),
        ATYP_IPV6 => AddrHost::Ip(Ipv6Addr::from(take_array::<16>(data)?).into()),
        ATYP_NAME => AddrHost::Name(take_short(data)?),
        _ => return Err(Malformed("unknown address type")),
    };
    Ok(RelayAddr { host, port: take_u16(data)? })
}

fn take<'a>(data: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = data.split_at_checked(len).ok_or(Malformed("truncated relay feature"))?;
    *data = tail;
    Ok(head)
}

fn take_array<const N: usize>(data: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, tail) = data.split_first_chunk().ok_or(Malformed("truncated relay feature"))?;
    *data = tail;
    Ok(*head)
}

fn take_u8(data: &mut &[u8]) -> Result<u8, Malformed> {
    take_array::<1>(data).map(|[byte]| byte)
}

fn take_u16(data: &mut &[u8]) -> Result<u16, Malformed> {
    take_array(data).map(u16::from_be_bytes)
}

fn take_short(data: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let len = take_u8(data)?;
    take(data, usize::from(len)).map(<[u8]>::to_vec)
}

fn take_long(data: &mut &[u8]) -> Result<Vec<u8>, Malformed> {
    let len = take_u16(data)?;
    take(data, usize::from(len)).map(<[u8]>::to_vec)
}

fn encode(byte: u8, features: &[Feature], buf: &mut BytesMut) -> Result<(), EncodeError> {
    let start = buf.len();
    buf.put_slice(&[VERSION, byte, 0, 0]);
    let written = features.iter().try_for_each(|feature| encode_feature(feature, buf)).and_then(|()| {
        u16::try_from(buf.len() - start - HEADER_LEN).map_err(|_| EncodeError("the features"))
    });
    match written {
        Ok(len) => {
            buf[start + 2..start + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            buf.truncate(start);
            Err(error)
        }
    }
}

fn encode_feature(feature: &Feature, buf: &mut BytesMut) -> Result<(), EncodeError> {
    let kind = match feature {
        Feature::Auth { .. } => TYPE_AUTH,
        Feature::Addr(_) => TYPE_ADDR,
        Feature::Tunnel(_) => TYPE_TUNNEL,
        Feature::Network(_) => TYPE_NETWORK,
        Feature::Metadata(_) => TYPE_METADATA,
    };
    buf.put_slice(&[kind, 0, 0]);
    let start = buf.len();
    match feature {
        Feature::Auth { username, password } => {
            put_short(username, "the user name", buf)?;
            put_short(password, "the password", buf)?;
        }
        Feature::Addr(addr) => encode_addr(addr, buf)?,
        Feature::Tunnel(tunnel) => {
            buf.put_slice(tunnel.id.as_bytes());
            buf.put_slice(&[tunnel.flags, 0, 0, tunnel.weight]);
        }
        Feature::Network(id) => buf.put_u16(*id),
        Feature::Metadata(pairs) => {
            buf.put_u16(u16::try_from(pairs.len()).map_err(|_| EncodeError("the metadata"))?);
            for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
                buf.put_u16(u16::try_from(text.len()).map_err(|_| EncodeError("a metadata pair"))?);
                buf.put_slice(text);
            }
        }
    }
    let len = u16::try_from(buf.len() - start).map_err(|_| EncodeError("a feature"))?;
    buf[start - 2..start].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn encode_addr(addr: &RelayAddr, buf: &mut BytesMut) -> Result<(), EncodeError> {
    match &addr.host {
        AddrHost::Ip(IpAddr::V4(ip)) => {
            buf.put_u8(ATYP_IPV4);
            buf.put_slice(&ip.octets());
        }
        AddrHost::Ip(IpAddr::V6(ip)) => {
            buf.put_u8(ATYP_IPV6);
            buf.put_slice(&ip.octets());
        }
        AddrHost::Name(name) => {
            buf.put_u8(ATYP_NAME);
            put_short(name, "the host name", buf)?;
        }
    }
    buf.put_u16(addr.port);
    Ok(())
}

fn put_short(text: &[u8], what: &'static str, buf: &mut BytesMut) -> Result<(), EncodeError> {
    buf.put_u8(u8::try_from(text.len()).map_err(|_| EncodeError(what))?);
    buf.put_slice(text);
    Ok(())
}

#[cfg(test)]
mod tests;
