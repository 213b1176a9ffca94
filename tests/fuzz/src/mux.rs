//! Random operations on two joined smux sessions, over a transport that takes and gives bytes in random pieces.
//!
//! The model knows only how much of each stream was written and read. Whatever is done, no byte is lost, doubled or out
//! of order, an end is seen where there is one and nowhere else, and the sessions end when nobody uses them any more.

use super::link;
use bytes::Bytes;
use pointsman::mux::{self, Incoming, Kind, Role, Session, Settings, Stream};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{sleep, timeout};

/// Streams that one side may open: fewer than are refused.
const MAX_OPENED: usize = 8;
/// The largest write, read and frame.
const LARGEST: usize = 65_535;
/// What is written on a stream repeats after so many bytes; a number that no buffer has in common with it.
const PERIOD: usize = 70_001;

/// The first bytes of `data` choose the settings, each pair that follows is an operation and its size.
pub fn mux(data: &[u8]) {
    let Some((&[version, frame, window, seed], ops)) = data.split_first_chunk() else { return };
    let settings = Settings {
        kind: if version % 2 == 0 { Kind::SmuxV2 } else { Kind::SmuxV1 },
        max_frame_size: size(frame),
        max_stream_buffer: 5 * size(window),
        ..Settings::tunnel()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut pair = Pair::new(&settings, seed);
        for op in ops.chunks_exact(2) {
            pair.operate(op[0], op[1]).await;
        }
        pair.settle().await;
        pair.check();
        pair.end().await;
    });
}

/// Sizes from 1 byte to [`LARGEST`], small ones exactly.
fn size(byte: u8) -> usize {
    let n = usize::from(byte) + 1;
    if n <= 128 { n } else { (n - 128) * LARGEST / 128 }
}

/// Both ends of a stream, by side; what is counted for a side is what that side wrote or read.
struct Joint {
    /// What each side writes.
    noise: [Vec<u8>; 2],
    ends: [Option<Stream>; 2],
    accepted: bool,
    written: [usize; 2],
    read: [usize; 2],
    /// Ended by this side, be it by dropping it.
    finished: [bool; 2],
    /// This side was told that the other has ended.
    saw_end: [bool; 2],
}

struct Side {
    session: Session,
    incoming: Incoming,
    driver: JoinHandle<()>,
}

struct Pair {
    sides: [Side; 2],
    /// By who opened them, in that order.
    joints: [Vec<Joint>; 2],
}

impl Pair {
    fn new(settings: &Settings, seed: u8) -> Self {
        let (a, b) = link::join(seed);
        let side = |io, role| {
            let (session, incoming, driver) = mux::start(Box::new(io), Bytes::new(), role, settings);
            Side { session, incoming, driver: tokio::spawn(driver) }
        };
        Self { sides: [side(a, Role::Client), side(b, Role::Server)], joints: Default::default() }
    }

    async fn operate(&mut self, op: u8, arg: u8) {
        let side = usize::from(op >> 3 & 1);
        match op & 7 {
            0 => self.open(side),
            7 => self.turns(64).await,
            6 => self.turns(arg % 16).await,
            _ => {
                let index = usize::from(op >> 4);
                let joints = &mut self.joints[index % 2];
                let index = index / 2 % joints.len().max(1);
                let Some(joint) = joints.get_mut(index) else { return };
                match op & 7 {
                    1 | 2 => joint.write(side, size(arg)).await,
                    3 | 4 => drop(joint.read(index, side, size(arg)).await),
                    _ => joint.finish(side, arg % 2 == 1).await,
                }
            }
        }
    }

    fn open(&mut self, side: usize) {
        if self.joints[side].len() < MAX_OPENED {
            let stream = self.sides[side].session.open(Bytes::new()).expect("a session that lives");
            let seed = (self.joints[side].len() * 2 + side) as u64;
            let mut joint = Joint::new(seed);
            joint.ends[side] = Some(stream);
            self.joints[side].push(joint);
        }
    }

