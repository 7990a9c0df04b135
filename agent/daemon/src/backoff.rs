//! How long to wait before the next try.
//!
//! Owns a delay that doubles up to a bound, with jitter so that a room full of agents does not come back in one wave. Pure:
//! the dice are handed in.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// After a success the next failure starts anew.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The delay before the next try: between half of the present step and all of it.
    pub(crate) fn delay(&mut self, dice: u32) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.most);
        let half = step / 2;
        half + half.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }
}

/// Dice of the machine. Without any (which does not happen) all agents wait the longest.
pub(crate) fn roll() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(5);

    #[test]
    fn delays_double_up_to_the_bound_and_start_anew_after_a_success() {
        let mut backoff = Backoff::new(FIRST, MOST);
        let delays: Vec<_> = (0..8).map(|_| backoff.delay(u32::MAX).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        backoff.reset();
        assert_eq!(backoff.delay(u32::MAX), FIRST);
    }

    proptest! {
        #[test]
        fn no_dice_leave_the_bounds(dice in prop::collection::vec(any::<u32>(), 1..40)) {
            let mut backoff = Backoff::new(FIRST, MOST);
            for dice in dice {
                let delay = backoff.delay(dice);
                prop_assert!(delay >= FIRST / 2 && delay <= MOST);
            }
        }
    }
}
