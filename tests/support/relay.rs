//! The other side of the relay protocol and of smux version 2, written byte by byte: connectors, visitors and servers that do
//! what no well-behaved peer would.

use super::connect;
use super::matrix::TUNNEL;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// smux commands.
pub(crate) const SYN: u8 = 0;
pub(crate) const FIN: u8 = 1;
pub(crate) const PSH: u8 = 2;
pub(crate) const NOP: u8 = 3;
pub(crate) const UPD: u8 = 4;

pub(crate) const CONNECT: u8 = 1;
pub(crate) const BIND: u8 = 2;
/// With either: datagrams.
pub(crate) const UDP: u8 = 0x80;

fn feature(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// An Addr feature with a name.
pub(crate) fn name(host: &str, port: u16) -> Vec<u8> {
    let mut data = vec![3, u8::try_from(host.len()).unwrap()];
    data.extend(host.as_bytes());
    data.extend(port.to_be_bytes());
    feature(2, &data)
}

/// An Addr feature with 127.0.0.1.
pub(crate) fn loopback(port: u16) -> Vec<u8> {
    let mut data = vec![1, 127, 0, 0, 1];
    data.extend(port.to_be_bytes());
    feature(2, &data)
}

/// The Tunnel feature of [`TUNNEL`], weight 0.
pub(crate) fn tunnel() -> Vec<u8> {
    let id = TUNNEL.replace('-', "");
    let mut data: Vec<u8> =
        (0..32).step_by(2).map(|i| u8::from_str_radix(&id[i..i + 2], 16).unwrap()).collect();
    data.extend([0; 4]);
    feature(3, &data)
}

/// The Network feature.
pub(crate) fn network(udp: bool) -> Vec<u8> {
    feature(4, &u16::from(udp).to_be_bytes())
}

/// A request (second byte: the command) or a response (second byte: the status).
pub(crate) fn message(second: u8, features: &[Vec<u8>]) -> Vec<u8> {
    let features = features.concat();
    let mut bytes = vec![1, second];
    bytes.extend(u16::try_from(features.len()).unwrap().to_be_bytes());
    bytes.extend(features);
    bytes
}

/// Reads one message: its second byte and its features.
pub(crate) fn read_message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut features = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut features)?;
    Ok((head[1], features))
}

/// The feature with a user name and a password.
pub(crate) fn user(name: &str, password: &str) -> Vec<u8> {
    let part = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    feature(1, &[part(name), part(password)].concat())
}

/// Asks a tunnel or relay port; the connection, the status and the features of the answer.
pub(crate) fn request(port: u16, command: u8, features: &[Vec<u8>]) -> (TcpStream, u8, Vec<u8>) {
    let mut stream = connect(port);
    stream.write_all(&message(command, features)).unwrap();
    let (status, features) = read_message(&mut stream).unwrap();
    (stream, status, features)
}

/// Asks a tunnel port; the connection and the status of the answer.
pub(crate) fn ask(port: u16, command: u8, host: &str, udp: bool) -> (TcpStream, u8) {
    let mut features = vec![loopback(1), name(host, 80), tunnel()];
    features.extend(udp.then(|| network(true)));
    let (stream, status, _) = request(port, command, &features);
    (stream, status)
}

/// The same with a user's name and password, if there is one; and the features of the answer.
pub(crate) fn ask_as(
    port: u16,
    command: u8,
    host: &str,
    auth: Option<(&str, &str)>,
) -> (TcpStream, u8, Vec<u8>) {
    let mut features = vec![loopback(1), name(host, 80), tunnel()];
    features.extend(auth.map(|(name, password)| user(name, password)));
    request(port, command, &features)
}

/// One end of a smux session.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    /// A connector in [`TUNNEL`].
    pub(crate) fn connector(port: u16, udp: bool) -> Self {
        let (stream, status) = ask(port, BIND, "", udp);
        assert_eq!(status, 0);
        Self(stream)
    }

    pub(crate) fn send(&mut self, command: u8, id: u32, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![2, command];
        frame.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        frame.extend(id.to_le_bytes());
        frame.extend(payload);
        self.0.write_all(&frame)
    }

    /// The next frame that is no NOP: command, stream, payload.
    pub(crate) fn next(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 8];
            self.0.read_exact(&mut head)?;
            let mut payload = vec![0; usize::from(u16::from_le_bytes([head[2], head[3]]))];
            self.0.read_exact(&mut payload)?;
            if head[1] != NOP {
                return Ok((head[1], u32::from_le_bytes([head[4], head[5], head[6], head[7]]), payload));
            }
        }
    }

    /// The next stream that the other side opens, with all it sends on it until `last` has come.
    pub(crate) fn accept(&mut self, last: &[u8]) -> (u32, Vec<u8>) {
        let (mut stream, mut got) = (0, Vec::new());
        while !got.windows(last.len()).any(|w| w == last) {
            match self.next().unwrap() {
                (SYN, id, _) => stream = id,
                (PSH, id, payload) if id == stream => got.extend(payload),
                _ => {}
            }
        }
        (stream, got)
    }
}

/// A ClientHello in one record, with that server name.
pub(crate) fn client_hello(server_name: &[u8]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let entry = [&[0][..], &sized(server_name)].concat();
    let extension = [&[0, 0][..], &sized(&sized(&entry))].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session ID, one cipher suite, no compression.
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(sized(&extension));
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1, len[1], len[2], len[3]][..], &body].concat();
    [&[0x16, 3, 1][..], &sized(&handshake)].concat()
}
