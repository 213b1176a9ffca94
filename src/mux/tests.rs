//! Sessions over real sockets and over memory with a paused clock.

mod copied;
mod gathering;
mod yamux;

use super::*;
use crate::net::memory::{self, MemoryStream};
use crate::wire::smux::{Command, Header, Update, Version};
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (dialled, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

fn settings(kind: Kind) -> Settings {
    Settings { kind, ..Settings::tunnel() }
}

/// Two joined sessions: the one that opens and the one that accepts.
async fn pair(settings: &Settings) -> (Session, Session, Incoming) {
    let (a, b) = tcp().await;
    let (opener, _, driver) = start(Box::new(a), Bytes::new(), Role::Client, settings);
    tokio::spawn(driver);
    let (acceptor, incoming, driver) = start(Box::new(b), Bytes::new(), Role::Server, settings);
    tokio::spawn(driver);
    (opener, acceptor, incoming)
}

/// One of our sessions and the bare bytes of its peer.
fn half(role: Role, settings: &Settings) -> (Session, Incoming, MemoryStream) {
    let (ours, theirs) = memory::pair(1 << 20);
    let (session, incoming, driver) = start(Box::new(ours), Bytes::new(), role, settings);
    tokio::spawn(driver);
    (session, incoming, theirs)
}

fn frame(version: Version, command: Command, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    [&Header { command, length, id }.encode(version)[..], payload].concat()
}

fn v2(command: Command, id: u32, payload: &[u8]) -> Vec<u8> {
    frame(Version::V2, command, id, payload)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

async fn expect(io: &mut MemoryStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    io.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

/// Sends a seed and as many bytes made of it both ways, with checks on both ends.
async fn exchange(kind: Kind, streams: u64) {
    // Without a keepalive no timer hides a wake-up that was lost.
    let (opener, acceptor, mut incoming) =
        pair(&Settings { keepalive_interval: None, ..settings(kind) }).await;
    let server = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        for _ in 0..streams {
            let mut stream = incoming.accept().await.unwrap();
            tasks.spawn(async move {
                let (seed, len) =
                    (stream.read_u64().await.unwrap(), stream.read_u64().await.unwrap() as usize);
                let (mut reader, mut writer) = tokio::io::split(stream);
                let read = async {
                    let mut got = vec![0; len];
                    reader.read_exact(&mut got).await.unwrap();
                    assert!(got == noise(seed, len), "stream of seed {seed}");
                };
                let write = async { writer.write_all(&noise(!seed, len)).await.unwrap() };
                tokio::join!(read, write);
                // The opener ends first.
                assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
    let mut tasks = JoinSet::new();
    for seed in 0..streams {
        let len = fastrand::usize(..400_000);
        let header = [seed.to_be_bytes(), (len as u64).to_be_bytes()].concat();
        let stream = opener.open(header.into()).unwrap();
        tasks.spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let write = async { writer.write_all(&noise(seed, len)).await.unwrap() };
            let read = async {
                let mut got = vec![0; len];
                reader.read_exact(&mut got).await.unwrap();
                assert!(got == noise(!seed, len), "answer of seed {seed}");
            };
            tokio::join!(write, read);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    server.await.unwrap();
    drop(opener);
    acceptor.closed().await;
    assert_eq!(acceptor.streams(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_random_sizes_arrive_whole_v1() {
    exchange(Kind::SmuxV1, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_random_sizes_arrive_whole_v2() {
    exchange(Kind::SmuxV2, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_of_random_sizes_arrive_whole_yamux() {
    exchange(Kind::Yamux, 100).await;
}

#[tokio::test]
async fn what_was_written_before_the_drop_arrives() {
    for kind in [Kind::SmuxV1, Kind::SmuxV2, Kind::Yamux] {
        let (opener, acceptor, mut incoming) = pair(&settings(kind)).await;
        let data = noise(1, 3_000_000);
        let mut stream = opener.open(Bytes::from_static(b"head")).unwrap();
        drop(opener);
        let sent = data.clone();
        let writer = tokio::spawn(async move { stream.write_all(&sent).await.unwrap() });
        let mut far = incoming.accept().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert!(got[..4] == *b"head" && got[4..] == data, "{kind:?}: {} bytes", got.len());
        writer.await.unwrap();
        drop((far, incoming, acceptor));
    }
}

#[tokio::test]
async fn buffered_data_is_read_after_fin_and_writing_fails() {
    let (_session, mut incoming, mut peer) = half(Role::Server, &settings(Kind::SmuxV2));
    let bytes =
        [v2(Command::Syn, 3, b""), v2(Command::Psh, 3, b"last words"), v2(Command::Fin, 3, b"")].concat();
    peer.write_all(&bytes).await.unwrap();
    let mut stream = incoming.accept().await.unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "last words");
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    drop(stream);
    expect(&mut peer, &v2(Command::Fin, 3, b"")).await;
}

/// The peer reads nothing before it has said all of its own, far more than a window.
#[tokio::test]
async fn a_dropped_stream_delivers_what_was_written_while_its_peer_goes_on_sending() {
    const WINDOW: usize = 256 * 1024;
    const MORE: usize = 100 * 1024;
    let (opener, _acceptor, mut incoming) = pair(&settings(Kind::SmuxV2)).await;
    let mut near = opener.open(Bytes::new()).unwrap();
    near.write_all(&[1; WINDOW + MORE]).await.unwrap();
    drop(near);
    let mut far = incoming.accept().await.unwrap();
    let exchanged = async {
        far.write_all(&[2; 2 << 20]).await?;
        far.read_to_end(&mut Vec::new()).await
    };
    let got = tokio::time::timeout(Duration::from_secs(10), exchanged).await.expect("no stall");
    assert_eq!(got.unwrap(), WINDOW + MORE);
}

#[tokio::test]
async fn first_bytes_travel_with_the_opening() {
    let (session, _incoming, mut peer) = half(Role::Client, &settings(Kind::SmuxV2));
    let mut stream = session.open(Bytes::from_static(b"header")).unwrap();
    let opening = [v2(Command::Syn, 3, b""), v2(Command::Psh, 3, b"header")].concat();
    let mut got = vec![0; 200];
    let n = peer.read(&mut got).await.unwrap();
    assert_eq!(got[..n], opening, "in one write");
    assert_eq!(stream.far_end_has_read(), Some(false));
    let update = Update { consumed: 6, window: 1 << 20 };
    peer.write_all(&[v2(Command::Upd, 3, &update.encode()), v2(Command::Psh, 3, b"yes")].concat())
        .await
        .unwrap();
    expect_read(&mut stream, b"yes").await;
    assert_eq!(stream.far_end_has_read(), Some(true));
    expect(&mut peer, &v2(Command::Upd, 3, &Update { consumed: 3, window: 1 << 20 }.encode())).await;
}

#[tokio::test]
async fn what_is_written_at_once_shares_frames_with_the_first_bytes() {
    let settings = Settings { max_frame_size: 10, ..settings(Kind::SmuxV2) };
    let (session, _incoming, mut peer) = half(Role::Client, &settings);
    let mut stream = session.open(Bytes::from_static(b"header")).unwrap();
    let slices = [b"head".as_slice(), b"", b"of it", b"and more"].map(IoSlice::new);
    assert_eq!(stream.write_vectored(&slices).await.unwrap(), 10, "no more than a frame takes");
    let frames =
        [v2(Command::Syn, 3, b""), v2(Command::Psh, 3, b"headerhead"), v2(Command::Psh, 3, b"of ita")];
    expect(&mut peer, &frames.concat()).await;
}

async fn expect_read(stream: &mut Stream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn bytes_read_before_the_session_began_come_first() {
    let (ours, mut theirs) = memory::pair(1000);
    let first = [v2(Command::Syn, 3, b""), v2(Command::Psh, 3, b"abc")].concat();
    let received = Bytes::copy_from_slice(&first[..13]);
    theirs.write_all(&first[13..]).await.unwrap();
    let (_session, mut incoming, driver) =
        start(Box::new(ours), received, Role::Server, &settings(Kind::SmuxV2));
    tokio::spawn(driver);
    expect_read(&mut incoming.accept().await.unwrap(), b"abc").await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_on_time() {
    let began = Instant::now();
    let (session, _incoming, mut peer) = half(Role::Client, &settings(Kind::SmuxV2));
    assert_eq!(session.closed().await, CloseReason::Silent(Duration::from_secs(30)));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(30) && took < Duration::from_millis(30_050), "{took:?}");
    let nop = v2(Command::Nop, 0, b"");
    expect(&mut peer, &[nop.clone(), nop].concat()).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up_too() {
    let (ours, theirs) = memory::pair(16);
    let (session, _incoming, driver) =
        start(Box::new(ours), Bytes::new(), Role::Client, &settings(Kind::SmuxV2));
    tokio::spawn(driver);
    let mut stream = session.open(Bytes::from(vec![0; 1000])).unwrap();
    assert_eq!(session.closed().await, CloseReason::Silent(Duration::from_secs(30)));
    assert!(stream.read(&mut [0; 1]).await.is_err(), "not taken for the end of the data");
    drop(theirs);
}

#[tokio::test]
async fn hostile_frames_end_the_session() {
    let frames = [
        frame(Version::V1, Command::Nop, 0, b""),
        vec![2, 9, 0, 0, 0, 0, 0, 0],
        v2(Command::Upd, 3, b"short"),
        v2(Command::Syn, 3, b"payload"),
    ];
    for bytes in frames {
        let (session, _incoming, mut peer) = half(Role::Server, &settings(Kind::SmuxV2));
        peer.write_all(&bytes).await.unwrap();
        assert!(matches!(session.closed().await, CloseReason::Protocol(_)), "{bytes:?}");
        assert!(matches!(session.open(Bytes::new()), Err(OpenError::Closed(_))));
    }
}

#[tokio::test]
async fn harmless_oddities_are_ignored() {
    let (session, mut incoming, mut peer) = half(Role::Server, &settings(Kind::SmuxV2));
    let odd = [
        v2(Command::Psh, 77, b"for nobody"),
        v2(Command::Fin, 78, b""),
        v2(Command::Syn, 3, b""),
        v2(Command::Syn, 3, b""),
        v2(Command::Psh, 3, b""),
        v2(Command::Psh, 3, b"data"),
        v2(Command::Syn, 2, b""),
    ];
    peer.write_all(&odd.concat()).await.unwrap();
    expect_read(&mut incoming.accept().await.unwrap(), b"data").await;
    let _ours = incoming.accept().await.unwrap();
    assert_eq!(session.streams(), 2);
    let _opened = session.open(Bytes::new()).unwrap();
    // The first stream was dropped before its update was sent.
    expect(&mut peer, &[v2(Command::Fin, 3, b""), v2(Command::Syn, 4, b"")].concat()).await;
}

#[tokio::test]
async fn a_broken_window_ends_its_stream_only() {
    let (session, mut incoming, peer) = half(Role::Server, &settings(Kind::SmuxV2));
    let mut bytes = [v2(Command::Syn, 3, b""), v2(Command::Syn, 5, b"")].concat();
    for _ in 0..5 {
        bytes.extend(v2(Command::Psh, 3, &[7; 60_000]));
    }
    bytes.extend(v2(Command::Upd, 5, &Update { consumed: 1, window: 10 }.encode()));
    bytes.extend(v2(Command::Syn, 7, b""));
    bytes.extend(v2(Command::Psh, 7, b"fine"));
    let (mut read_half, mut write_half) = tokio::io::split(peer);
    tokio::spawn(async move {
        write_half.write_all(&bytes).await.unwrap();
        std::future::pending::<()>().await;
    });
    let (mut over, mut unsent) = (incoming.accept().await.unwrap(), incoming.accept().await.unwrap());
    expect_read(&mut incoming.accept().await.unwrap(), b"fine").await;
    let mut got = Vec::new();
    assert!(over.read_to_end(&mut got).await.is_err());
    assert!(got.len() <= 262_144, "{}", got.len());
    assert!(unsent.read(&mut [0; 1]).await.is_err());
    assert!(!session.is_closed());
    let mut fins = [0; 8];
    read_half.read_exact(&mut fins).await.unwrap();
    assert_eq!(fins[..], v2(Command::Fin, 3, b""));
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused() {
    let few = Settings { max_streams: 1, ..settings(Kind::SmuxV2) };
    let (session, mut incoming, mut peer) = half(Role::Server, &few);
    peer.write_all(&[v2(Command::Syn, 3, b""), v2(Command::Syn, 5, b"")].concat()).await.unwrap();
    expect(&mut peer, &v2(Command::Fin, 5, b"")).await;
    let _stream = incoming.accept().await.unwrap();
    assert_eq!(session.open(Bytes::new()).unwrap_err(), OpenError::TooMany(1));
    drop(incoming);
    peer.write_all(&v2(Command::Syn, 7, b"")).await.unwrap();
    expect(&mut peer, &v2(Command::Fin, 7, b"")).await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_not_stall_the_others() {
    let (opener, _acceptor, mut incoming) = pair(&settings(Kind::SmuxV2)).await;
    let mut unread = Vec::new();
    // Together more than `max_receive_buffer`, where the reference stops.
    for _ in 0..30 {
        let mut stream = opener.open(Bytes::from_static(b"x")).unwrap();
        unread.push(incoming.accept().await.unwrap());
        tokio::spawn(async move {
            let _ = stream.write_all(&[0; 2_000_000]).await;
            std::future::pending::<()>().await;
        });
    }
    let mut stream = opener.open(Bytes::from_static(b"x")).unwrap();
    let mut far = incoming.accept().await.unwrap();
    let sent = noise(5, 5_000_000);
    let expected = sent.clone();
    tokio::spawn(async move { stream.write_all(&sent).await });
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got[1..] == expected);
}

#[tokio::test(start_paused = true)]
async fn a_dead_reader_of_version_1_is_ended_and_a_slow_one_is_not() {
    let (a, b) = memory::pair(1 << 16);
    let settings = Settings { keepalive_interval: None, ..settings(Kind::SmuxV1) };
    let (opener, _, driver) = start(Box::new(a), Bytes::new(), Role::Client, &settings);
    tokio::spawn(driver);
    let (_acceptor, mut incoming, driver) = start(Box::new(b), Bytes::new(), Role::Server, &settings);
    tokio::spawn(driver);
    let len = 6_000_000;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = opener.open(Bytes::new()).unwrap();
        tokio::spawn(async move { stream.write_all(&noise(9, len)).await });
        streams.push(incoming.accept().await.unwrap());
    }
    let (mut slow, mut dead) = (streams.pop().unwrap(), streams.pop().unwrap());
    let mut got = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        let n = slow.read(&mut piece).await.unwrap();
        if n == 0 {
            break;
        }
        got.extend_from_slice(&piece[..n]);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(got == noise(9, len), "{} bytes", got.len());
    assert!(dead.read_to_end(&mut Vec::new()).await.is_err());
}

/// Visitors that do not read have no lasting hold on the others of a session without windows.
#[tokio::test(start_paused = true)]
async fn dead_readers_of_version_1_leave_room_for_others() {
    let (opener, _acceptor, mut incoming) = pair(&settings(Kind::SmuxV1)).await;
    let mut dead = Vec::new();
    for _ in 0..8 {
        let mut stream = opener.open(Bytes::from_static(b"x")).unwrap();
        dead.push(incoming.accept().await.unwrap());
        tokio::spawn(async move { stream.write_all(&noise(9, 2_000_000)).await });
    }
    for round in 0..3 {
        let mut stream = opener.open(Bytes::from_static(b"x")).unwrap();
        let mut far = incoming.accept().await.unwrap();
        tokio::spawn(async move { stream.write_all(&noise(5, 500_000)).await });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 500_001, "{round}");
    }
    for mut reader in dead {
        assert!(reader.read_to_end(&mut Vec::new()).await.is_err());
    }
}

#[tokio::test]
async fn a_session_without_handles_ends_with_its_last_stream() {
    for kind in [Kind::SmuxV1, Kind::SmuxV2, Kind::Yamux] {
        let (opener, acceptor, mut incoming) = pair(&settings(kind)).await;
        let stream = opener.open(Bytes::from_static(b"x")).unwrap();
        drop(opener);
        let mut far = incoming.accept().await.unwrap();
        expect_read(&mut far, b"x").await;
        assert!(!acceptor.is_closed());
        drop(stream);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0, "{kind:?}");
        drop(far);
        assert_eq!(acceptor.closed().await, CloseReason::Ended, "{kind:?}");
        assert!(incoming.accept().await.is_none());
    }
}

#[tokio::test]
async fn a_session_ends_whichever_handle_goes_last() {
    for kind in [Kind::SmuxV2, Kind::Yamux] {
        for session_first in [true, false] {
            let (ours, mut theirs) = memory::pair(1000);
            let (session, incoming, driver) =
                start(Box::new(ours), Bytes::new(), Role::Server, &settings(kind));
            tokio::spawn(driver);
            tokio::task::yield_now().await;
            if session_first {
                drop(session);
                tokio::task::yield_now().await;
                drop(incoming);
            } else {
                drop(incoming);
                tokio::task::yield_now().await;
                drop(session);
            }
            theirs.read_to_end(&mut Vec::new()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn closing_sends_what_is_queued_first() {
    for kind in [Kind::SmuxV1, Kind::SmuxV2] {
        let (opener, _acceptor, mut incoming) = pair(&settings(kind)).await;
        let mut stream = opener.open(Bytes::new()).unwrap();
        stream.write_all(&[1; 100_000]).await.unwrap();
        opener.close();
        let mut got = Vec::new();
        incoming.accept().await.unwrap().read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), 100_000);
        assert_eq!(opener.closed().await, CloseReason::Local);
    }
}

#[tokio::test]
async fn chunks_and_readability() {
    for kind in [Kind::SmuxV2, Kind::Yamux] {
        let (opener, _acceptor, mut incoming) = pair(&settings(kind)).await;
        let stream = opener.open(Bytes::from_static(b"chunk")).unwrap();
        let mut far = incoming.accept().await.unwrap();
        poll_fn(|cx| far.poll_readable(cx)).await.unwrap();
        assert_eq!(poll_fn(|cx| far.poll_read_chunk(cx)).await.unwrap(), "chunk");
        assert_eq!(far.half_close(), kind == Kind::Yamux);
        drop(stream);
        assert_eq!(poll_fn(|cx| far.poll_read_chunk(cx)).await.unwrap(), "");
    }
}
