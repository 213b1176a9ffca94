//! When a session reads, waits and gives up: the pause of the transport and every deadline.
//!
//! The rules are told at the top of `session`; each watch over a stream belongs to that stream alone.

use super::super::{CloseReason, flow::Broken};
use super::Machine;
use crate::wire::smux::Version;
use std::time::Duration;

/// Refusals waiting to be sent at which reading stops: a peer that opens streams without end has to read the answers.
const MAX_REFUSALS: usize = 1024;
/// What a reader has to take within `stall_timeout` to be called slow rather than dead.
pub(in crate::mux) const MIN_PROGRESS: u32 = 16 * 1024;
/// How many times `max_receive_buffer` a version 2 session may hold in all. The first 256 KiB of a stream cannot be held
/// back, so that a few visitors who read nothing reach the plain bound without anybody's fault.
const HARD_FACTOR: usize = 16;

impl Machine {
    /// Whether the transport may be read; decides it anew, and starts or ends the watch over streams in the way.
    pub(in crate::mux) fn wants_bytes(&mut self, now: Duration) -> bool {
        let blocked = self.blocked();
        if blocked && !self.paused && self.over_budget() {
            if self.unread >= self.hard_bound() {
                self.flows.values_mut().filter(|f| f.unread > 0).for_each(|f| f.mark = (now, f.consumed));
            }
            self.stall_check = Some(now + self.settings.stall_timeout);
        }
        if !blocked && self.paused {
            self.stall_check = None;
            // The peer could not be heard while nobody listened.
            self.last_heard = now;
        }
        self.paused = blocked;
        !blocked
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    pub(in crate::mux) fn next_timeout(&self) -> Option<Duration> {
        let interval = self.settings.keepalive_interval;
        [
            interval.filter(|_| !self.nop_due).map(|every| self.last_sent.saturating_add(every)),
            interval.and_then(|_| self.silence_deadline()),
            self.stall_check,
            self.linger_check,
            self.closing,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due; the reason when the session is to end.
    pub(in crate::mux) fn handle_timeout(&mut self, now: Duration) -> Result<(), CloseReason> {
        if let Some(every) = self.settings.keepalive_interval {
            if self.silence_deadline().is_some_and(|at| now >= at) {
                return Err(CloseReason::Silent(self.settings.keepalive_timeout));
            }
            if now >= self.last_sent.saturating_add(every) {
                self.nop_due = true;
            }
        }
        if self.stall_check.is_some_and(|at| now >= at) {
            self.end_stalled(now);
        }
        if self.linger_check.is_some_and(|at| now >= at) {
            self.end_lingering(now);
        }
        match self.closing {
            Some(at) if now >= at => Err(CloseReason::Local),
            _ => Ok(()),
        }
    }

    /// Whether reading was paused and need not be any longer.
    pub(in crate::mux) fn may_resume(&self) -> bool {
        self.paused && !self.blocked()
    }

    /// When the peer is given up. A session paused for its own readers cannot hear the peer; one paused because the
    /// peer does not take its answers is judged by what the peer takes.
    fn silence_deadline(&self) -> Option<Duration> {
        let timeout = self.settings.keepalive_timeout;
        match (self.paused, self.over_budget()) {
            (false, _) => Some(self.last_heard.saturating_add(timeout)),
            (true, true) => None,
            (true, false) => Some(self.last_heard.max(self.last_sent).saturating_add(timeout)),
        }
    }

    /// Ends the streams in the way whose readers stood still, and gives the others another term.
    fn end_stalled(&mut self, now: Duration) {
        let all = self.unread >= self.hard_bound();
        let mut dead: Vec<(usize, u32)> = Vec::new();
        let stall = self.settings.stall_timeout;
        let mut next = now + stall;
        for (&id, flow) in &mut self.flows {
            if flow.broken.is_some() || flow.unread == 0 || !(all || flow.full) {
                continue;
            }
            let due = flow.mark.0 + stall;
            if now < due {
                next = next.min(due);
            } else if flow.consumed.wrapping_sub(flow.mark.1) < MIN_PROGRESS {
                dead.push((flow.unread, id));
            } else {
                flow.mark = (now, flow.consumed);
            }
        }
        dead.sort_unstable();
        let mut left = self.unread;
        for (unread, id) in dead.into_iter().rev() {
            if self.full.contains(&id) || left >= self.hard_bound() {
                left -= unread;
                // Its data goes too: nobody knows when its reader would take it, and it counts against the session's bound.
                if let Some(flow) = self.flows.get_mut(&id) {
                    self.unread -= flow.discard_held(&mut self.pinning);
                }
                self.break_stream(id, Broken::Stalled);
            }
        }
        self.stall_check = self.over_budget().then_some(next);
    }

    fn end_lingering(&mut self, now: Duration) {
        let flows = &mut self.flows;
        let mut given_up = Vec::new();
        self.lingering.retain(|id| match flows.get(id) {
            Some(flow) if flow.linger_until <= now => {
                given_up.push(*id);
                false
            }
            flow => flow.is_some(),
        });
        for id in given_up {
            self.break_stream(id, Broken::Stalled);
        }
        self.linger_check =
            self.lingering.iter().filter_map(|id| self.flows.get(id)).map(|f| f.linger_until).min();
    }

    pub(super) fn blocked(&self) -> bool {
        self.over_budget() || self.refusals.len() >= MAX_REFUSALS
    }

    pub(super) fn over_budget(&self) -> bool {
        !self.full.is_empty() || self.unread >= self.hard_bound()
    }

    /// Whether the session holds so much that it takes no more streams. A version 1 session that does is not read, and ends
    /// the streams that stand in the way.
    pub(super) fn has_room(&self) -> bool {
        self.version == Version::V1 || self.unread < self.hard_bound() / 2
    }

    pub(super) fn hard_bound(&self) -> usize {
        match self.version {
            Version::V1 => self.settings.max_receive_buffer,
            Version::V2 => self.settings.max_receive_buffer.saturating_mul(HARD_FACTOR),
        }
    }
}