    /// Lets the drivers work.
    async fn turns(&mut self, count: u8) {
        for _ in 0..count {
            yield_now().await;
        }
        for side in [0, 1] {
            let opened = &mut self.joints[1 - side];
            while let Some(joint) = opened.iter_mut().find(|j| !j.accepted) {
                let accepted = tokio::select! {
                    biased;
                    stream = self.sides[side].incoming.accept() => stream.expect("a session that lives"),
                    () = std::future::ready(()) => break,
                };
                joint.ends[side] = Some(accepted);
                joint.accepted = true;
            }
        }
    }

    /// Reads everything until nothing moves any more.
    async fn settle(&mut self) {
        let mut still = 0;
        while still < 3 {
            // The paused clock moves when no task has anything left to do.
            sleep(Duration::from_millis(1)).await;
            self.turns(1).await;
            let mut moved = false;
            for joints in &mut self.joints {
                for (index, joint) in joints.iter_mut().enumerate() {
                    for side in [0, 1] {
                        while joint.read(index, side, LARGEST).await {
                            moved = true;
                        }
                    }
                }
            }
            still = if moved { 0 } else { still + 1 };
        }
    }

    fn check(&self) {
        for (index, joint) in self.joints.iter().flat_map(|joints| joints.iter().enumerate()) {
            assert!(joint.accepted, "stream {index} never arrived");
            for side in [0, 1] {
                let (read, written) = (joint.read[side], joint.written[1 - side]);
                assert!(read <= written);
                // Whoever ends a stream gives up what the other has not sent yet: smux has no half-close.
                if !joint.finished[side] {
                    assert_eq!(read, written, "stream {index} at side {side}");
                    assert_eq!(
                        joint.saw_end[side],
                        joint.finished[1 - side],
                        "stream {index} at side {side}"
                    );
                }
            }
        }
    }

    async fn end(self) {
        drop(self.joints);
        let [a, b] = self.sides;
        drop((a.session, a.incoming, b.session, b.incoming));
        for driver in [a.driver, b.driver] {
            timeout(Duration::from_secs(10), driver)
                .await
                .expect("a session without users ends")
                .expect("no panic");
        }
    }
}

impl Joint {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut noise = || std::iter::repeat_with(|| random.u8(..)).take(PERIOD).collect();
        Self {
            noise: [noise(), noise()],
            ends: [None, None],
            accepted: false,
            written: [0; 2],
            read: [0; 2],
            finished: [false; 2],
            saw_end: [false; 2],
        }
    }

    async fn write(&mut self, side: usize, len: usize) {
        let Some(stream) = &mut self.ends[side] else { return };
        let data = &self.noise[side][self.written[side] % PERIOD..];
        let data = &data[..len.min(data.len())];
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, data))).await {
            Poll::Ready(Ok(n)) => self.written[side] += n,
            Poll::Ready(Err(e)) => assert!(self.finished[0] || self.finished[1], "{e}"),
            Poll::Pending => {}
        }
    }

    /// Whether anything came.
    async fn read(&mut self, index: usize, side: usize, max: usize) -> bool {
        let Some(stream) = &mut self.ends[side] else { return false };
        let mut room = vec![0; max];
        let mut buf = ReadBuf::new(&mut room);
        let read = poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_read(cx, &mut buf))).await;
        let Poll::Ready(read) = read else { return false };
        read.expect("nothing breaks a stream");
        for piece in buf.filled().chunks(PERIOD) {
            let at = self.read[side] % PERIOD;
            let (first, rest) = piece.split_at(piece.len().min(PERIOD - at));
            let noise = &self.noise[1 - side];
            assert!(noise[at..].starts_with(first) && noise.starts_with(rest), "stream {index} at {at}");
            self.read[side] += piece.len();
        }
        if buf.filled().is_empty() {
            self.saw_end[side] = true;
        } else {
            assert!(!self.saw_end[side], "data after the end");
        }
        !buf.filled().is_empty()
    }

    async fn finish(&mut self, side: usize, drop: bool) {
        let Some(stream) = &mut self.ends[side] else { return };
        self.finished[side] = true;
        if drop {
            self.ends[side] = None;
        } else {
            let ended = poll_fn(|cx| Pin::new(&mut *stream).poll_shutdown(cx)).await;
            ended.expect("an end that waits for nobody");
        }
    }
}
