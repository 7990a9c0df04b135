//! The one place where the coordinator's shell turns real time into the scheduler's, and back.
//!
//! Owns the epoch. Refuses wall-clock time for anything but what people read and what outlives a process: scheduling uses the
//! monotonic clock only, so a clock that is set back moves no deadline.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::At;
use tokio::time::Instant;

use crate::limits;

/// Microseconds since some time before the coordinator started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    /// The same moment for people and for other processes.
    epoch_unix_ms: u64,
}

impl Clock {
    /// Begins a while before now: what came under an earlier leader has its place in time too.
    pub(crate) fn start() -> Self {
        let (now, unix_ms) = (Instant::now(), unix_ms());
        match now.checked_sub(limits::LONGEST_WAIT) {
            Some(epoch) => {
                let before_ms = u64::try_from(limits::LONGEST_WAIT.as_millis()).unwrap_or_default();
                Self { epoch, epoch_unix_ms: unix_ms.saturating_sub(before_ms) }
            }
            None => Self { epoch: now, epoch_unix_ms: unix_ms },
        }
    }

    pub(crate) fn now(&self) -> At {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, instant: Instant) -> At {
        let micros = instant.saturating_duration_since(self.epoch).as_micros();
        At(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    pub(crate) fn instant(&self, at: At) -> Instant {
        self.epoch + Duration::from_micros(at.0)
    }

    /// A fact's time, to be written down.
    pub(crate) fn unix_ms_of(self, at: At) -> u64 {
        self.epoch_unix_ms.saturating_add(at.0 / 1_000)
    }

    /// A fact's time, as another process wrote it down. What was before this process began happened at its beginning.
    pub(crate) fn of_unix_ms(self, unix_ms: u64) -> At {
        At(unix_ms.saturating_sub(self.epoch_unix_ms).saturating_mul(1_000))
    }
}

/// Milliseconds since 1970, for what people read and for facts that outlive a process.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_time_that_is_written_down_comes_back_to_the_millisecond() {
        let clock = Clock { epoch: Instant::now(), epoch_unix_ms: 1_000 };
        assert_eq!(clock.unix_ms_of(At(2_345_678)), 3_345);
        assert_eq!(clock.of_unix_ms(3_345), At(2_345_000));
        assert_eq!(clock.of_unix_ms(999), At(0), "before the beginning");
    }
}
