//! Whether the control plane is there, as probes ask it.
//!
//! Owns the moment since which nobody leads. Refuses to call an election an outage: what arrives in one is held, and served a
//! second later.

use std::sync::{Arc, Mutex, PoisonError};

use consensus::{Consensus, Leadership};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::Ready;
use crate::limits;

/// Whether this replica leads, until the registry is closed.
pub(crate) fn leads(consensus: &Consensus) -> watch::Receiver<bool> {
    let mut leadership = consensus.leadership();
    let (sender, leads) = watch::channel(leadership.borrow_and_update().is_self);
    tokio::spawn(async move {
        while leadership.changed().await.is_ok() {
            sender.send_replace(leadership.borrow_and_update().is_self);
        }
    });
    leads
}

/// Knows since when nobody leads.
#[derive(Clone)]
pub(crate) struct Readiness {
    consensus: Consensus,
    led: Led,
}

impl Readiness {
    /// Follows the elections until the registry is closed.
    pub(crate) fn follow(consensus: &Consensus) -> Self {
        let led = Led::default();
        tokio::spawn(led.clone().follow(consensus.leadership()));
        Self { consensus: consensus.clone(), led }
    }

    /// A gateway is ready while it knows who leads.
    pub(crate) fn now(&self) -> Ready {
        let fatal = self.consensus.health().fatal;
        let leader = self.consensus.leadership().borrow().leader.is_some() && fatal.is_none();
        let why = match fatal {
            Some(fatal) => fatal,
            None if leader => String::new(),
            None => "no coordinator leads: a majority of them is not there, or is electing".to_owned(),
        };
        let soon = leader || self.led.missed_since().is_none_or(|since| since.elapsed() <= limits::ELECTION);
        Ready { leader, soon: soon && self.consensus.health().fatal.is_none(), why }
    }
}

/// The moment at which the last leader was lost; `None` while one leads.
#[derive(Clone)]
struct Led(Arc<Mutex<Option<Instant>>>);

impl Default for Led {
    /// As of a start: the first leader may take as long as the next.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }
}

impl Led {
    async fn follow(self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            let led = leadership.borrow_and_update().leader.is_some();
            self.note(led, Instant::now());
            if leadership.changed().await.is_err() {
                return;
            }
        }
    }

    fn note(&self, led: bool, at: Instant) {
        let mut missed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *missed = if led { None } else { missed.or(Some(at)) };
    }

    fn missed_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_moment_without_a_leader_counts_until_there_is_one() {
        let (led, start) = (Led::default(), Instant::now());
        led.note(true, start);
        assert_eq!(led.missed_since(), None);
        let lost = start + Duration::from_secs(1);
        led.note(false, lost);
        led.note(false, lost + Duration::from_secs(9));
        assert_eq!(led.missed_since(), Some(lost));
        led.note(true, lost + Duration::from_secs(10));
        assert_eq!(led.missed_since(), None);
    }
}
