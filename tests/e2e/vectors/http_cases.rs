//! What the rows of the HTTP recording need: server, client, a target that does as the path says, and visitors.

use super::server;
use crate::support::Program::Ours;
use crate::support::matrix::TUNNEL;
use crate::support::{Proc, connect};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Everything that a row talks to.
pub(super) struct World {
    pub(super) server: Proc,
    pub(super) client: Proc,
    pub(super) visit: u16,
    /// Lets a target that waits go on.
    pub(super) go: Sender<()>,
}

impl World {
    pub(super) fn new() -> Self {
        let (server, port, visit) = server();
        let (go, wait) = channel();
        // Without sniffing, so that only the entrypoint has a say in what passes.
        let client = Ours.start(&format!(
            "services:
- name: service-0
  addr: :0
  handler: {{ type: rtcp }}
  listener: {{ type: rtcp, chain: c }}
  forwarder: {{ nodes: [{{ name: n, addr: '127.0.0.1:{}' }}] }}
chains:
- name: c
  hops: [{{ nodes: [{{ addr: '127.0.0.1:{port}', connector: {{ type: tunnel, metadata: {{ tunnel.id: {TUNNEL} }} }} }}] }}]
",
            target(wait)
        ));
        client.wait_for(&["connected", "connector="]);
        Self { server, client, visit, go }
    }

    pub(super) fn visitor(&self) -> Visitor {
        Visitor { stream: connect(self.visit), got: Vec::new() }
    }

    /// Asks on a new connection.
    pub(super) fn ask(&self, request: &str) -> (Visitor, String) {
        let mut visitor = self.visitor();
        visitor.send(request);
        let reply = visitor.reply();
        (visitor, reply)
    }
}

/// One visitor's connection.
pub(super) struct Visitor {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Visitor {
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    fn more(&mut self) -> bool {
        let mut buf = [0; 4096];
        let n = self.stream.read(&mut buf).unwrap();
        self.got.extend(&buf[..n]);
        n != 0
    }

    /// Reads until the text has come, and takes everything up to its end.
    pub(super) fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.got.windows(text.len()).position(|w| w == text.as_bytes()) {
                let taken: Vec<_> = self.got.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            assert!(self.more(), "ended before {text:?}: {:?}", String::from_utf8_lossy(&self.got));
        }
    }

    /// The next reply: a head, with the body when its length is given.
    pub(super) fn reply(&mut self) -> String {
        let head = self.until("\r\n\r\n");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.got.len() < length {
            assert!(self.more(), "ended within the body of {head}");
        }
        let body: Vec<_> = self.got.drain(..length).collect();
        head + &String::from_utf8_lossy(&body)
    }

    /// Another request on the same connection is answered.
    pub(super) fn stays_open(mut self) {
        self.send("GET /again HTTP/1.1\r\nHost: srv-0.local\r\n\r\n");
        let reply = self.reply();
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.contains("GET /again "), "{reply}");
    }

    /// Nothing more comes, and the other side has closed.
    pub(super) fn ends(mut self) {
        while self.more() {}
        assert!(self.got.is_empty(), "{:?}", String::from_utf8_lossy(&self.got));
    }

    /// As [`ends`](Self::ends), for those whose unread bytes may turn the close into a reset.
    pub(super) fn ends_or_resets(mut self) {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest);
        let reset = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(rest.is_empty() && end.as_ref().err().is_none_or(reset), "{end:?}");
    }
}

/// Does as the path says; its port. Whatever else it is asked, it answers with the bytes that it got.
fn target(wait: Receiver<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let wait = Arc::new(Mutex::new(wait));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let wait = Arc::clone(&wait);
            std::thread::spawn(move || {
                let mut target = Target { stream, buf: Vec::new() };
                while target.one(&wait).is_some() {}
            });
        }
    });
    port
}

struct Target {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Target {
    /// The bytes up to that end.
    fn take(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buf.windows(end.len()).position(|w| w == end) {
                return Some(self.buf.drain(..at + end.len()).collect());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Option<()> {
        let mut buf = [0; 4096];
        let n = self.stream.read(&mut buf).ok().filter(|n| *n > 0)?;
        self.buf.extend(&buf[..n]);
        Some(())
    }

    fn say(&mut self, text: impl AsRef<[u8]>) -> Option<()> {
        self.stream.write_all(text.as_ref()).ok()
    }

    fn echo(&mut self, got: &[u8]) -> Option<()> {
        self.say(
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", got.len()).as_bytes(), got].concat(),
        )
    }

    /// Sends back what comes until it ends.
    fn mirror(&mut self) -> Option<()> {
        loop {
            self.fill()?;
            let got = std::mem::take(&mut self.buf);
            self.say(got)?;
        }
    }

    /// One request, or one TLS hello; `None` when there is no more.
    fn one(&mut self, wait: &Mutex<Receiver<()>>) -> Option<()> {
        self.fill()?;
        if self.buf[0] == 0x16 {
            let hello = std::mem::take(&mut self.buf);
            let mute = hello.windows(4).any(|w| w == b"mute");
            return if mute { self.fill() } else { self.say(hello) };
        }
        let mut head = self.take(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&head).into_owned();
        match text.split(' ').nth(1)? {
            "/close-delimited" => {
                self.say("HTTP/1.1 200 OK\r\n\r\nall of it")?;
                None
            }
            "/chunks" => {
                self.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")?;
                wait.lock().unwrap().recv().ok()?;
                self.say("3\r\ntwo\r\n0\r\n\r\n")
            }
            "/hints" => self.say("HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            "/sum" => {
                head.extend(self.take(b"0\r\n\r\n")?);
                self.echo(&head)
            }
            "/expect" => {
                self.say("HTTP/1.1 100 Continue\r\n\r\n")?;
                head.extend(self.take(b"body")?);
                self.echo(&head)
            }
            "/websocket" => {
                self.say(SWITCH)?;
                self.mirror()
            }
            // What a reply to CONNECT opens begins with what it was asked.
            "srv-0.local:443" => {
                self.say("HTTP/1.1 200 OK\r\n\r\n")?;
                self.say(head)?;
                self.mirror()
            }
            "/drop" => None,
            "/garbage" => self.say("garbage\r\n\r\n"),
            "/silent" => self.fill(),
            _ => self.echo(&head),
        }
    }
}

/// The answer of a WebSocket server with its own spelling of names.
pub(super) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: Upgrade\r\nSEC-websocket-accept: x\r\n\r\n";
