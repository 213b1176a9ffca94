//! A smux session without I/O and without a clock: ids, windows, bounds, deadlines.
//!
//! Time is an argument, counted from the session's start. Bytes come in through [`Machine::receive`] and frames go out
//! through [`Machine::transmit`]; both belong to `driver`. The other methods belong to the handles in `stream`.
//!
//! **Unread data.** Version 2: each stream may hold its window. Once the session holds half of `max_receive_buffer` the
//! windows advertised from then on shrink, down to [`MIN_WINDOW`]; a session is never paused for one stream. At
//! `HARD_FACTOR` / 2 times `max_receive_buffer` new streams are refused, and at `HARD_FACTOR` times it the transport
//! is not read any more. Version 1 has no windows: the transport is not read while a stream holds `max_stream_buffer` or the
//! session holds `max_receive_buffer`. **While reading is paused**, a stream that stands in the way and whose reader takes
//! less than `MIN_PROGRESS` in `STALL` is ended: FIN to the peer; its reader gets what was received, then an error.

pub(super) mod deadlines;

use super::flow::{Broken, Flow};
use super::{CloseReason, Kind, OpenError, Role, Settings};
use crate::wire::Malformed;
use crate::wire::smux::{Command, Decoder, HEADER_LEN, Header, Item, MAX_PAYLOAD, UPDATE_LEN, Version};
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, HashSet, VecDeque};
use std::task::Waker;
use std::time::Duration;

/// Streams of the peer that nobody accepted yet; more are refused. Without it a peer could open streams faster than
/// anyone looks at them.
pub(super) const BACKLOG: usize = 1024;
/// Bytes that one stream may have queued for sending; further writes wait.
pub(super) const SEND_BUFFER: usize = 128 * 1024;
/// Bytes that all streams together may have queued; beyond it each gets [`SEND_BUFFER_LEAST`] only. A peer that reads
/// nothing would otherwise cost [`SEND_BUFFER`] for each of its streams.
const SEND_BUFFER_TOTAL: usize = 16 * 1024 * 1024;
const SEND_BUFFER_LEAST: usize = 8 * 1024;
/// Smallest window advertised when the session holds too much.
const MIN_WINDOW: usize = 64 * 1024;
/// How long data of a dropped stream waits for the peer's window; a peer that reads nothing would keep it for ever.
pub(super) const LINGER: Duration = Duration::from_secs(300);
/// How long a closed session may take to send what it still has.
const CLOSE_LINGER: Duration = Duration::from_secs(5);
/// What one call of [`Machine::transmit`] collects: more would delay window updates and new streams.
const BATCH_BYTES: usize = 256 * 1024;
/// The same in frames.
const BATCH_FRAMES: usize = 64;

/// A frame on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    head: [u8; HEADER_LEN + UPDATE_LEN],
    head_len: usize,
    pub(super) payload: Bytes,
}

impl Outgoing {
    /// The header, and the payload of an update.
    pub(super) fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }
}

/// What a reader gets.
#[derive(Debug)]
pub(super) enum Received {
    Data(Bytes),
    End,
    Broken(Broken),
    /// The session is over.
    Lost(CloseReason),
    Wait,
}

/// What a writer gets.
#[derive(Debug)]
pub(super) enum Room {
    Bytes(usize),
    /// The stream takes no more data.
    Ended,
    Wait,
}

#[derive(Debug)]
pub(super) struct Machine {
    version: Version,
    settings: Settings,
    decoder: Decoder,
    flows: HashMap<u32, Flow>,
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
            flows: HashMap::new(),
            next_id: Some(if role == Role::Client { 3 } else { 2 }),
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            nop_due: false,
            backlog: VecDeque::new(),
            accepting: true,
            unread: 0,
            queued: 0,
            pinning: 0,
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

    // The driver's side.

    /// Takes every complete item off `buf`.
    pub(super) fn receive(&mut self, now: Duration, buf: &mut BytesMut) -> Result<(), Malformed> {
        self.last_heard = now;
        while let Some(item) = self.decoder.next(buf)? {
            match item {
                Item::Nop => {}
                Item::Syn(id) => self.on_syn(id),
                Item::Data(id, data) => self.on_data(now, id, data),
                Item::Fin(id) => self.on_fin(id),
                Item::Update(id, update) => {
                    let Some(flow) = self.flows.get_mut(&id) else { continue };
                    match flow.on_update(update) {
                        Ok(()) if self.lingering.contains(&id) => flow.linger_until = now + LINGER,
                        Ok(()) => {}
                        Err(broken) => self.break_stream(id, broken),
                    }
                    self.schedule(id);
                }
            }
        }
        Ok(())
    }

