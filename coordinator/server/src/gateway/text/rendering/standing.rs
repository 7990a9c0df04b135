//! How one template stands with the renderers: its turns, and how often in a row it has ended one.
//!
//! Owns the rule that keeps a hostile template from the others' processors. Refuses to be a judgement for good: a template is tried again
//! after a while, because a very long conversation may have been the reason.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::gateway::limits;

pub(crate) struct Standing {
    /// Never closed.
    pub(super) turns: Arc<Semaphore>,
    strikes: Mutex<Strikes>,
}

#[derive(Default)]
struct Strikes {
    in_a_row: u32,
    refused_until: Option<Instant>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(limits::RENDERINGS_PER_TEMPLATE)), strikes: Mutex::default() }
    }
}

impl Standing {
    /// For how long it is not tried.
    pub(super) fn refused(&self, now: Instant) -> Option<Duration> {
        let until = self.strikes().refused_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Its renderer lives, whatever it answered.
    pub(super) fn kept_within(&self) {
        *self.strikes() = Strikes::default();
    }

    /// It ended or outlasted its renderer. After the pause the first such end begins the next one.
    pub(super) fn struck(&self, now: Instant) {
        let mut strikes = self.strikes();
        strikes.in_a_row = strikes.in_a_row.saturating_add(1);
        if strikes.in_a_row >= limits::TEMPLATE_STRIKES {
            strikes.refused_until = now.checked_add(limits::TEMPLATE_REFUSED);
        }
    }

    fn strikes(&self) -> std::sync::MutexGuard<'_, Strikes> {
        self.strikes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ends_in_a_row_are_a_pause_and_then_one_is() {
        let (standing, mut now) = (Standing::default(), Instant::now());
        for _ in 1..limits::TEMPLATE_STRIKES {
            standing.struck(now);
            assert_eq!(standing.refused(now), None);
        }
        standing.struck(now);
        assert_eq!(standing.refused(now), Some(limits::TEMPLATE_REFUSED));
        now += limits::TEMPLATE_REFUSED;
        assert_eq!(standing.refused(now), None);
        standing.struck(now);
        assert_eq!(standing.refused(now), Some(limits::TEMPLATE_REFUSED));
    }

    #[test]
    fn an_answer_between_them_wipes_the_slate() {
        let (standing, now) = (Standing::default(), Instant::now());
        for _ in 0..9 {
            standing.struck(now);
            standing.struck(now);
            standing.kept_within();
        }
        assert_eq!(standing.refused(now), None);
    }
}
