//! What is sent next: answers first, then one frame of each stream in turn.

use super::Machine;
use super::handles::{SEND_BUFFER, SEND_BUFFER_LEAST, SEND_BUFFER_TOTAL};
use crate::wire::smux::{Command, HEADER_LEN, Header, MAX_PAYLOAD, UPDATE_LEN, Update, Version};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// Smallest window advertised when the session holds too much.
const MIN_WINDOW: usize = 64 * 1024;
/// What one call of [`Machine::transmit`] collects: more would delay window updates and new streams.
const BATCH_BYTES: usize = 256 * 1024;
/// The same in frames.
const BATCH_FRAMES: usize = 64;

/// Fewer bytes than this wait for those of other streams that are about to be written.
const LITTLE: usize = 16 * 1024;

/// A frame on its way out.
#[derive(Debug)]
pub(in crate::mux) struct Outgoing {
    head: [u8; HEADER_LEN + UPDATE_LEN],
    head_len: usize,
    pub(in crate::mux) payload: Bytes,
}

impl Outgoing {
    fn new(version: Version, command: Command, id: u32, length: usize) -> Self {
        let mut head = [0; HEADER_LEN + UPDATE_LEN];
        head[..HEADER_LEN].copy_from_slice(&Header { command, length: length as u16, id }.encode(version));
        Self { head, head_len: HEADER_LEN, payload: Bytes::new() }
    }

    fn data(version: Version, id: u32, payload: Bytes) -> Self {
        let frame = Self::new(version, Command::Psh, id, payload.len());
        Self { payload, ..frame }
    }

    fn update(version: Version, id: u32, update: Update) -> Self {
        let mut frame = Self::new(version, Command::Upd, id, UPDATE_LEN);
        frame.head[HEADER_LEN..].copy_from_slice(&update.encode());
        frame.head_len = frame.head.len();
        frame
    }

    /// The header, and the payload of an update.
    pub(in crate::mux) fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }
}

impl Machine {
    /// Collects the next batch of frames: answers first, then one frame of each stream in turn.
    pub(in crate::mux) fn transmit(&mut self, now: Duration, out: &mut VecDeque<Outgoing>) {
        let before = out.len();
        if std::mem::take(&mut self.nop_due) {
            out.push_back(Outgoing::new(self.version, Command::Nop, 0, 0));
        }
        while out.len() < BATCH_FRAMES
            && let Some(id) = self.refusals.pop_front()
        {
            out.push_back(Outgoing::new(self.version, Command::Fin, id, 0));
        }
        let mut bytes = 0;
        // One turn adds up to four frames.
        while out.len() + 4 <= BATCH_FRAMES && bytes < BATCH_BYTES {
            let Some(id) = self.ready.pop_front() else { break };
            bytes += self.take_turn(now, id, out);
        }
        if out.len() > before {
            self.last_sent = now;
        }
    }

    /// One stream's turn: SYN before its data, one frame of data, FIN behind the last.
    fn take_turn(&mut self, now: Duration, id: u32, out: &mut VecDeque<Outgoing>) -> usize {
        let window = self.next_window(now, id);
        let max = self.settings.max_frame_size.clamp(1, MAX_PAYLOAD);
        let version = self.version;
        let Some(flow) = self.flows.get_mut(&id) else { return 0 };
        flow.scheduled = false;
        let mut bytes = 0;
        if std::mem::take(&mut flow.syn_due) {
            out.push_back(Outgoing::new(version, Command::Syn, id, 0));
        }
        if let Some(window) = window {
            out.push_back(Outgoing::update(version, id, flow.update(window)));
        }
        if let Some(payload) = flow.take(max) {
            bytes = payload.len();
            self.queued -= bytes;
            if !flow.peer_has_read {
                flow.first_sent.get_or_insert(now);
            }
            out.push_back(Outgoing::data(version, id, payload));
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
            out.push_back(Outgoing::new(version, Command::Fin, id, 0));
            self.forget_if_done(id);
        }
        self.schedule(id);
        bytes
    }

    /// Notes that the transport took bytes.
    pub(in crate::mux) fn sent(&mut self, now: Duration) {
        self.last_sent = now;
    }

    /// Whether what is to be sent is so little that other streams are asked first for what they have.
    pub(in crate::mux) fn may_gather(&self) -> bool {
        !self.ready.is_empty() && self.flows.len() > 1 && self.queued < LITTLE
    }

    /// Whether the driver has to run again before it may sleep.
    pub(in crate::mux) fn has_output(&self) -> bool {
        self.nop_due || !self.refusals.is_empty() || !self.ready.is_empty()
    }

    /// Whether a closed session has nothing left to send.
    pub(in crate::mux) fn is_drained(&self) -> bool {
        let idle = self.handles_gone && self.flows.is_empty();
        ((self.closing.is_some() && self.queued == 0) || idle) && !self.has_output()
    }

    /// Puts a stream in the queue if it could send something.
    pub(super) fn schedule(&mut self, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !flow.scheduled && self.over.is_none() && flow.wants_turn() {
            flow.scheduled = true;
            self.ready.push_back(id);
            self.wake_driver();
        }
    }

    /// The window to advertise now, if one is to be.
    fn next_window(&mut self, now: Duration, id: u32) -> Option<u32> {
        self.flows.get(&id).filter(|flow| flow.update_due)?;
        let grown = self.grow(now, id);
        // What is lent to readers that kept up may be unread in the end.
        let (full, soft) =
            (self.settings.max_stream_buffer, self.settings.max_receive_buffer + self.growth.lent);
        let window = if self.unread < soft / 2 {
            full + grown
        } else if self.unread < soft {
            (full / 4).max(MIN_WINDOW.min(full))
        } else {
            MIN_WINDOW.min(full)
        };
        Some(u32::try_from(window).unwrap_or(i32::MAX as u32).min(i32::MAX as u32))
    }
}
