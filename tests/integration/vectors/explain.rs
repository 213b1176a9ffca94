//! Decoded messages and frames in the words of the notes.

use bytes::BytesMut;
use pointsman::wire::Malformed;
use pointsman::wire::relay::{Command, Feature, RelayAddr, Request, Response, Status};
use pointsman::wire::smux::{self, Decoder, Header, Item, UPDATE_LEN, Version};
use std::collections::HashSet;
use std::ops::Add;

/// How much was understood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) messages: usize,
    pub(super) frames: usize,
}

impl Add for Seen {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, frames: self.frames + other.frames }
    }
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    request: Option<Request>,
    answered: bool,
    /// Streams whose header has come.
    headed: HashSet<u32>,
    /// The mux is yamux, whose frames have been taken away already.
    pub(super) yamux: bool,
    pub(super) seen: Seen,
}

impl Conversation {
    /// What these bytes say, a line for each message, frame, or run of other bytes.
    pub(super) fn hear(&mut self, to_server: bool, bytes: &[u8]) -> Vec<String> {
        let mut said = Vec::new();
        let mut rest = bytes;
        if to_server && self.request.is_none() {
            let request: Request = message(&mut rest);
            said.push(describe_request(&request, bytes));
            self.request = Some(request);
            self.seen.messages += 1;
        } else if !to_server && !self.answered {
            said.push(describe_response(&message(&mut rest), bytes));
            self.answered = true;
            self.seen.messages += 1;
        }
        match self.request.as_ref().and_then(mux_of) {
            Some(_) if self.yamux && !rest.is_empty() => said.push(self.payload(to_server, 1, rest)),
            Some(version) => {
                for item in items(version, rest) {
                    said.push(self.frame(to_server, version, &item));
                }
            }
            None if !rest.is_empty() => said.push(format!("data {}", data(rest))),
            None => {}
        }
        said
    }

    /// What a stream carries: the side that opened it, always the server, begins with a header.
    fn payload(&mut self, to_server: bool, id: u32, payload: &[u8]) -> String {
        if to_server || !self.headed.insert(id) {
            return format!("data {}", data(payload));
        }
        let mut rest = payload;
        let header = describe_response(&message(&mut rest), payload);
        assert!(rest.is_empty(), "{rest:?} behind a header");
        self.seen.messages += 1;
        header
    }

    fn frame(&mut self, to_server: bool, version: Version, item: &Item) -> String {
        self.seen.frames += 1;
        let (command, id, len, more) = match item {
            Item::Syn(id) => ("SYN", *id, 0, String::new()),
            Item::Fin(id) => ("FIN", *id, 0, String::new()),
            Item::Nop => ("NOP", 0, 0, String::new()),
            Item::Update(id, update) => {
                ("UPD", *id, UPDATE_LEN, format!(" consumed={} window={}", update.consumed, update.window))
            }
            Item::Data(id, payload) => {
                ("PSH", *id, payload.len(), format!(" -> {}", self.payload(to_server, *id, payload)))
            }
        };
        format!("smux v{} {command} sid={id} len={len}{more}", version as u8)
    }
}

/// The mux behind a BIND: version 2 in a tunnel, version 1 behind a relay's TCP port (section 2.2 and 5).
fn mux_of(request: &Request) -> Option<Version> {
    match (request.command, request.tunnel()) {
        (Command::Bind, Some(_)) => Some(Version::V2),
        (Command::Bind, None) if !request.udp => Some(Version::V1),
        _ => None,
    }
}

/// The frames in `bytes`, which end with a frame; written back, they are the same bytes.
pub(super) fn items(version: Version, bytes: &[u8]) -> Vec<Item> {
    for cut in 0..bytes.len() {
        let (mut decoder, mut part) = (Decoder::new(version), BytesMut::from(&bytes[..cut]));
        while decoder.next(&mut part).unwrap().is_some() {}
    }
    let (mut decoder, mut buf) = (Decoder::new(version), BytesMut::from(bytes));
    let mut items = Vec::new();
    while let Some(item) = decoder.next(&mut buf).unwrap() {
        items.push(item);
    }
    assert!(buf.is_empty(), "half a frame at the end of {bytes:02x?}");
    let again: Vec<u8> = items.iter().flat_map(|item| encode(version, item)).collect();
    assert_eq!(again, bytes);
    items
}

