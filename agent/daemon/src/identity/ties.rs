//! Under which authority each open connection of this Mac was made.
//!
//! Owns the list, and the one answer that coordinators wait for: whether nothing of a former authority is left. Refuses to open or to
//! close anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of all sessions and token streams.
#[derive(Clone, Default)]
pub(crate) struct Ties(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    last: u64,
    made_under: BTreeMap<u64, [u8; 32]>,
}

/// One connection, from before its handshake until it is closed.
pub(crate) struct Tie {
    ties: Ties,
    number: u64,
}

impl Ties {
    pub(crate) fn tie(&self, authority: [u8; 32]) -> Tie {
        let mut open = self.lock();
        open.last = open.last.wrapping_add(1);
        let number = open.last;
        open.made_under.insert(number, authority);
        Tie { ties: self.clone(), number }
    }

    /// All of them were made under this one.
    pub(crate) fn are_all_of(&self, authority: [u8; 32]) -> bool {
        self.lock().made_under.values().all(|made| *made == authority)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        self.ties.lock().made_under.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_settled_while_a_connection_of_a_former_authority_is_open() {
        let (ties, former, present) = (Ties::default(), [1; 32], [2; 32]);
        let (first, second) = (ties.tie(former), ties.tie(former));
        assert!(ties.are_all_of(former) && !ties.are_all_of(present));
        drop(first);
        let _anew = ties.tie(present);
        assert!(!ties.are_all_of(present) && !ties.are_all_of(former));
        drop(second);
        assert!(ties.are_all_of(present));
    }
}
