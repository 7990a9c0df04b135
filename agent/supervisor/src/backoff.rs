//! How long a model that fails is left alone.
//!
//! Owns the delay: `first × 2^level`, at most `max`. Every failure raises the level by one, every full `decay` of
//! healthy uptime lowers it by one. Refuses to forget at once: a crash loop that looks healthy for a moment keeps its
//! delay, and one accident after an hour of health costs half a second.

use crate::limits::Limits;
use crate::time::{At, Span};

/// The memory of failures of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    level: u32,
    until: Option<At>,
}

impl Backoff {
    /// A runtime failed after being healthy for this long.
    pub(crate) fn failed(&mut self, at: At, healthy: Span, limits: &Limits) {
        let forgiven = healthy.0.checked_div(limits.backoff_decay.0).unwrap_or(0);
        self.level = self.level.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        let delay = delay(self.level, limits);
        self.until = Some(at.after(delay));
        // The level stops where the delay does: further failures would only make the way back longer.
        if delay < limits.backoff_max {
            self.level = self.level.saturating_add(1);
        }
    }

    /// When the model may start again, while that is yet to come.
    pub(crate) fn until(&self) -> Option<At> {
        self.until
    }

    /// There will be no next start to delay; the level stays.
    pub(crate) fn cancel(&mut self) {
        self.until = None;
    }

    /// Ends the delay if it is over.
    pub(crate) fn pass(&mut self, at: At) {
        if self.until.is_some_and(|until| until <= at) {
            self.until = None;
        }
    }
}

fn delay(level: u32, limits: &Limits) -> Span {
    let factor = 1_u64.checked_shl(level).unwrap_or(u64::MAX);
    limits.backoff_first.times(factor).min(limits.backoff_max)
}