    /// Collects the next batch of frames: answers first, then one frame of each stream in turn.
    pub(super) fn transmit(&mut self, now: Duration, out: &mut VecDeque<Outgoing>) {
        let before = out.len();
        if std::mem::take(&mut self.nop_due) {
            out.push_back(self.frame(Command::Nop, 0));
        }
        while out.len() < BATCH_FRAMES
            && let Some(id) = self.refusals.pop_front()
        {
            out.push_back(self.frame(Command::Fin, id));
        }
        let mut bytes = 0;
        // One turn adds up to four frames.
        while out.len() + 4 <= BATCH_FRAMES && bytes < BATCH_BYTES {
            let Some(id) = self.ready.pop_front() else { break };
            bytes += self.take_turn(id, out);
        }
        if out.len() > before {
            self.last_sent = now;
        }
    }

    /// One stream's turn: SYN before its data, one frame of data, FIN behind the last.
    fn take_turn(&mut self, id: u32, out: &mut VecDeque<Outgoing>) -> usize {
        let window = self.window();
        let max = self.settings.max_frame_size.clamp(1, MAX_PAYLOAD);
        let version = self.version;
        let Some(flow) = self.flows.get_mut(&id) else { return 0 };
        flow.scheduled = false;
        let mut bytes = 0;
        if std::mem::take(&mut flow.syn_due) {
            out.push_back(outgoing(version, Command::Syn, id));
        }
        if flow.update_due {
            let update = flow.update(window);
            let header = Header { command: Command::Upd, length: UPDATE_LEN as u16, id };
            let mut head = [0; HEADER_LEN + UPDATE_LEN];
            head[..HEADER_LEN].copy_from_slice(&header.encode(version));
            head[HEADER_LEN..].copy_from_slice(&update.encode());
            out.push_back(Outgoing { head, head_len: head.len(), payload: Bytes::new() });
        }
        if let Some(payload) = flow.take(max) {
            bytes = payload.len();
            self.queued -= bytes;
            let mut frame = outgoing(version, Command::Psh, id);
            let header = Header { command: Command::Psh, length: bytes as u16, id };
            frame.head[..HEADER_LEN].copy_from_slice(&header.encode(version));
            frame.payload = payload;
            out.push_back(frame);
            // Waking at half empty lets a writer fill the buffer in large pieces.
            if flow.queued <= SEND_BUFFER_LEAST / 2
                || (flow.queued <= SEND_BUFFER / 2 && self.queued < SEND_BUFFER_TOTAL)
            {
                self.wakes.extend(flow.write_waker.take());
            }
        }
        if flow.fin_due && !flow.fin_sent && flow.queued == 0 {
            flow.fin_sent = true;
            flow.update_due = false;
            out.push_back(outgoing(version, Command::Fin, id));
            self.forget_if_done(id);
        }
        self.schedule(id);
        bytes
    }

    fn frame(&self, command: Command, id: u32) -> Outgoing {
        outgoing(self.version, command, id)
    }

    /// Notes that the transport took bytes.
    pub(super) fn sent(&mut self, now: Duration) {
        self.last_sent = now;
    }

    /// Whether the driver has to run again before it may sleep.
    pub(super) fn has_output(&self) -> bool {
        self.nop_due || !self.refusals.is_empty() || !self.ready.is_empty()
    }

    /// Whether a closed session has nothing left to send.
    pub(super) fn is_drained(&self) -> bool {
        let idle = self.handles_gone && self.flows.is_empty();
        ((self.closing.is_some() && self.queued == 0) || idle) && !self.has_output()
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
        let more = if self.wakes.is_empty() { Vec::new() } else { std::mem::take(&mut self.wakes) };
        (one, more)
    }

    // The handles' side.

