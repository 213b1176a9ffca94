//! Frames of smux, alone and with the sessions that they belong to.

use super::runtime;
use bytes::{Bytes, BytesMut};
use pointsman::mux::{Incoming, Role, Session, Settings, Stream, start};
use pointsman::net::memory;
use pointsman::wire::smux::{Command, Decoder, Header, Item, UPDATE_LEN, Update, Version};
use std::hint::black_box;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

const VERSION: Version = Version::V2;
const BULK: usize = 1 << 20;

/// What 20 streams send that ask for little.
pub(super) fn encode() -> Box<dyn FnMut()> {
    let mut out = BytesMut::with_capacity(1 << 16);
    Box::new(move || {
        out.clear();
        write_frames(black_box(&mut out));
    })
}

pub(super) fn decode() -> Box<dyn FnMut()> {
    let mut frames = BytesMut::new();
    write_frames(&mut frames);
    Box::new(move || {
        let mut buf = BytesMut::from(black_box(&frames[..]));
        let mut decoder = Decoder::new(VERSION);
        let mut items = 0;
        while let Some(item) = decoder.next(&mut buf).unwrap() {
            items += usize::from(!matches!(black_box(item), Item::Nop));
        }
        assert_eq!((items, buf.len()), (4 * 20, 0));
    })
}

fn write_frames(out: &mut BytesMut) {
    for i in 0..20 {
        let id = 2 * i + 3;
        let payload = [b'x'; 100];
        let length = 10 + 4 * i as u16;
        out.extend_from_slice(&Header { command: Command::Syn, length: 0, id }.encode(VERSION));
        out.extend_from_slice(&Header { command: Command::Psh, length, id }.encode(VERSION));
        out.extend_from_slice(&payload[..usize::from(length)]);
        out.extend_from_slice(
            &Header { command: Command::Upd, length: UPDATE_LEN as u16, id }.encode(VERSION),
        );
        out.extend_from_slice(&Update { consumed: 10 * i, window: 1 << 20 }.encode());
        out.extend_from_slice(&Header { command: Command::Fin, length: 0, id }.encode(VERSION));
    }
}

/// A stream with a small request and its reply, from opening it to its end, with both sessions.
pub(super) fn exchange() -> Box<dyn FnMut()> {
    let mut joined = Joined::new();
    Box::new(move || {
        joined.runtime.block_on(async {
            let mut near = joined.opener.open(Bytes::from_static(&[b'q'; 200])).unwrap();
            let mut far = joined.incoming.accept().await.unwrap();
            let mut buf = [0; 1024];
            far.read_exact(&mut buf[..200]).await.unwrap();
            far.write_all(&[b'a'; 1000]).await.unwrap();
            near.read_exact(&mut buf[..1000]).await.unwrap();
            near.shutdown().await.unwrap();
            assert_eq!(far.read(&mut buf).await.unwrap(), 0);
        });
    })
}

/// 1 MiB through one stream, with both sessions.
pub(super) fn bulk() -> Box<dyn FnMut()> {
    let mut joined = Joined::new();
    let (mut near, mut far) = joined.stream();
    let piece = [b'x'; 16 * 1024];
    Box::new(move || {
        joined.runtime.block_on(async {
            let write = async {
                for _ in 0..BULK / piece.len() {
                    near.write_all(&piece).await.unwrap();
                }
            };
            let read = async {
                let mut left = BULK;
                while left > 0 {
                    let chunk = std::future::poll_fn(|cx| far.poll_read_chunk(cx)).await.unwrap();
                    assert!(!chunk.is_empty());
                    left -= chunk.len();
                }
            };
            tokio::join!(write, read);
        });
    })
}

/// Two sessions with nothing but memory between them.
struct Joined {
    runtime: Runtime,
    opener: Session,
    incoming: Incoming,
    _acceptor: Session,
}

impl Joined {
    fn new() -> Self {
        let runtime = runtime();
        // Its clock is theirs.
        let entered = runtime.enter();
        let (near, far) = memory::pair(1 << 18);
        let settings = Settings::tunnel();
        let (opener, _, driver) = start(Box::new(near), Bytes::new(), Role::Client, &settings);
        runtime.spawn(driver);
        let (_acceptor, incoming, driver) = start(Box::new(far), Bytes::new(), Role::Server, &settings);
        runtime.spawn(driver);
        drop(entered);
        Self { runtime, opener, incoming, _acceptor }
    }

    /// Both ends of a stream.
    fn stream(&mut self) -> (Stream, Stream) {
        self.runtime.block_on(async {
            let near = self.opener.open(Bytes::from_static(b"x")).unwrap();
            let mut far = self.incoming.accept().await.unwrap();
            far.read_exact(&mut [0; 1]).await.unwrap();
            (near, far)
        })
    }
}
