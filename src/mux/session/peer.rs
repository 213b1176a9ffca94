//! What the peer does: its frames, one by one.

use super::super::flow::Flow;
use super::{LINGER, Machine};
use crate::wire::Malformed;
use crate::wire::smux::{Item, Version};
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// Streams of the peer that nobody accepted yet; more are refused. Without it a peer could open streams faster than
/// anyone looks at them.
const BACKLOG: usize = 1024;

impl Machine {
    /// Takes every complete item off `buf`.
    pub(in crate::mux) fn receive(&mut self, now: Duration, buf: &mut BytesMut) -> Result<(), Malformed> {
        self.last_heard = now;
        while let Some(item) = self.decoder.next(buf)? {
            match item {
                Item::Nop => {}
                Item::Syn(id) => self.on_syn(id),
                Item::Data(id, data) => self.on_data(now, id, data),
                Item::Fin(id) => self.on_fin(id),
                Item::Update(id, update) => {
                    let Some(flow) = self.flows.get_mut(&id) else { continue };
                    if let Some(sent) = flow.first_sent.take() {
                        self.growth.measured(now.saturating_sub(sent));
                    }
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

    fn on_syn(&mut self, id: u32) {
        if self.flows.contains_key(&id) {
            return;
        }
        let refused = !self.accepting
            || self.closing.is_some()
            || self.backlog.len() >= BACKLOG
            || self.flows.len() >= self.settings.max_streams
            || !self.has_room();
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
        if flow.fin_received || flow.broken.is_some() {
            return;
        }
        let len = data.len();
        match flow.receive(data, &mut self.pinning) {
            Ok(()) if flow.dropped => {
                flow.discard_unread(&mut self.pinning);
                self.schedule(id);
            }
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
}
