//! Two state machines joined in memory, driven by random operations and a clock moved by hand, against a model that knows
//! only how many bytes of each stream were written and read.

use super::flow::Broken;
use super::session::{Machine, Outgoing, Received, Room};
use super::{CloseReason, Kind, Role, Settings};
use crate::wire::smux::{Command, Decoder, Header, Item, Version};
use bytes::BytesMut;
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

/// What one end knows of a stream.
#[derive(Debug, Default)]
struct End {
    written: usize,
    read: usize,
    finished: bool,
    dropped: bool,
    saw_end: bool,
}

struct Side {
    machine: Machine,
    /// Sent and not carried yet.
    wire: BytesMut,
    /// Carried here, an unfinished frame.
    inbox: BytesMut,
    ends: HashMap<u32, End>,
}

struct Pair {
    now: Duration,
    sides: [Side; 2],
    ids: Vec<u32>,
}

/// The byte at a place of a stream, different for each stream and direction.
fn byte(side: usize, id: u32, at: usize) -> u8 {
    (at as u32).wrapping_mul(31).wrapping_add(id * 7 + side as u32 * 101).to_le_bytes()[at % 3]
}

fn payload(side: usize, id: u32, from: usize, len: usize) -> BytesMut {
    (from..from + len).map(|at| byte(side, id, at)).collect()
}

fn collect(side: &mut Side, now: Duration) {
    let mut frames: VecDeque<Outgoing> = VecDeque::new();
    side.machine.transmit(now, &mut frames);
    for frame in frames {
        side.wire.extend_from_slice(frame.head());
        side.wire.extend_from_slice(&frame.payload);
    }
}

impl Pair {
    fn new(settings: &Settings) -> Self {
        let side = |role| Side {
            machine: Machine::new(role, settings),
            wire: BytesMut::new(),
            inbox: BytesMut::new(),
            ends: HashMap::new(),
        };
        Self { now: Duration::ZERO, sides: [side(Role::Client), side(Role::Server)], ids: Vec::new() }
    }

    fn open(&mut self, side: usize) {
        if let Ok(id) = self.sides[side].machine.open(BytesMut::new()) {
            self.sides[side].ends.insert(id, End::default());
            self.ids.push(id);
        }
    }

    fn write(&mut self, side: usize, id: u32, len: usize) {
        let Side { machine, ends, .. } = &mut self.sides[side];
        let Some(end) = ends.get_mut(&id).filter(|e| !e.dropped) else { return };
        if let Room::Bytes(room) = machine.room(id, Waker::noop()) {
            let n = len.min(room);
            if machine.write(id, payload(side, id, end.written, n)).is_some() {
                end.written += n;
            }
        }
    }

    /// Reads a piece; false when there was none.
    fn read(&mut self, side: usize, id: u32) -> bool {
        let Side { machine, ends, .. } = &mut self.sides[side];
        let Some(end) = ends.get_mut(&id).filter(|e| !e.dropped) else { return false };
        match machine.read(id, Waker::noop()) {
            Received::Data(data) => {
                assert!(!end.saw_end, "data after the end");
                assert_eq!(
                    data[..],
                    payload(1 - side, id, end.read, data.len())[..],
                    "stream {id} at {}",
                    end.read
                );
                end.read += data.len();
                machine.consume(id, data.len());
                true
            }
            Received::End => {
                end.saw_end = true;
                false
            }
            Received::Wait => false,
            other => panic!("stream {id}: {other:?}"),
        }
    }

    fn finish(&mut self, side: usize, id: u32, drop: bool) {
        let Side { machine, ends, .. } = &mut self.sides[side];
        let Some(end) = ends.get_mut(&id).filter(|e| !e.dropped) else { return };
        end.finished = true;
        if drop {
            end.dropped = true;
            machine.drop_stream(self.now, id);
        } else {
            machine.finish(id);
        }
    }

    /// Moves up to `len` bytes from one side to the other.
    fn carry(&mut self, from: usize, len: usize) {
        collect(&mut self.sides[from], self.now);
        // A driver stops reading as well: the bytes stay on the wire.
        if !self.sides[1 - from].machine.wants_bytes(self.now) {
            return;
        }
        let n = len.min(self.sides[from].wire.len());
        let bytes = self.sides[from].wire.split_to(n);
        let to = &mut self.sides[1 - from];
        to.inbox.extend_from_slice(&bytes);
        to.machine.receive(self.now, &mut to.inbox).unwrap();
        while let Ok(Some(id)) = to.machine.accept(Waker::noop()) {
            to.ends.insert(id, End::default());
        }
    }

