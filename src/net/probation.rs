//! Connections that carry many streams, before the first of them is let in.
//!
//! A stream has the time of its handler's handshake like any connection. The connection below it has nothing to say for itself: it
//! is as good as the best of its streams.

use super::listen::Permit;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What such a connection is on.
#[derive(Debug)]
pub struct Probation {
    /// Of the connection.
    permit: Mutex<Permit>,
    passed: CancellationToken,
    candidates: TaskTracker,
}

/// A stream that may be let in.
#[derive(Debug)]
pub(super) struct Candidate {
    passed: CancellationToken,
    _counted: TaskTrackerToken,
}

impl Candidate {
    pub(super) fn let_in(self) {
        self.passed.cancel();
    }
}

impl Probation {
    /// Begins; with it the permit of the connection goes.
    pub fn new(permit: Permit) -> Self {
        Self { permit: Mutex::new(permit), passed: CancellationToken::new(), candidates: TaskTracker::new() }
    }

    /// The peer opens a stream, which counts as an unfinished handshake in place of the connection.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).established();
        let candidate = || Candidate { passed: self.passed.clone(), _counted: self.candidates.token() };
        (!self.is_over()).then(candidate)
    }

    /// Whether a stream was let in.
    pub fn is_over(&self) -> bool {
        self.passed.is_cancelled()
    }

    /// Waits until a stream is let in: `limit`, and then for as long as there are streams that are still looked at. Whether one
    /// was.
    pub async fn passes(&self, limit: Duration) -> bool {
        let time = async {
            sleep(limit).await;
            self.candidates.close();
            self.candidates.wait().await;
        };
        tokio::select! { biased; () = self.passed.cancelled() => true, () = time => false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::listen::{Permits, Settings};
    use super::*;
    use crate::addr::HostPort;

    const LIMIT: Duration = Duration::from_secs(10);

    fn any_port() -> Settings {
        Settings::new(HostPort::parse("127.0.0.1:0", 0).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_judged_by_its_streams() {
        let permits = Permits::new(&Settings { max_handshakes: 2, ..any_port() });
        let begin = || Probation::new(permits.take().unwrap());
        assert!(!begin().passes(LIMIT).await);
        // Refused in time, and after it.
        for wait in [LIMIT / 2, LIMIT * 2] {
            let probation = begin();
            let stream = permits.take_on(&probation).unwrap();
            let refuse = async move {
                sleep(wait).await;
                drop(stream);
            };
            let begun = tokio::time::Instant::now();
            assert!(!tokio::join!(probation.passes(LIMIT), refuse).0);
            assert_eq!(begun.elapsed().as_secs(), LIMIT.max(wait).as_secs());
        }
        // Looked at for longer than there is time, and let in.
        let probation = begin();
        let mut stream = permits.take_on(&probation).unwrap();
        let let_in = async {
            sleep(LIMIT * 2).await;
            stream.established();
        };
        assert!(tokio::join!(probation.passes(LIMIT), let_in).0);
        assert!(probation.is_over());
    }

    /// Else many connections at once would leave no room for what they come for.
    #[test]
    fn a_connection_makes_room_for_its_first_stream() {
        let permits = Permits::new(&Settings { max_handshakes: 1, ..any_port() });
        let probation = Probation::new(permits.take().unwrap());
        assert!(permits.take().is_err());
        let stream = permits.take_on(&probation).unwrap();
        assert!(permits.take().is_err());
        drop(stream);
        assert!(permits.take().is_ok());
    }
}
