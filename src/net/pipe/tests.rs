use super::testing::{HalfClosing, pattern, tcp_pair};
use super::*;
use crate::net::memory;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;

const LIMITS: Limits = Limits { half_close_timeout: Duration::from_secs(300), idle_timeout: None };

fn side(stream: impl ByteStream + 'static) -> Side {
    Side::from(Box::new(stream) as BoxStream)
}

/// A piped connection between two sockets: the far ends, and the task.
async fn piped(limits: Limits) -> (TcpStream, TcpStream, tokio::task::JoinHandle<Outcome>) {
    let (visitor, a) = tcp_pair().await;
    let (b, target) = tcp_pair().await;
    let task = tokio::spawn(pipe(side(a), side(b), limits));
    (visitor, target, task)
}

#[tokio::test]
async fn half_close_is_passed_on_and_the_answer_still_comes() {
    let (mut visitor, mut target, task) = piped(LIMITS).await;
    visitor.write_all(b"question").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut question = Vec::new();
    target.read_to_end(&mut question).await.unwrap();
    target.write_all(b"the answer").await.unwrap();
    drop(target);
    let mut answer = Vec::new();
    visitor.read_to_end(&mut answer).await.unwrap();
    assert_eq!((&question[..], &answer[..]), (&b"question"[..], &b"the answer"[..]));
    let outcome = task.await.unwrap();
    assert_eq!(outcome, Outcome { a_to_b: 8, b_to_a: 10, spliced: 0, end: End::ClosedBy(Which::A) });
}

#[tokio::test]
async fn prefixes_come_first_in_both_directions() {
    let (mut visitor, a) = tcp_pair().await;
    let (b, mut target) = tcp_pair().await;
    visitor.write_all(b" two").await.unwrap();
    visitor.shutdown().await.unwrap();
    target.write_all(b" four").await.unwrap();
    target.shutdown().await.unwrap();
    let a = Side::new(Box::new(a), Bytes::from_static(b"one"));
    let b = Side::new(Box::new(b), Bytes::from_static(b"three"));
    let outcome = pipe(a, b, LIMITS).await;
    let (mut at_target, mut at_visitor) = (String::new(), String::new());
    target.read_to_string(&mut at_target).await.unwrap();
    visitor.read_to_string(&mut at_visitor).await.unwrap();
    assert_eq!((&*at_target, &*at_visitor), ("one two", "three four"));
    assert_eq!((outcome.a_to_b, outcome.b_to_a), (7, 10));
}

#[tokio::test]
async fn bulk_between_sockets_is_spliced_and_arrives_whole() {
    const SIZE: usize = 64 * 1024 * 1024;
    let (visitor, target, task) = piped(LIMITS).await;
    let data = pattern(SIZE);
    let (mut from_visitor, mut to_visitor) = visitor.into_split();
    let (mut from_target, mut to_target) = target.into_split();
    let expected = crc32fast::hash(&data);
    let half = &data[..SIZE / 2];
    let ((), (), up, down) = tokio::join!(
        async {
            to_visitor.write_all(&data).await.unwrap();
            to_visitor.shutdown().await.unwrap();
        },
        async {
            to_target.write_all(half).await.unwrap();
            to_target.shutdown().await.unwrap();
        },
        checksum(&mut from_target),
        checksum(&mut from_visitor),
    );
    assert_eq!(up, (SIZE as u64, expected));
    assert_eq!(down, (SIZE as u64 / 2, crc32fast::hash(half)));
    let outcome = task.await.unwrap();
    assert_eq!((outcome.a_to_b, outcome.b_to_a), (SIZE as u64, SIZE as u64 / 2));
    if cfg!(target_os = "linux") {
        assert!(
            outcome.spliced > SIZE as u64,
            "only {} of {} bytes were spliced",
            outcome.spliced,
            SIZE / 2 * 3
        );
    }
}

async fn checksum(from: &mut (impl AsyncRead + Unpin)) -> (u64, u32) {
    let (mut sum, mut total, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 16]);
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => return (total, sum.finalize()),
            n => {
                sum.update(&buffer[..n]);
                total += n as u64;
            }
        }
    }
}

