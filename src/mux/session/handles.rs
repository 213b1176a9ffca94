//! What handles do: open, accept, read, write and end streams, and end the session.

use super::super::flow::{Broken, Flow};
use super::super::{CloseReason, OpenError};
use super::{LINGER, Machine};
use crate::wire::smux::Version;
use bytes::{Bytes, BytesMut};
use std::task::Waker;
use std::time::Duration;

/// Bytes that one stream may have queued for sending; further writes wait.
pub(super) const SEND_BUFFER: usize = 128 * 1024;
/// Bytes that all streams together may have queued; beyond it each gets [`SEND_BUFFER_LEAST`] only. A peer that reads
/// nothing would otherwise cost [`SEND_BUFFER`] for each of its streams.
pub(super) const SEND_BUFFER_TOTAL: usize = 16 * 1024 * 1024;
pub(super) const SEND_BUFFER_LEAST: usize = 8 * 1024;
/// How long a closed session may take to send what it still has.
const CLOSE_LINGER: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(in crate::mux) enum Received {
    Data(Bytes),
    End,
    Broken(Broken),
    /// The session is over.
    Lost(CloseReason),
    Wait,
}

/// What a writer gets.
#[derive(Debug)]
pub(in crate::mux) enum Room {
    Bytes(usize),
    /// The stream takes no more data.
    Ended,
    Wait,
}

impl Machine {
    pub(in crate::mux) fn open(&mut self, header: BytesMut) -> Result<u32, OpenError> {
        if let Some(reason) = &self.over {
            return Err(OpenError::Closed(reason.clone()));
        }
        if self.closing.is_some() {
            return Err(OpenError::Closed(CloseReason::Local));
        }
        if self.flows.len() >= self.settings.max_streams {
            return Err(OpenError::TooMany(self.settings.max_streams));
        }
        if !self.has_room() {
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
        flow.push(header);
        self.flows.insert(id, flow);
        self.schedule(id);
        Ok(id)
    }

    pub(in crate::mux) fn accept(&mut self, waker: &Waker) -> Result<Option<u32>, ()> {
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
    pub(in crate::mux) fn refuse_streams(&mut self, now: Duration) {
        self.accepting = false;
        for id in std::mem::take(&mut self.backlog) {
            self.drop_stream(now, id);
        }
    }

    pub(in crate::mux) fn read(&mut self, id: u32, waker: &Waker) -> Received {
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
    pub(in crate::mux) fn consume(&mut self, id: u32, n: usize) {
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
    pub(in crate::mux) fn room(&mut self, id: u32, waker: &Waker) -> Room {
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
    pub(in crate::mux) fn write(&mut self, id: u32, piece: BytesMut) -> Option<usize> {
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
    pub(in crate::mux) fn finish(&mut self, id: u32) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.fin_due = true;
            self.schedule(id);
        }
    }

    /// The local handle is gone: what was written is still sent, what was received is not wanted.
    pub(in crate::mux) fn drop_stream(&mut self, now: Duration, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.dropped = true;
        flow.fin_due = true;
        self.unread -= flow.discard_unread(&mut self.pinning);
        self.growth.give_back(flow);
        // FIN comes next.
        flow.update_due &= flow.queued > 0;
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

    pub(in crate::mux) fn peer_has_read(&self, id: u32) -> Option<bool> {
        let flow = self.flows.get(&id)?;
        (self.version == Version::V2).then_some(flow.peer_has_read)
    }

    pub(in crate::mux) fn peer_has_ended(&self, id: u32) -> bool {
        self.flows.get(&id).is_none_or(|flow| flow.fin_received || flow.broken.is_some())
    }

    /// No new streams; ends once everything that can be sent is sent.
    pub(in crate::mux) fn close(&mut self, now: Duration) {
        if self.closing.is_none() {
            self.closing = Some(now + CLOSE_LINGER);
            let ids: Vec<u32> = self.flows.keys().copied().collect();
            ids.into_iter().for_each(|id| self.finish(id));
            self.wake_driver();
        }
    }

    /// Neither a session handle nor an acceptor is left: the session ends with its last stream.
    pub(in crate::mux) fn abandon(&mut self) {
        self.handles_gone = true;
        self.wake_driver();
    }

    pub(in crate::mux) fn streams(&self) -> usize {
        self.flows.len()
    }

    pub(in crate::mux) fn last_heard(&self) -> Duration {
        self.last_heard
    }

    pub(in crate::mux) fn over(&self) -> Option<&CloseReason> {
        self.over.as_ref()
    }
}

/// Keeps the waker that is there when it would wake the same task.
fn set_waker(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(old) if old.will_wake(waker) => {}
        _ => *slot = Some(waker.clone()),
    }
}
