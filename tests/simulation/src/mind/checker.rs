//! The scheduler's own laws, tried after every command.
//!
//! Owns a witness of the whole history. Refuses to stop a run: the first broken law is kept and told at the end.

use scheduler::witness::Witness;
use scheduler::{Command, Effect, Scheduler, invariants};

#[derive(Default)]
pub(super) struct Checker {
    witness: Witness,
    broken: Option<String>,
}

impl Checker {
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn check(&mut self, scheduler: &Scheduler, command: &Command, effects: &[Effect]) {
        let laws = invariants::check(scheduler, effects)
            .and_then(|()| self.witness.observe(command, effects, &scheduler.load()));
        if let (Err(broken), None) = (laws, &self.broken) {
            self.broken = Some(format!("{broken:?} after {command:?}"));
        }
    }
}
