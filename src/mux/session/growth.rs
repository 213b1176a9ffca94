//! Windows that grow and shrink (version 2), so that a long line is filled.
//!
//! A stream never carries more than its window in one round trip. A window that limits its stream is doubled, up to
//! `max_stream_window`, and all streams of a session together grow by no more than one of them might. Whether it limits is
//! seen by how much the reader took in a round trip, and left unread: on a short line, or with a reader that is slow itself, a
//! larger one would only be a larger store.
//! A window of which little is used goes back half-way.
//!
//! smux has no ping. But its peers tell of their first read of a stream, so each stream that is written to measures the
//! round trip once. The least of what was measured counts, which drifts towards newer, longer ones.

use super::super::flow::Flow;
use super::Machine;
use std::time::Duration;

/// How much of the difference a longer round trip counts for.
const DRIFT: u32 = 8;
/// The part of a window that is used in a round trip from which on it may be what limits.
const GROW: f64 = 2.0 / 3.0;
/// A reader that keeps up leaves less than one part in so many of the window unread.
const KEPT_UP: usize = 8;
/// The part below which it is larger than need be.
const SHRINK: f64 = 1.0 / 8.0;

/// What a session knows for its windows.
#[derive(Debug, Default)]
pub(super) struct Growth {
    round_trip: Option<Duration>,
    /// By how much the windows of all streams have grown.
    pub(super) lent: usize,
}

impl Growth {
    /// A stream's first data went out so long before the peer told of its first read.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        self.round_trip = Some(match self.round_trip {
            Some(known) if round_trip > known => known + (round_trip - known) / DRIFT,
            _ => round_trip,
        });
    }

    /// The stream's reader is gone.
    pub(super) fn give_back(&mut self, flow: &mut Flow) {
        self.lent -= std::mem::take(&mut flow.grown);
    }
}

impl Machine {
    /// By how much a stream's window may be larger than usual, judged anew once a round trip; asked when an update is due.
    pub(super) fn grow(&mut self, now: Duration, id: u32) -> usize {
        let base = self.settings.max_stream_buffer;
        let most = self.settings.max_stream_window.saturating_sub(base);
        let Some(flow) = self.flows.get_mut(&id) else { return 0 };
        let Some(round_trip) = self.growth.round_trip else { return flow.grown };
        let (since, from) = *flow.epoch.get_or_insert((now, flow.consumed));
        let elapsed = now.saturating_sub(since);
        if elapsed < round_trip {
            return flow.grown;
        }
        flow.epoch = Some((now, flow.consumed));
        let window = base + flow.grown;
        let taken = f64::from(flow.consumed.wrapping_sub(from));
        let in_round_trip = taken * round_trip.as_secs_f64() / elapsed.as_secs_f64();
        let used = in_round_trip / window as f64;
        if used >= GROW && flow.unread * KEPT_UP <= window {
            let more = window.min(most - self.growth.lent);
            flow.grown += more;
            self.growth.lent += more;
        } else if used < SHRINK {
            self.growth.lent -= flow.grown.div_ceil(2);
            flow.grown /= 2;
        }
        flow.grown
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Received, Room};
    use super::*;
    use crate::mux::{Role, Settings};
    use bytes::BytesMut;
    use std::collections::VecDeque;
    use std::task::Waker;

    const MIB: usize = 1 << 20;
    /// 1 Gbit/s.
    const RATE: usize = 125_000;

    /// One direction of a line: so many bytes a millisecond, each so many milliseconds under way.
    #[derive(Default)]
    struct Lane {
        waiting: BytesMut,
        under_way: VecDeque<(u32, BytesMut)>,
        inbox: BytesMut,
    }

    /// Two sessions and what is between them.
    struct Line {
        delay: u32,
        tick: u32,
        ends: [(Machine, Lane); 2],
    }

    impl Line {
        fn new(delay: u32) -> Self {
            let end = |role| (Machine::new(role, &Settings::tunnel()), Lane::default());
            Self { delay, tick: 0, ends: [end(Role::Client), end(Role::Server)] }
        }

