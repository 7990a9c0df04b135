//! The agent's clock.
//!
//! Owns the translation between the machine's monotonic time and the supervisor's moments, which count from the agent's start.

use std::time::Duration;

use supervisor::At;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> At {
        At(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// `None` for a moment so late that the machine's clock cannot name it.
    pub(crate) fn instant(&self, at: At) -> Option<Instant> {
        self.origin.checked_add(Duration::from_micros(at.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_and_its_instant_are_the_same_distance_from_the_start() {
        let clock = Clock::start();
        assert_eq!(clock.instant(At(1_500_000)), Some(clock.origin + Duration::from_millis(1_500)));
        let (earlier, later) = (clock.now(), clock.now());
        assert!(earlier <= later);
    }
}
