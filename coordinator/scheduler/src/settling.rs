//! The first moments of a leader, while it may not have been told yet what runs.
//!
//! Owns the pause. A leader that takes over hears first from some gateways and some nodes only, so a node that looks idle may be full
//! of what another gateway has there. For a bounded time it takes in what it is told and starts nothing:
//!
//! 1. Every node is shut ([`crate::Gate::Settling`]): who arrives or comes back waits in line.
//! 2. Nobody is refused for load, nor for a deadline that no node known by then can keep, nor for a model that none can hold.
//! 3. No model is loaded or evicted.
//! 4. What needs to know no node goes on: ends, deadlines, quarantine, the bound of memory.
//!
//! Then all of that is made up for at once. Refuses to guess whether everybody has spoken: the shell knows the gateways, and may end
//! the pause by saying so.

use crate::machine::Scheduler;
use crate::time::At;
use crate::turn::Turn;

impl Scheduler {
    pub(crate) fn lead(&mut self, settles_at: At, turn: &Turn<'_>) {
        self.settles_at = Some(settles_at.min(turn.at + self.limits.settling));
    }

    /// The end of the pause, while there is one.
    pub(crate) fn settling(&self) -> Option<At> {
        self.settles_at.filter(|until| *until > self.now)
    }

    /// When the pause is over, every line is looked at.
    pub(crate) fn settled(&mut self, turn: &mut Turn<'_>) {
        if self.settles_at.take_if(|until| *until <= turn.at).is_some() {
            turn.due.extend(self.queue.lengths().map(|(model, _)| model));
        }
    }
}