        /// A stream of which both ends have read something.
        fn stream(&mut self) -> u32 {
            let id = self.ends[0].0.open(BytesMut::from("header")).unwrap();
            while self.ends[1].0.accept(Waker::noop()).unwrap().is_none() {
                self.pass();
            }
            self.ends[1].0.write(id, BytesMut::from(&b"reply"[..])).unwrap();
            for _ in 0..4 * self.delay + 4 {
                self.read(0, id, MIB);
                self.read(1, id, MIB);
                self.pass();
            }
            id
        }

        fn read(&mut self, end: usize, id: u32, most: usize) -> usize {
            let machine = &mut self.ends[end].0;
            let mut n = 0;
            while n < most
                && let Received::Data(data) = machine.read(id, Waker::noop())
            {
                n += data.len();
                machine.consume(id, data.len());
            }
            n
        }

        /// One millisecond.
        fn pass(&mut self) {
            self.tick += 1;
            let now = Duration::from_millis(self.tick.into());
            for from in 0..2 {
                let (machine, lane) = &mut self.ends[from];
                while lane.waiting.len() < RATE && machine.has_output() {
                    let mut frames = VecDeque::new();
                    machine.transmit(now, &mut frames);
                    for frame in frames {
                        lane.waiting.extend_from_slice(frame.head());
                        lane.waiting.extend_from_slice(&frame.payload);
                    }
                }
                let sent = lane.waiting.split_to(lane.waiting.len().min(RATE));
                lane.under_way.push_back((self.tick + self.delay, sent));
                while lane.under_way.front().is_some_and(|(at, _)| *at <= self.tick) {
                    lane.inbox.unsplit(lane.under_way.pop_front().unwrap().1);
                }
                let mut arrived = std::mem::take(&mut lane.inbox);
                self.ends[1 - from].0.receive(now, &mut arrived).unwrap();
                self.ends[from].1.inbox = arrived;
            }
        }

        /// The first end writes all it may to each stream for so long, the other reads so much of each in a millisecond, by whole
        /// pieces; what it read in all.
        fn flood(&mut self, ids: &[u32], millis: usize, most: usize) -> usize {
            let (mut total, each) = (0, ids.len());
            for milli in 1..=millis {
                for &id in ids {
                    while let Room::Bytes(room) = self.ends[0].0.room(id, Waker::noop()) {
                        self.ends[0].0.write(id, BytesMut::zeroed(room)).unwrap();
                    }
                    total += self.read(1, id, (milli * most * each).saturating_sub(total));
                }
                self.pass();
                for (machine, _) in &self.ends {
                    let grown: usize = machine.flows.values().map(|flow| flow.grown).sum();
                    assert!(grown == machine.growth.lent && grown <= 15 * MIB);
                }
            }
            total
        }

        fn grown(&self, id: u32) -> usize {
            self.ends[1].0.flows[&id].grown
        }
    }

    #[test]
    fn a_long_line_is_filled_by_one_stream_and_by_several() {
        for count in [1, 3] {
            let mut line = Line::new(50);
            let ids: Vec<u32> = (0..count).map(|_| line.stream()).collect();
            line.flood(&ids, 1500, MIB);
            let read = line.flood(&ids, 1000, MIB);
            assert!(read > 1000 * RATE / 100 * 95, "{count} streams: {} %", read / RATE / 10);
        }
    }

    #[test]
    fn what_is_not_limited_by_its_window_keeps_the_usual_one() {
        let mut short = Line::new(1);
        let id = short.stream();
        short.flood(&[id], 1000, MIB);
        assert_eq!(short.grown(id), 0, "a short line");
        let mut long = Line::new(50);
        let id = long.stream();
        long.flood(&[id], 3000, 4 * 1024);
        assert_eq!(long.grown(id), 0, "a slow reader");
    }

    #[test]
    fn a_window_goes_back_when_its_reader_slows_down_or_goes() {
        let mut line = Line::new(50);
        let id = line.stream();
        line.flood(&[id], 1500, MIB);
        assert!(line.grown(id) > 4 * MIB, "{}", line.grown(id));
        line.flood(&[id], 20_000, 1024);
        assert!(line.grown(id) < MIB, "{}", line.grown(id));
        line.flood(&[id], 1500, MIB);
        line.ends[1].0.drop_stream(Duration::from_secs(30), id);
        assert_eq!(line.ends[1].0.growth.lent, 0);
    }
}
