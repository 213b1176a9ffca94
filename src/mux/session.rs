//! A smux session without I/O and without a clock: ids, windows, bounds, deadlines.
//!
//! Time is an argument, counted from the session's start. Bytes come in through [`Machine::receive`] and frames go out
//! through [`Machine::transmit`]; both belong to `driver`. `handles` has what streams and sessions ask for, `peer` what the
//! other end says, `sending` whose turn it is, `deadlines` when something is over.
//!
//! **Unread data.** Version 2: each stream may hold its window. Once the session holds half of `max_receive_buffer` the
//! windows advertised from then on shrink, down to `MIN_WINDOW` (`growth` has when they are larger); a session is never paused for one stream. At
//! `HARD_FACTOR` / 2 times `max_receive_buffer` new streams are refused, and at `HARD_FACTOR` times it the transport
//! is not read any more. Version 1 has no windows: the transport is not read while a stream holds `max_stream_buffer` or the
//! session holds `max_receive_buffer`. **While reading is paused**, a stream that stands in the way and whose reader takes
//! less than `MIN_PROGRESS` in `stall_timeout` is ended: FIN to the peer, and an error to its reader.

pub(super) mod deadlines;
mod growth;
mod handles;
mod ids;
mod peer;
mod sending;

use super::flow::{Broken, Flow};
use super::{CloseReason, Kind, Role, Settings};
use crate::wire::smux::{Decoder, Version};
use growth::Growth;
use ids::ById;
use std::collections::{HashMap, HashSet, VecDeque};
use std::task::Waker;
use std::time::Duration;

pub(super) use handles::{Received, Room};
pub(super) use sending::Outgoing;

/// How long data of a dropped stream waits for the peer's window; a peer that reads nothing would keep it for ever.
const LINGER: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Machine {
    version: Version,
    settings: Settings,
    decoder: Decoder,
    flows: HashMap<u32, Flow, ById>,
    next_id: Option<u32>,
    /// Streams with something to send, each in it once.
    ready: VecDeque<u32>,
    /// Refused streams that FIN is due for.
    refusals: VecDeque<u32>,
    nop_due: bool,
    /// Streams of the peer that wait for `accept`.
    backlog: VecDeque<u32>,
    accepting: bool,
    unread: usize,
    queued: usize,
    pinning: usize,
    growth: Growth,
    /// Version 1: streams at their bound.
    full: HashSet<u32>,
    /// Since when the transport is not read.
    paused: bool,
    stall_check: Option<Duration>,
    lingering: HashSet<u32>,
    linger_check: Option<Duration>,
    last_heard: Duration,
    last_sent: Duration,
    /// Set by `close`: when to end even with data unsent.
    closing: Option<Duration>,
    handles_gone: bool,
    over: Option<CloseReason>,
    /// Set by the driver while it sleeps.
    pub(super) driver: Option<Waker>,
    pub(super) acceptor: Option<Waker>,
    /// To be woken once the lock is released.
    wakes: Vec<Waker>,
}

impl Machine {
    pub(super) fn new(role: Role, settings: &Settings) -> Self {
        let version = if settings.kind == Kind::SmuxV1 { Version::V1 } else { Version::V2 };
        Self {
            version,
            settings: settings.clone(),
            decoder: Decoder::new(version),
            flows: HashMap::default(),
            next_id: Some(if role == Role::Client { 3 } else { 2 }),
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            nop_due: false,
            backlog: VecDeque::new(),
            accepting: true,
            unread: 0,
            queued: 0,
            pinning: 0,
            growth: Growth::default(),
            full: HashSet::new(),
            paused: false,
            stall_check: None,
            lingering: HashSet::new(),
            linger_check: None,
            last_heard: Duration::ZERO,
            last_sent: Duration::ZERO,
            closing: None,
            handles_gone: false,
            over: None,
            driver: None,
            acceptor: None,
            wakes: Vec::new(),
        }
    }

    /// Ends everything: readers get what was received, then the reason.
    pub(super) fn end(&mut self, reason: CloseReason) {
        self.over.get_or_insert(reason);
        self.ready.clear();
        self.refusals.clear();
        self.backlog.clear();
        self.wakes.extend(self.acceptor.take());
        self.flows.retain(|_, flow| {
            flow.discard_queue();
            self.wakes.extend(flow.read_waker.take());
            self.wakes.extend(flow.write_waker.take());
            !flow.dropped
        });
        self.queued = 0;
    }

    /// Whom to wake once the lock is released; the usual single one costs no allocation.
    pub(super) fn take_wakes(&mut self) -> (Option<Waker>, Vec<Waker>) {
        let one = self.wakes.pop();
        if self.wakes.is_empty() {
            return (one, Vec::new());
        }
        // So many are likely to be woken the next time, too.
        let room = Vec::with_capacity(self.wakes.len());
        (one, std::mem::replace(&mut self.wakes, room))
    }

    fn break_stream(&mut self, id: u32, broken: Broken) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.broken.get_or_insert(broken);
        flow.fin_due = true;
        flow.full = false;
        self.full.remove(&id);
        self.queued -= flow.queued;
        flow.discard_queue();
        self.wakes.extend(flow.read_waker.take());
        self.wakes.extend(flow.write_waker.take());
        self.schedule(id);
    }

    fn forget_if_done(&mut self, id: u32) {
        if self.flows.get(&id).is_some_and(|flow| flow.dropped && flow.fin_sent) {
            self.flows.remove(&id);
            self.lingering.remove(&id);
        }
    }

    fn wake_driver(&mut self) {
        self.wakes.extend(self.driver.take());
    }
}

#[cfg(test)]
impl Machine {
    /// Checks the sums, and that no stream has more under way than the peer ever allowed.
    pub(super) fn check(&self) {
        assert_eq!(self.unread, self.flows.values().map(|f| f.unread).sum::<usize>());
        assert_eq!(self.queued, self.flows.values().map(|f| f.queued).sum::<usize>());
        assert_eq!(self.ready.len(), self.flows.values().filter(|f| f.scheduled).count());
        for (id, flow) in &self.flows {
            let (in_flight, window) = flow.in_flight();
            let first = crate::wire::smux::INITIAL_WINDOW;
            assert!(
                self.version == Version::V1 || in_flight <= window.max(first),
                "stream {id}: {in_flight} of {window}"
            );
            assert!(flow.scheduled || self.over.is_some() || !flow.wants_turn(), "stream {id} was forgotten");
        }
    }

    pub(super) fn skip_ids(&mut self, next: u32) {
        self.next_id = Some(next);
    }
}