    pub(super) fn open(&mut self, header: Bytes) -> Result<u32, OpenError> {
        if let Some(reason) = &self.over {
            return Err(OpenError::Closed(reason.clone()));
        }
        if self.closing.is_some() {
            return Err(OpenError::Closed(CloseReason::Local));
        }
        if self.flows.len() >= self.settings.max_streams {
            return Err(OpenError::TooMany(self.settings.max_streams));
        }
        if self.unread >= self.hard_bound() / 2 {
            return Err(OpenError::Unread);
        }
        let id = loop {
            let id = self.next_id.ok_or(OpenError::Exhausted)?;
            self.next_id = id.checked_add(2);
            // The peer may have used an id of our parity: nobody checks.
            if !self.flows.contains_key(&id) {
                break id;
            }
        };
        let mut flow = Flow::new(self.version == Version::V2);
        flow.syn_due = true;
        self.queued += header.len();
        flow.push(BytesMut::from(header));
        self.flows.insert(id, flow);
        self.schedule(id);
        Ok(id)
    }

    pub(super) fn accept(&mut self, waker: &Waker) -> Result<Option<u32>, ()> {
        if let Some(id) = self.backlog.pop_front() {
            return Ok(Some(id));
        }
        if self.over.is_some() {
            return Err(());
        }
        set_waker(&mut self.acceptor, waker);
        Ok(None)
    }

    /// Nobody accepts any more: what waits and what comes is refused.
    pub(super) fn refuse_streams(&mut self, now: Duration) {
        self.accepting = false;
        for id in std::mem::take(&mut self.backlog) {
            self.drop_stream(now, id);
        }
    }

    pub(super) fn read(&mut self, id: u32, waker: &Waker) -> Received {
        let Some(flow) = self.flows.get_mut(&id) else { return Received::End };
        if let Some(data) = flow.next_chunk(&mut self.pinning) {
            return Received::Data(data);
        }
        if let Some(broken) = flow.broken {
            return Received::Broken(broken);
        }
        if flow.fin_received {
            return Received::End;
        }
        if let Some(reason) = &self.over {
            return Received::Lost(reason.clone());
        }
        set_waker(&mut flow.read_waker, waker);
        Received::Wait
    }

    /// Notes that the reader of a stream took `n` bytes.
    pub(super) fn consume(&mut self, id: u32, n: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.consume(n);
        self.unread -= n;
        if flow.full && flow.unread <= self.settings.max_stream_buffer / 4 * 3 {
            flow.full = false;
            self.full.remove(&id);
        }
        self.schedule(id);
        if self.paused && !self.blocked() {
            self.wake_driver();
        }
    }

    /// How much a writer may queue now.
    pub(super) fn room(&mut self, id: u32, waker: &Waker) -> Room {
        let share = self.share();
        let Some(flow) = self.flows.get_mut(&id) else { return Room::Ended };
        if self.over.is_some() || flow.fin_due || flow.fin_received || flow.broken.is_some() {
            return Room::Ended;
        }
        if flow.queued >= share {
            set_waker(&mut flow.write_waker, waker);
            return Room::Wait;
        }
        Room::Bytes(share - flow.queued)
    }

    /// Queues a piece for which there was [`room`](Self::room), and tells the room left; `None` when the stream has
    /// ended since.
    pub(super) fn write(&mut self, id: u32, piece: BytesMut) -> Option<usize> {
        let share = self.share();
        let flow = self.flows.get_mut(&id)?;
        if self.over.is_some() || flow.fin_due || flow.fin_received || flow.broken.is_some() {
            return None;
        }
        self.queued += piece.len();
        flow.push(piece);
        let room = share.saturating_sub(flow.queued);
        self.schedule(id);
        Some(room)
    }

    fn share(&self) -> usize {
        if self.queued < SEND_BUFFER_TOTAL { SEND_BUFFER } else { SEND_BUFFER_LEAST }
    }