#[tokio::test]
async fn small_exchanges_are_not_spliced() {
    let (mut visitor, mut target, task) = piped(LIMITS).await;
    let mut buffer = [0; 1000];
    for _ in 0..50 {
        visitor.write_all(&[7; 1000]).await.unwrap();
        target.read_exact(&mut buffer).await.unwrap();
    }
    drop((visitor, target));
    assert_eq!(task.await.unwrap().spliced, 0);
}

#[tokio::test]
async fn without_half_close_the_end_waits_for_the_answer() {
    let (mut visitor, a) = tcp_pair().await;
    let (b, mut target) = memory::pair(64);
    let task = tokio::spawn(pipe(side(a), side(b), LIMITS));
    visitor.write_all(b"question").await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut question = [0; 8];
    target.read_exact(&mut question).await.unwrap();
    let answer = pattern(100_000);
    // The stream would be over for both directions by now, had the visitor's end been passed on.
    let writing = async {
        target.write_all(&answer).await.unwrap();
        drop(target);
    };
    let mut got = Vec::new();
    let (n, ()) = tokio::join!(visitor.read_to_end(&mut got), writing);
    assert_eq!(n.unwrap(), answer.len());
    assert!(got == answer);
    assert_eq!(task.await.unwrap().end, End::ClosedBy(Which::A));
}

/// A visitor that waits for the end of a close-delimited answer gets it; what it was sending arrives before.
#[tokio::test]
async fn the_end_of_the_target_reaches_a_visitor_without_half_close() {
    let (mut visitor, a) = memory::pair(64);
    let (b, mut target) = tcp_pair().await;
    let task = tokio::spawn(pipe(side(a), side(b), LIMITS));
    target.write_all(b"answer").await.unwrap();
    target.shutdown().await.unwrap();
    let mut answer = [0; 6];
    visitor.read_exact(&mut answer).await.unwrap();
    let more = pattern(100_000);
    visitor.write_all(&more).await.unwrap();
    assert_eq!(visitor.read(&mut answer).await.unwrap(), 0, "though this side has not ended");
    let mut got = Vec::new();
    target.read_to_end(&mut got).await.unwrap();
    assert!(got == more);
    assert_eq!(task.await.unwrap().end, End::ClosedBy(Which::B));
}

/// Between the target's end and its reading lies more time than a visitor may be silent.
#[tokio::test(start_paused = true)]
async fn a_target_that_has_ended_and_reads_late_gets_everything() {
    let (a, mut visitor) = memory::pair(64);
    let (b, mut target) = memory::pair(64);
    let task = tokio::spawn(pipe(side(a), side(HalfClosing(b)), LIMITS));
    target.shutdown().await.unwrap();
    let question = pattern(100_000);
    let reading = async {
        tokio::time::sleep(Duration::from_secs(200)).await;
        let mut got = Vec::new();
        target.read_to_end(&mut got).await.unwrap();
        got
    };
    let (sent, got) = tokio::join!(visitor.write_all(&question), reading);
    sent.unwrap();
    assert!(got == question, "{} bytes", got.len());
    assert_eq!(task.await.unwrap().end, End::ClosedBy(Which::B));
}

#[tokio::test]
async fn the_end_of_a_stream_without_half_close_is_the_end_of_both() {
    let (mut visitor, a) = tcp_pair().await;
    let (b, mut target) = memory::pair(64);
    let task = tokio::spawn(pipe(side(a), side(b), LIMITS));
    target.write_all(b"last words").await.unwrap();
    drop(target);
    let mut got = String::new();
    visitor.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "last words");
    drop(visitor);
    assert_eq!(task.await.unwrap().end, End::ClosedBy(Which::B));
}

#[tokio::test]
async fn unread_bytes_of_the_visitor_do_not_destroy_the_answer() {
    let (mut visitor, a) = tcp_pair().await;
    let (b, mut target) = memory::pair(64);
    let task = tokio::spawn(pipe(side(a), side(b), LIMITS));
    target.write_all(b"413").await.unwrap();
    drop(target);
    // More than goes anywhere: a close with these unread would be a reset, and this write would fail.
    visitor.write_all(&pattern(300_000)).await.unwrap();
    visitor.shutdown().await.unwrap();
    let mut got = String::new();
    visitor.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "413");
    task.await.unwrap();
}

