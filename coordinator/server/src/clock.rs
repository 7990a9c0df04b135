//! The one place where the coordinator's shell turns real time into the scheduler's.
//!
//! Owns the epoch. Refuses wall-clock time for anything but what people read: scheduling uses the monotonic clock only, so a
//! clock that is set back moves no deadline.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::At;
use tokio::time::Instant;

/// Microseconds since the coordinator started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { epoch: Instant::now() }
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
}

/// Milliseconds since 1970, for what people read and for facts that outlive a process.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
