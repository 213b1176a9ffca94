//! How long a client waits before it tries its servers again.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(100);
/// How many times as long as the one before a further wait is: mostly a fifth of the time gone, so that a server that was away for
/// a second is found within 0.3 s of its return, and one that was away for a minute within 12 s.
const GROWTH: f64 = 1.15;
/// Waits after which they are the [`LONGEST`] for sure.
const MOST_WAITS: u32 = 100;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// A session that lived this long was a good one, after which everything starts from the beginning. Shorter ones do not
/// count, or a server that takes a client and drops it would be asked again without a pause for ever.
pub(super) const LASTED: Duration = Duration::from_secs(5);

/// How a round over all servers ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// A session lived for [`LASTED`] or longer.
    Lasted,
    /// There was a session, but a short one.
    Short,
    /// No server could be reached, or none wanted us.
    Failed,
    /// Every server refuses the user name or password: nothing changes before a person changes it.
    Unauthorized,
}

/// The waits between rounds.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// How many waits there have been since the beginning.
    waits: u32,
    /// The one retry without a wait has been had.
    retried: bool,
}

impl Backoff {
    /// What to wait before the next round; `random` is between 0 and 1.
    ///
    /// From half the wait up to the whole, so that many clients of one server do not come back in step.
    pub(super) fn after(&mut self, round: Round, random: f64) -> Duration {
        match round {
            Round::Lasted => {
                *self = Self { waits: 0, retried: true };
                return Duration::ZERO;
            }
            Round::Short if !self.retried => {
                self.retried = true;
                return Duration::ZERO;
            }
            Round::Short | Round::Failed => {}
            Round::Unauthorized => self.waits = MOST_WAITS,
        }
        let wait = FIRST.mul_f64(GROWTH.powf(self.waits.into())).min(LONGEST);
        self.waits = (self.waits + 1).min(MOST_WAITS);
        wait.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(backoff: &mut Backoff, round: Round) -> u128 {
        backoff.after(round, 1.0).as_millis()
    }

    #[test]
    fn grows_from_100_ms_to_30_s_with_the_time_gone() {
        let mut backoff = Backoff::default();
        let mut gone = 0;
        for _ in 0..40 {
            let wait = millis(&mut backoff, Round::Failed);
            // Milliseconds are cut off.
            assert!(wait.abs_diff(100 + gone * 15 / 100) < 10, "{wait} after {gone}");
            gone += wait;
        }
        millis(&mut backoff, Round::Failed);
        for _ in 0..200 {
            assert_eq!(millis(&mut backoff, Round::Failed), 30_000);
        }
    }

    #[test]
    fn waits_between_half_and_the_whole() {
        for (random, wait) in [(0.0, 50), (0.5, 75), (1.0, 100)] {
            assert_eq!(Backoff::default().after(Round::Failed, random).as_millis(), wait);
        }
    }

    #[test]
    fn a_session_that_lasted_starts_from_the_beginning() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            millis(&mut backoff, Round::Failed);
        }
        assert_eq!(millis(&mut backoff, Round::Lasted), 0);
        assert_eq!(millis(&mut backoff, Round::Failed), 100);
        assert_eq!(millis(&mut backoff, Round::Lasted), 0);
    }

    #[test]
    fn a_short_session_is_retried_at_once_but_not_again_and_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..4).map(|_| millis(&mut backoff, Round::Short)).collect();
        assert_eq!(waits, [0, 100, 115, 132]);
    }

    #[test]
    fn a_refused_password_is_not_tried_often() {
        let mut backoff = Backoff::default();
        assert_eq!(millis(&mut backoff, Round::Unauthorized), 30_000);
        assert_eq!(millis(&mut backoff, Round::Unauthorized), 30_000);
        assert_eq!(millis(&mut backoff, Round::Lasted), 0);
        assert_eq!(millis(&mut backoff, Round::Failed), 100);
    }
}
