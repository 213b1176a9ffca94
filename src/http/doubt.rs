//! Whether what stands between an upstream and its target hangs.
//!
//! A new stream tells when it is first read. One that has answered before tells no more; then it counts whether anything is heard
//! of the intermediary, and a silent one is probed before it is taken for hung. What follows from that is for `exchange` to say.

use super::deadline::Deadline;
use super::upstream::{Intermediary, Upstream};
use crate::net::BoxStream;
use std::sync::Arc;

/// Watches for signs that what stands before the target hangs.
#[derive(Debug)]
pub(super) struct Doubt {
    /// Until the next look.
    pub(super) deadline: Deadline,
    /// Of an upstream that has answered before: by itself it tells no more. `None`: a new one, which tells when it is first read.
    between: Option<Arc<dyn Intermediary>>,
    probe: Option<BoxStream>,
    probed: bool,
}

impl Doubt {
    pub(super) fn of(upstream: &Upstream) -> Option<Self> {
        let between = upstream.between.as_ref().filter(|_| upstream.kept).cloned();
        let limit = match &between {
            Some(between) => between.patience(),
            None => upstream.silence.filter(|_| !upstream.kept)?,
        };
        Some(Self { deadline: Deadline::new(limit), between, probe: None, probed: false })
    }

    /// What is to be thought once nothing has come for so long; `unread`: the upstream tells that nothing was read of it.
    pub(super) fn look(&mut self, unread: bool) -> Verdict {
        let Some(between) = &self.between else {
            return if unread { Verdict::Hangs } else { Verdict::Lives };
        };
        if between.hangs() {
            return Verdict::Hangs;
        }
        if between.is_heard() {
            return if self.probed { Verdict::Lives } else { Verdict::Unknown };
        }
        if !between.has_other() {
            return Verdict::Unknown;
        }
        if self.probed {
            between.pass_over();
            return Verdict::Hangs;
        }
        (self.probe, self.probed) = (between.probe(), true);
        Verdict::Unknown
    }
}

/// What is thought of what stands before a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Lives,
    Hangs,
    /// It is to be looked at again.
    Unknown,
}