#[tokio::test]
async fn a_reset_still_delivers_what_came_before() {
    let (mut visitor, mut target, task) = piped(LIMITS).await;
    visitor.write_all(b"before").await.unwrap();
    let mut got = [0; 6];
    target.read_exact(&mut got).await.unwrap();
    visitor.set_zero_linger().unwrap();
    drop(visitor);
    assert_eq!(target.read(&mut got).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(&got, b"before");
    let outcome = task.await.unwrap();
    assert_eq!(outcome.end, End::Error(Which::A, io::ErrorKind::ConnectionReset));
    assert_eq!(outcome.a_to_b, 6);
}

/// A write that fails takes the error away from the reader; the end that this one sees is no end.
#[tokio::test]
async fn a_target_that_resets_while_it_is_written_to_is_no_orderly_end() {
    let (mut visitor, mut target, task) = piped(LIMITS).await;
    target.write_all(b"half an answer").await.unwrap();
    let mut got = [0; 14];
    visitor.read_exact(&mut got).await.unwrap();
    target.set_zero_linger().unwrap();
    drop(target);
    // Whichever of the two is noticed first, reading or writing, the visitor must not see an orderly end.
    let _ = visitor.write_all(&pattern(100_000)).await;
    assert_eq!(visitor.read(&mut got).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(task.await.unwrap().end, End::Error(Which::B, _)));
}

/// Where there is no reset, as in smux, a stream ends as ever, and what came before is delivered.
#[tokio::test]
async fn without_a_reset_a_broken_side_is_an_end() {
    let (mut visitor, a) = tcp_pair().await;
    let (b, mut target) = memory::pair(64);
    let task = tokio::spawn(pipe(side(a), side(HalfClosing(b)), LIMITS));
    visitor.write_all(b"before").await.unwrap();
    let mut got = [0; 6];
    target.read_exact(&mut got).await.unwrap();
    visitor.set_zero_linger().unwrap();
    drop(visitor);
    assert_eq!(target.read(&mut got).await.unwrap(), 0);
    assert_eq!(task.await.unwrap().end, End::Error(Which::A, io::ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection_only_when_the_settings_say_so() {
    let idle = Limits { idle_timeout: Some(Duration::from_secs(30)), ..LIMITS };
    let (a, mut visitor) = memory::pair(64);
    let (b, mut target) = memory::pair(64);
    let began = Instant::now();
    let task = tokio::spawn(pipe(side(HalfClosing(a)), side(HalfClosing(b)), idle));
    tokio::time::sleep(Duration::from_secs(20)).await;
    visitor.write_all(b"x").await.unwrap();
    target.read_u8().await.unwrap();
    assert_eq!(visitor.read(&mut [0]).await.unwrap(), 0);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(50) && waited < Duration::from_secs(51), "{waited:?}");
    assert_eq!(task.await.unwrap().end, End::Idle);

    let (a, _visitor) = memory::pair(64);
    let (b, _target) = memory::pair(64);
    let forever = pipe(side(HalfClosing(a)), side(HalfClosing(b)), LIMITS);
    assert!(timeout(Duration::from_secs(86_400), forever).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn half_closed_silence_counts_from_the_half_close() {
    let (a, mut visitor) = memory::pair(64);
    let (b, mut target) = memory::pair(64);
    let task = tokio::spawn(pipe(side(HalfClosing(a)), side(b), LIMITS));
    tokio::time::sleep(Duration::from_secs(1000)).await;
    visitor.shutdown().await.unwrap();
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(200)).await;
    target.write_all(b"x").await.unwrap();
    assert_eq!(visitor.read_u8().await.unwrap(), b'x');
    assert_eq!(target.read(&mut [0]).await.unwrap(), 0);
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(500) && waited < Duration::from_secs(501), "{waited:?}");
    assert_eq!(task.await.unwrap().end, End::HalfClosedIdle(Which::A));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_leave_nothing_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for _ in 0..40 {
        let connections = (0..50).map(|_| async {
            let (mut visitor, mut target, task) = piped(LIMITS).await;
            // Enough for splicing to begin.
            let data = vec![3; 200_000];
            let mut got = Vec::new();
            let (_, n) = tokio::join!(
                async {
                    visitor.write_all(&data).await.unwrap();
                    visitor.shutdown().await.unwrap();
                },
                target.read_to_end(&mut got)
            );
            assert_eq!(n.unwrap(), data.len());
            drop((visitor, target));
            task.await.unwrap();
        });
        futures_util::future::join_all(connections).await;
    }
    // Other tests of this process come and go beside this one; a leak would be in the thousands.
    let left = open().saturating_sub(before);
    assert!(left < 500, "{left} descriptors more than before");
}

/// What one peer does: pieces to write, pauses between them (as turns given to others), and whether it half-closes.
#[derive(Debug, Clone)]
struct Script {
    pieces: Vec<(usize, u8)>,
    close_early: bool,
}

fn script() -> impl Strategy<Value = Script> {
    let size = prop_oneof![1..64usize, 1000..5000usize, 30_000..200_000usize];
    (prop::collection::vec((size, 0..4u8), 0..6), any::<bool>())
        .prop_map(|(pieces, close_early)| Script { pieces, close_early })
}

/// Writes by the script; reads all in random portions; then ends. Returns what was read.
async fn play(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    seed: u64,
    other: usize,
) -> Vec<u8> {
    let total = script.pieces.iter().map(|(size, _)| size).sum();
    let data = pattern(total);
    let (mut read, mut write) = split(stream);
    let writing = async {
        let mut at = 0;
        for (size, turns) in &script.pieces {
            for _ in 0..*turns {
                tokio::task::yield_now().await;
            }
            write.write_all(&data[at..at + size]).await.unwrap();
            at += size;
        }
        if script.close_early {
            write.shutdown().await.unwrap();
        }
        write
    };
    let reading = async {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut got = Vec::new();
        while got.len() < other {
            let room = random.usize(1..50_000).min(other - got.len());
            let start = got.len();
            got.resize(start + room, 0);
            let n = read.read(&mut got[start..]).await.unwrap();
            assert!(n > 0, "ended after {start} of {other} bytes");
            got.truncate(start + n);
            for _ in 0..random.usize(0..3) {
                tokio::task::yield_now().await;
            }
        }
        (got, read)
    };
    let (mut write, (got, mut read)) = tokio::join!(writing, reading);
    if !script.close_early {
        write.shutdown().await.unwrap();
    }
    let mut rest = Vec::new();
    let _ = read.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    got
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Between a socket and a stream without half-close, every byte arrives, once and in order.
    #[test]
    fn every_byte_arrives(visitor in script(), mut target in script(), seed: u64, buffer in 1..70_000usize) {
        // A stream without half-close that ends says that all is over: then nothing more can be promised to it.
        target.close_early = false;
        let size = |script: &Script| script.pieces.iter().map(|(size, _)| size).sum::<usize>();
        let (up, down) = (size(&visitor), size(&target));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, a) = tcp_pair().await;
            let (b, far) = memory::pair(buffer);
            let task = tokio::spawn(pipe(side(a), side(b), LIMITS));
            let (at_visitor, at_target) =
                tokio::join!(play(near, visitor, seed, down), play(far, target, seed ^ 1, up));
            assert!(at_target == pattern(up), "towards the target");
            assert!(at_visitor == pattern(down), "towards the visitor");
            let outcome = task.await.unwrap();
            assert_eq!((outcome.a_to_b, outcome.b_to_a), (up as u64, down as u64));
        });
    }

    /// Between two sockets half-close goes through in either order.
    #[test]
    fn every_byte_arrives_by_splice_too(visitor in script(), target in script(), seed: u64) {
        let size = |script: &Script| script.pieces.iter().map(|(size, _)| size).sum::<usize>();
        let (up, down) = (size(&visitor), size(&target));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, far, task) = piped(LIMITS).await;
            let (at_visitor, at_target) =
                tokio::join!(play(near, visitor, seed, down), play(far, target, seed ^ 1, up));
            assert!(at_target == pattern(up) && at_visitor == pattern(down));
            let outcome = task.await.unwrap();
            assert_eq!((outcome.a_to_b, outcome.b_to_a), (up as u64, down as u64));
        });
    }
}
