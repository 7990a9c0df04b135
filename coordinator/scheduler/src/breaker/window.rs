//! The latest outcomes of a lane, each good or bad: the memory behind "half of them fail".
//!
//! Owns a ring that is short in number and in time. Refuses to judge on a few: one bad of one is no share.

use alloc::collections::VecDeque;

use crate::limits::BreakerLimits;
use crate::time::At;

#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    outcomes: VecDeque<(At, bool)>,
}

impl Window {
    pub(super) fn push(&mut self, at: At, bad: bool, limits: &BreakerLimits) {
        self.outcomes.push_back((at, bad));
        let old = |(then, _): &(At, bool)| at.since(*then) > limits.window;
        while self.outcomes.len() > limits.window_outcomes || self.outcomes.front().is_some_and(old) {
            self.outcomes.pop_front();
        }
    }

    /// Whether the share of bad ones, as of the latest push, is too high.
    pub(super) fn is_bad(&self, limits: &BreakerLimits) -> bool {
        let (bad, all) = (self.bad(), self.len());
        all >= limits.window_outcomes_min
            && bad.saturating_mul(100) >= all.saturating_mul(limits.share_percent)
    }

    /// Whether no bad one is recent.
    pub(super) fn is_clean(&self, at: At, limits: &BreakerLimits) -> bool {
        !self.outcomes.iter().any(|(then, bad)| *bad && at.since(*then) <= limits.window)
    }

    pub(super) fn clear(&mut self) {
        self.outcomes.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.outcomes.len()
    }

    pub(super) fn bad(&self) -> usize {
        self.outcomes.iter().filter(|(_, bad)| *bad).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Span;

    const SECOND: u64 = 1_000_000;

    fn window(outcomes: &[(u64, bool)]) -> Window {
        let mut window = Window::default();
        outcomes.iter().for_each(|(s, bad)| window.push(At(s * SECOND), *bad, &BreakerLimits::default()));
        window
    }

    fn is_bad(outcomes: &[(u64, bool)]) -> bool {
        window(outcomes).is_bad(&BreakerLimits::default())
    }

    #[test]
    fn half_of_five_is_too_many_and_all_of_four_is_too_few() {
        assert!(!is_bad(&[(0, true); 4]));
        assert!(!is_bad(&[(0, false), (0, false), (0, false), (0, true), (0, true)]));
        assert!(is_bad(&[(0, false), (0, false), (0, true), (0, true), (0, true)]));
        assert!(is_bad(&[(0, false), (0, false), (0, false), (0, true), (0, true), (0, true)]));
    }

    #[test]
    fn only_the_last_twenty_count() {
        let mut outcomes = vec![(0, true); 30];
        outcomes.extend([(0, false); 10]);
        assert!(is_bad(&outcomes));
        outcomes.push((0, false));
        assert!(!is_bad(&outcomes));
        assert_eq!((window(&outcomes).len(), window(&outcomes).bad()), (20, 9));
    }

    #[test]
    fn an_outcome_counts_for_two_minutes_and_not_a_microsecond_longer() {
        let outcomes = [(0, true), (1, true), (1, true), (1, true), (120, true)];
        assert_eq!(window(&outcomes).len(), 5);
        let mut later = window(&outcomes);
        later.push(At(120 * SECOND + 1), true, &BreakerLimits::default());
        assert_eq!(later.len(), 5);
        later.push(At(121 * SECOND + 1), true, &BreakerLimits::default());
        assert_eq!(later.len(), 3);
    }

    #[test]
    fn a_window_is_clean_once_its_last_bad_outcome_is_old() {
        let limits = BreakerLimits::default();
        let window = window(&[(0, true), (60, false)]);
        assert!(!window.is_clean(At(120 * SECOND), &limits));
        assert!(window.is_clean(At(120 * SECOND + 1), &limits));
        assert!(Window::default().is_clean(At(0), &limits));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_window_is_the_recent_end_of_the_whole_history(
            steps in proptest::collection::vec((0_u64..40, any::<bool>()), 1..80),
        ) {
            let limits = BreakerLimits::default();
            let (mut at, mut history, mut window) = (At(0), Vec::new(), Window::default());
            for (s, bad) in steps {
                at = at + Span::from_s(s);
                history.push((at, bad));
                window.push(at, bad, &limits);
                let recent: Vec<bool> = history.iter().rev().take(20)
                    .take_while(|(then, _)| at.since(*then) <= Span::from_s(120)).map(|(_, bad)| *bad).collect();
                let bad = recent.iter().filter(|bad| **bad).count();
                prop_assert_eq!((window.len(), window.bad()), (recent.len(), bad));
                prop_assert_eq!(window.is_bad(&limits), recent.len() >= 5 && 2 * bad >= recent.len());
            }
        }
    }
}