    /// No more data will be written: FIN goes out behind what is queued.
    pub(super) fn finish(&mut self, id: u32) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.fin_due = true;
            self.schedule(id);
        }
    }

    /// The local handle is gone: what was written is still sent, what was received is not wanted.
    pub(super) fn drop_stream(&mut self, now: Duration, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.dropped = true;
        flow.fin_due = true;
        flow.update_due = false;
        self.unread -= flow.discard_unread(&mut self.pinning);
        flow.full = false;
        self.full.remove(&id);
        if self.over.is_some() {
            self.flows.remove(&id);
            return;
        }
        if flow.queued > 0 {
            flow.linger_until = now + LINGER;
            self.lingering.insert(id);
            self.linger_check.get_or_insert(now + LINGER);
            self.wake_driver();
        }
        self.forget_if_done(id);
        self.schedule(id);
        if (self.paused && !self.blocked()) || (self.handles_gone && self.flows.is_empty()) {
            self.wake_driver();
        }
    }

    pub(super) fn peer_has_read(&self, id: u32) -> Option<bool> {
        let flow = self.flows.get(&id)?;
        (self.version == Version::V2).then_some(flow.peer_has_read)
    }

    /// No new streams; ends once everything that can be sent is sent.
    pub(super) fn close(&mut self, now: Duration) {
        if self.closing.is_none() {
            self.closing = Some(now + CLOSE_LINGER);
            let ids: Vec<u32> = self.flows.keys().copied().collect();
            ids.into_iter().for_each(|id| self.finish(id));
            self.wake_driver();
        }
    }

    /// Neither a session handle nor an acceptor is left: the session ends with its last stream.
    pub(super) fn abandon(&mut self) {
        self.handles_gone = true;
        self.wake_driver();
    }

    pub(super) fn streams(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn last_heard(&self) -> Duration {
        self.last_heard
    }

    pub(super) fn over(&self) -> Option<&CloseReason> {
        self.over.as_ref()
    }

    // Events.

    fn on_syn(&mut self, id: u32) {
        if self.flows.contains_key(&id) {
            return;
        }
        let refused = !self.accepting
            || self.closing.is_some()
            || self.backlog.len() >= BACKLOG
            || self.flows.len() >= self.settings.max_streams
            || self.unread >= self.hard_bound() / 2;
        if refused {
            self.refusals.push_back(id);
            return;
        }
        self.flows.insert(id, Flow::new(self.version == Version::V2));
        self.backlog.push_back(id);
        self.wakes.extend(self.acceptor.take());
    }

    fn on_data(&mut self, now: Duration, id: u32, data: Bytes) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if flow.dropped || flow.fin_received || flow.broken.is_some() {
            return;
        }
        let len = data.len();
        match flow.receive(data, &mut self.pinning) {
            Ok(()) => {
                self.unread += len;
                self.wakes.extend(flow.read_waker.take());
                if self.version == Version::V1 && !flow.full && flow.unread >= self.settings.max_stream_buffer
                {
                    flow.full = true;
                    flow.mark = (now, flow.consumed);
                    self.full.insert(id);
                }
            }
            Err(broken) => self.break_stream(id, broken),
        }
    }

    fn on_fin(&mut self, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.fin_received = true;
        // The peer has forgotten the stream: it would discard the rest.
        self.queued -= flow.queued;
        flow.discard_queue();
        flow.update_due = false;
        self.wakes.extend(flow.read_waker.take());
        self.wakes.extend(flow.write_waker.take());
        self.forget_if_done(id);
        self.schedule(id);
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

    /// Puts a stream in the queue if it could send something.
    fn schedule(&mut self, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !flow.scheduled && self.over.is_none() && flow.wants_turn() {
            flow.scheduled = true;
            self.ready.push_back(id);
            self.wake_driver();
        }
    }

    fn wake_driver(&mut self) {
        self.wakes.extend(self.driver.take());
    }

    /// The window to advertise now.
    fn window(&self) -> u32 {
        let (full, soft) = (self.settings.max_stream_buffer, self.settings.max_receive_buffer);
        let window = if self.unread < soft / 2 {
            full
        } else if self.unread < soft {
            (full / 4).max(MIN_WINDOW.min(full))
        } else {
            MIN_WINDOW.min(full)
        };
        u32::try_from(window).unwrap_or(i32::MAX as u32).min(i32::MAX as u32)
    }
}

fn outgoing(version: Version, command: Command, id: u32) -> Outgoing {
    let mut head = [0; HEADER_LEN + UPDATE_LEN];
    head[..HEADER_LEN].copy_from_slice(&Header { command, length: 0, id }.encode(version));
    Outgoing { head, head_len: HEADER_LEN, payload: Bytes::new() }
}

/// Keeps the waker that is there when it would wake the same task.
fn set_waker(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) if old.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
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