fn encode(version: Version, item: &Item) -> Vec<u8> {
    let frame = |command, id, payload: &[u8]| {
        let length = u16::try_from(payload.len()).unwrap();
        [&Header { command, length, id }.encode(version), payload].concat()
    };
    match item {
        Item::Syn(id) => frame(smux::Command::Syn, *id, &[]),
        Item::Fin(id) => frame(smux::Command::Fin, *id, &[]),
        Item::Nop => frame(smux::Command::Nop, 0, &[]),
        Item::Update(id, update) => frame(smux::Command::Upd, *id, &update.encode()),
        Item::Data(id, payload) => frame(smux::Command::Psh, *id, payload),
    }
}

/// A relay message of either kind.
pub(super) trait Message: Sized {
    fn take(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed>;
    fn write(&self) -> BytesMut;
}

impl Message for Request {
    fn take(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        Self::decode(bytes)
    }

    fn write(&self) -> BytesMut {
        let mut buf = BytesMut::new();
        self.encode(&mut buf).unwrap();
        buf
    }
}

impl Message for Response {
    fn take(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        Self::decode(bytes)
    }

    fn write(&self) -> BytesMut {
        let mut buf = BytesMut::new();
        self.encode(&mut buf).unwrap();
        buf
    }
}

/// Takes a message off the front of `bytes`.
fn message<M: Message>(bytes: &mut &[u8]) -> M {
    let (message, len) = M::take(bytes).unwrap().unwrap();
    written_back(&message, &bytes[..len], true);
    *bytes = &bytes[len..];
    message
}

/// Every shorter prefix needs more, and (where nothing was skipped) the message is written as it came.
pub(super) fn written_back<M: Message>(message: &M, bytes: &[u8], whole: bool) {
    for cut in 0..bytes.len() {
        assert!(matches!(M::take(&bytes[..cut]), Ok(None)), "{cut} of {bytes:02x?}");
    }
    if whole {
        assert_eq!(&message.write()[..], bytes);
    }
}

pub(super) fn describe_request(request: &Request, bytes: &[u8]) -> String {
    let (number, name) = match request.command {
        Command::Connect => (1, "CONNECT"),
        Command::Bind => (2, "BIND"),
        Command::Other(3) => (3, "ASSOCIATE"),
        Command::Other(other) => (other, "?"),
    };
    let (flag, udp) = if request.udp { (0x80, "|FUDP") } else { (0, "") };
    let features = features(&request.features, bytes);
    format!("relay request cmd={:#04x} ({name}{udp}) {features}", number | flag)
}

pub(super) fn describe_response(response: &Response, bytes: &[u8]) -> String {
    let name = match response.status {
        Status::Ok => "OK".to_owned(),
        other => format!("{other:?}"),
    };
    let features = features(&response.features, bytes);
    format!("relay response status={:#04x} ({name}) {features}", u8::from(response.status))
}

fn features(features: &[Feature], bytes: &[u8]) -> String {
    let list: Vec<_> = features.iter().map(feature).collect();
    let list = if list.is_empty() { "no features".to_owned() } else { list.join("; ") };
    format!("featlen={}: {list}", u16::from_be_bytes([bytes[2], bytes[3]]))
}

fn feature(feature: &Feature) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match feature {
        Feature::Auth { username, password } => {
            format!("UserAuth({} / {})", text(username), text(password))
        }
        Feature::Addr(addr) => format!("Addr({} {addr})", kind(addr)),
        Feature::Tunnel(tunnel) => {
            format!("Tunnel(id={} flags={:02x} rsv=0000 weight={})", tunnel.id, tunnel.flags, tunnel.weight)
        }
        Feature::Network(id) => format!("Network({id})"),
        Feature::Metadata(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{}={}", text(k), text(v))).collect();
            format!("Metadata({})", pairs.join(", "))
        }
    }
}

fn kind(addr: &RelayAddr) -> &'static str {
    match addr.to_host_port().and_then(|addr| addr.host.ip()) {
        Some(ip) if ip.is_ipv4() => "ipv4",
        Some(_) => "ipv6",
        None => "domain",
    }
}

/// The beginning of some payload as the notes show it.
pub(super) fn data(bytes: &[u8]) -> String {
    quoted(bytes, 60)
}

/// At most `limit` bytes, in the quotes of the Python program that made the notes.
pub(super) fn quoted(bytes: &[u8], limit: usize) -> String {
    let shown = |byte: &u8| match byte {
        b'\r' => r"\\r".to_owned(),
        b'\n' => r"\\n".to_owned(),
        b'\\' => r"\\".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => ".".to_owned(),
    };
    let text: String = bytes.iter().take(limit).map(shown).collect();
    let more = if bytes.len() > limit { "..." } else { "" };
    match (text.contains('\''), text.contains('"')) {
        (true, false) => format!("\"{text}{more}\""),
        _ => format!("'{}{more}'", text.replace('\'', r"\'")),
    }
}
