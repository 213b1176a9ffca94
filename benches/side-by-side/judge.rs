//! What is said of values: who is better, and whether a goal is met.
//!
//! It is nothing but numbers and words, so that `tests/integration` can test it: cargo has no tests for a benchmark.

/// Fewer rounds show nothing.
const FEWEST: usize = 3;
/// The part of the machine, 0 to 1, of which others may use no more, or what was measured is theirs as well.
pub(crate) const NOISE: f64 = 0.1;

/// What stands beside a comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    /// The largest part of the machine that others used in one of the rounds.
    pub(crate) foreign: f64,
    /// Whether all of our own requests had the right reply.
    pub(crate) clean: bool,
}

/// By the ratios of our values to theirs, round by round. They decide only if all are on one side of 1.
pub(crate) fn verdict(ratios: &[f64], more: bool, meanwhile: Circumstances) -> &'static str {
    let decided = ratios.len() >= FEWEST && meanwhile.foreign <= NOISE;
    let below = decided && ratios.iter().all(|ratio| *ratio < 1.0);
    let above = decided && ratios.iter().all(|ratio| *ratio > 1.0);
    let (better, worse) = if more { (above, below) } else { (below, above) };
    match (better, worse) {
        (true, _) if meanwhile.clean => "better",
        (_, true) => "worse",
        _ => "open",
    }
}

/// Whether a median reaches the goal, or by which factor it does not. With requests that failed it is not met.
pub(crate) fn outcome(goal: f64, more: bool, median: f64, clean: bool) -> String {
    let (met, factor) = if more { (median >= goal, goal / median) } else { (median <= goal, median / goal) };
    match (met, clean) {
        (true, true) => "met".to_owned(),
        (true, false) => "open".to_owned(),
        // Nothing is a multiple of 0.
        (false, _) if factor.is_finite() => format!("missed, {factor:.2} x"),
        (false, _) => "missed".to_owned(),
    }
}

#[cfg(test)]
#[allow(unused_imports, dead_code, reason = "cargo builds a benchmark with this configuration, but no tests")]
mod tests {
    use super::{Circumstances, NOISE, outcome, verdict};

    const QUIET: Circumstances = Circumstances { foreign: NOISE, clean: true };

    #[test]
    fn all_rounds_have_to_agree() {
        assert_eq!(verdict(&[0.5, 0.9, 0.99], false, QUIET), "better");
        assert_eq!(verdict(&[0.5, 0.9, 0.99], true, QUIET), "worse");
        assert_eq!(verdict(&[1.5, 1.1, 1.01], false, QUIET), "worse");
        assert_eq!(verdict(&[1.5, 1.1, 1.01], true, QUIET), "better");
        assert_eq!(verdict(&[0.5, 0.9, 1.0], false, QUIET), "open");
        assert_eq!(verdict(&[0.5, 0.9], false, QUIET), "open");
    }

    #[test]
    fn a_noisy_machine_decides_nothing() {
        let noisy = Circumstances { foreign: 0.11, ..QUIET };
        assert_eq!(verdict(&[0.5; 3], false, noisy), "open");
        assert_eq!(verdict(&[1.5; 3], false, noisy), "open");
    }

    #[test]
    fn who_has_errors_is_not_better() {
        let faulty = Circumstances { clean: false, ..QUIET };
        assert_eq!(verdict(&[0.5; 3], false, faulty), "open");
        assert_eq!(verdict(&[1.5; 3], false, faulty), "worse");
    }

    #[test]
    fn a_goal_is_at_most_or_at_least() {
        assert_eq!(outcome(14.0, false, 14.0, true), "met");
        assert_eq!(outcome(14.0, false, 15.12, true), "missed, 1.08 x");
        assert_eq!(outcome(95.0, true, 95.0, true), "met");
        assert_eq!(outcome(95.0, true, 47.5, true), "missed, 2.00 x");
        assert_eq!(outcome(0.0, false, 0.0, true), "met");
        assert_eq!(outcome(0.0, false, 2.5, true), "missed");
        assert_eq!(outcome(95.0, true, 0.0, true), "missed");
        assert_eq!(outcome(14.0, false, 13.0, false), "open");
    }
}
