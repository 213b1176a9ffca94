//! Deadlines that move on with what moves.

use crate::net::timer::Timer;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How long a phase of an exchange may stand still. The clock is looked at once there is something to wait for, which comes right
/// behind what has moved.
#[derive(Debug)]
pub(super) struct Deadline {
    limit: Duration,
    last: Option<Instant>,
}

impl Deadline {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, last: None }
    }

    /// Something has moved.
    pub(super) fn progress(&mut self) {
        self.last = None;
    }

    /// From now on, and for so long.
    pub(super) fn begin(&mut self, limit: Duration) {
        self.limit = limit;
        self.progress();
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, timer: &mut Timer) -> Poll<()> {
        let last = *self.last.get_or_insert_with(Instant::now);
        timer.poll(cx, last + self.limit)
    }
}
