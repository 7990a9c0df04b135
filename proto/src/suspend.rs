//! Whether this machine slept.
//!
//! Both ends of a wire believe things of each other that time makes stale: that a session is alive, that a leader leads. The clock
//! they measure it with stands still while the machine sleeps, so after a sleep all of it looks fresh. A second clock, which goes on
//! meanwhile, tells. Owns that comparison; what follows from it is for whoever asks. On macOS the clocks are named from Apple's
//! manual; it has not been run on hardware.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Shorter than this is no sleep: the two clocks are not read in one instant.
const SLEPT_MIN: Duration = Duration::from_millis(500);

/// Goes on while the machine sleeps. (On Linux the clock of that name stands still.)
#[cfg(target_os = "macos")]
const UNBROKEN: ClockId = ClockId::Monotonic;
#[cfg(not(target_os = "macos"))]
const UNBROKEN: ClockId = ClockId::Boottime;

/// Compares the two clocks from one look to the next.
#[derive(Debug)]
pub struct Suspend {
    /// How far the clock that never stands still was ahead of the other.
    ahead: Duration,
    epoch: Instant,
}

impl Default for Suspend {
    fn default() -> Self {
        let epoch = Instant::now();
        Self { ahead: unbroken(), epoch }
    }
}

impl Suspend {
    /// How long the machine slept since the latest look, if it did.
    pub fn look(&mut self) -> Option<Duration> {
        // The one that stands still first: a moment between the two looks like sleep, of which some is allowed for.
        let awake = self.epoch.elapsed();
        self.compare(awake, unbroken())
    }

    fn compare(&mut self, awake: Duration, unbroken: Duration) -> Option<Duration> {
        let ahead = unbroken.saturating_sub(awake);
        let slept = ahead.saturating_sub(self.ahead);
        if slept < SLEPT_MIN {
            return None;
        }
        self.ahead = ahead;
        Some(slept)
    }
}

fn unbroken() -> Duration {
    let now = clock_gettime(UNBROKEN);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_sleep_is_told_once_and_with_its_length() {
        let mut suspend = Suspend { ahead: s(1_000.0), epoch: Instant::now() };
        assert_eq!(suspend.compare(s(1.0), s(1_001.0)), None);
        assert_eq!(suspend.compare(s(1.5), s(1_061.5)), Some(s(60.0)));
        assert_eq!(suspend.compare(s(2.0), s(1_062.0)), None);
        assert_eq!(suspend.compare(s(2.5), s(1_063.25)), Some(s(0.75)), "a nap");
    }

    #[test]
    fn a_machine_that_is_merely_slow_did_not_sleep() {
        let mut suspend = Suspend { ahead: s(1_000.0), epoch: Instant::now() };
        assert_eq!(suspend.compare(s(60.0), s(1_060.4)), None, "between the two looks");
        assert_eq!(suspend.compare(s(61.0), s(1_061.0)), None);
        assert_eq!(suspend.compare(s(62.0), s(1_061.9)), None, "the clocks never run apart the other way");
    }

    #[test]
    fn the_clocks_of_this_machine_go_together() {
        let mut suspend = Suspend::default();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
        assert_eq!(suspend.look(), None);
        assert!(unbroken() > Duration::ZERO);
    }
}
