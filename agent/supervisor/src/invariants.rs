//! What must hold after every command, for tests, the simulator and debug builds.
//!
//! Owns one function. Refuses to repair anything.

use alloc::collections::BTreeSet;

use crate::supervisor::{ModelKey, Supervisor};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// More memory is promised than there is.
    OverCommitted {
        /// Promised.
        reserved_bytes: u64,
        /// There is.
        budget_bytes: u64,
    },
    /// Two processes have one number.
    SharedIncarnation,
    /// A model that nobody wants and that has no process is still held.
    Leaked {
        /// The model.
        model: ModelKey,
    },
    /// A process nobody wants is not on its way out.
    Unstopped {
        /// The model.
        model: ModelKey,
    },
}

impl Supervisor {
    /// The first invariant that is broken, if any.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        let (reserved_bytes, budget_bytes) = (self.reserved_bytes(), self.budget_bytes());
        if reserved_bytes > budget_bytes {
            return Some(Violation::OverCommitted { reserved_bytes, budget_bytes });
        }
        let mut seen = BTreeSet::new();
        for (model, life) in &self.lives {
            if life.over() {
                return Some(Violation::Leaked { model: *model });
            }
            let Some(process) = &life.process else { continue };
            if !seen.insert(process.incarnation) {
                return Some(Violation::SharedIncarnation);
            }
            if life.wish.is_none() && !process.leaving() {
                return Some(Violation::Unstopped { model: *model });
            }
        }
        None
    }
}