    fn check(&self) {
        for side in &self.sides {
            side.machine.check();
        }
    }

    fn settle(&mut self) {
        loop {
            let before: Vec<usize> = self.progress();
            for side in [0, 1] {
                self.carry(side, usize::MAX);
                for id in self.ids.clone() {
                    while self.read(1 - side, id) {}
                }
            }
            self.check();
            if before == self.progress()
                && self.sides.iter().all(|s| s.wire.is_empty() && !s.machine.has_output())
            {
                return;
            }
        }
    }

    fn progress(&self) -> Vec<usize> {
        self.ids
            .iter()
            .flat_map(|id| self.sides.iter().map(|s| s.ends.get(id).map_or(0, |e| e.read)))
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Open(usize),
    Write(usize, prop::sample::Index, usize),
    Read(usize, prop::sample::Index),
    Finish(usize, prop::sample::Index, bool),
    Carry(usize, usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let side = 0..2_usize;
    prop_oneof![
        2 => side.clone().prop_map(Op::Open),
        8 => (side.clone(), any::<prop::sample::Index>(), 1..200_000_usize).prop_map(|(s, i, n)| Op::Write(s, i, n)),
        8 => (side.clone(), any::<prop::sample::Index>()).prop_map(|(s, i)| Op::Read(s, i)),
        1 => (side.clone(), any::<prop::sample::Index>(), any::<bool>()).prop_map(|(s, i, d)| Op::Finish(s, i, d)),
        8 => (side, prop_oneof![1..20_usize, 1..300_000_usize]).prop_map(|(s, n)| Op::Carry(s, n)),
        1 => (0..9_000_u64).prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_byte_arrives_once_and_in_order(
        v1 in any::<bool>(),
        window in prop_oneof![Just(1 << 20), Just(1000), 1..300_000_usize],
        ops in prop::collection::vec(op(), 0..250),
    ) {
        let kind = if v1 { Kind::SmuxV1 } else { Kind::SmuxV2 };
        let settings = Settings { kind, max_stream_buffer: window, max_streams: 5, ..Settings::tunnel() };
        let mut pair = Pair::new(&settings);
        for op in ops {
            let pick = |index: prop::sample::Index, pair: &Pair| (!pair.ids.is_empty()).then(|| *index.get(&pair.ids));
            match op {
                Op::Open(side) => pair.open(side),
                Op::Write(side, index, n) => if let Some(id) = pick(index, &pair) { pair.write(side, id, n) },
                Op::Read(side, index) => if let Some(id) = pick(index, &pair) { pair.read(side, id); },
                Op::Finish(side, index, drop) => if let Some(id) = pick(index, &pair) { pair.finish(side, id, drop) },
                Op::Carry(from, n) => pair.carry(from, n),
                Op::Wait(millis) => pair.now += Duration::from_millis(millis),
            }
            pair.check();
        }
        pair.settle();
        for (from, id) in pair.ids.iter().flat_map(|id| [(0, id), (1, id)]) {
            let (Some(writer), Some(reader)) = (pair.sides[from].ends.get(id), pair.sides[1 - from].ends.get(id)) else { continue };
            // Whoever ends a stream gives up what the other has not sent yet: smux has no half-close.
            if !reader.finished {
                prop_assert_eq!(reader.read, writer.written, "stream {} from side {}", id, from);
                prop_assert_eq!(reader.saw_end, writer.finished);
            }
            prop_assert!(reader.read <= writer.written);
        }
    }
}

#[test]
fn streams_take_turns() {
    let settings = Settings { max_frame_size: 1000, ..Settings::tunnel() };
    let mut machine = Machine::new(Role::Client, &settings);
    let ids: Vec<u32> = (0..10).map(|_| machine.open(BytesMut::new()).unwrap()).collect();
    // The first has far more to send than the others.
    for &id in &ids {
        let len = if id == ids[0] { 100_000 } else { 5_000 };
        machine.write(id, payload(0, id, 0, len)).unwrap();
    }
    let mut wire = BytesMut::new();
    let mut frames = VecDeque::new();
    while machine.has_output() {
        machine.transmit(Duration::ZERO, &mut frames);
        frames.drain(..).for_each(|f| wire.extend([f.head(), &f.payload].concat()));
    }
    let mut decoder = Decoder::new(Version::V2);
    let mut turns: Vec<u32> = Vec::new();
    while let Some(item) = decoder.next(&mut wire).unwrap() {
        if let Item::Data(id, _) = item {
            turns.push(id);
        }
    }
    assert_eq!(turns[..50], ids.repeat(5)[..]);
    assert_eq!(turns.len(), 100 + 9 * 5);
}

#[test]
fn version_2_sends_what_the_window_allows_and_no_more() {
    let mut machine = Machine::new(Role::Client, &Settings::tunnel());
    let id = machine.open(BytesMut::new()).unwrap();
    let mut sent = 0;
    let mut fill = |machine: &mut Machine| {
        let mut frames = VecDeque::new();
        while let Room::Bytes(n) = machine.room(id, Waker::noop()) {
            machine.write(id, payload(0, id, 0, n)).unwrap();
            machine.transmit(Duration::ZERO, &mut frames);
        }
        sent += frames.iter().map(|f| f.payload.len()).sum::<usize>();
        sent
    };
    assert_eq!(fill(&mut machine), 262_144);
    let header = Header { command: Command::Upd, length: 8, id }.encode(Version::V2);
    let mut update = BytesMut::from(&header[..]);
    update.extend_from_slice(&100_000_u32.to_le_bytes());
    update.extend_from_slice(&300_000_u32.to_le_bytes());
    machine.receive(Duration::ZERO, &mut update).unwrap();
    let mut frames = VecDeque::new();
    machine.transmit(Duration::ZERO, &mut frames);
    let burst: usize = frames.iter().map(|f| f.payload.len()).sum();
    assert_eq!(burst + fill(&mut machine), 400_000);
}

#[test]
fn an_id_is_used_once() {
    let mut machine = Machine::new(Role::Client, &Settings::tunnel());
    machine.skip_ids(u32::MAX - 2);
    assert_eq!(machine.open(BytesMut::new()), Ok(u32::MAX - 2));
    assert_eq!(machine.open(BytesMut::new()), Ok(u32::MAX));
    assert_eq!(machine.open(BytesMut::new()), Err(super::OpenError::Exhausted));
}

#[test]
fn data_that_a_dead_peer_stream_never_takes_is_given_up() {
    let mut machine =
        Machine::new(Role::Client, &Settings { keepalive_interval: None, ..Settings::tunnel() });
    let id = machine.open(BytesMut::new()).unwrap();
    let mut frames = VecDeque::new();
    while let Room::Bytes(n) = machine.room(id, Waker::noop()) {
        machine.write(id, payload(0, id, 0, n)).unwrap();
        machine.transmit(Duration::ZERO, &mut frames);
    }
    machine.drop_stream(Duration::ZERO, id);
    let at = machine.next_timeout().unwrap();
    machine.handle_timeout(at - Duration::from_millis(1)).unwrap();
    assert!(!machine.has_output());
    machine.handle_timeout(at).unwrap();
    frames.clear();
    machine.transmit(at, &mut frames);
    assert_eq!(frames[0].head(), Header { command: Command::Fin, length: 0, id }.encode(Version::V2));
    assert_eq!(machine.streams(), 0);
}

#[test]
fn version_1_pauses_for_a_full_stream_and_ends_it_when_nothing_moves() {
    let settings = Settings { kind: Kind::SmuxV1, max_stream_buffer: 1000, ..Settings::tunnel() };
    let mut machine = Machine::new(Role::Server, &settings);
    let frame = |command, length, id| Header { command, length, id }.encode(Version::V1);
    let mut bytes = BytesMut::from(&frame(Command::Syn, 0, 3)[..]);
    bytes.extend_from_slice(&frame(Command::Psh, 1000, 3));
    bytes.extend_from_slice(&[1; 1000]);
    machine.receive(Duration::ZERO, &mut bytes).unwrap();
    assert!(!machine.wants_bytes(Duration::ZERO));
    let stall = settings.stall_timeout;
    assert_eq!(machine.handle_timeout(stall), Ok(()));
    assert!(machine.wants_bytes(stall));
    assert!(matches!(machine.read(3, Waker::noop()), Received::Broken(Broken::Stalled)));
    // Time spent not listening is not held against the peer.
    let silence = stall + settings.keepalive_timeout;
    assert_eq!(machine.handle_timeout(silence - Duration::from_millis(1)), Ok(()));
    assert_eq!(machine.handle_timeout(silence), Err(CloseReason::Silent(settings.keepalive_timeout)));
}
