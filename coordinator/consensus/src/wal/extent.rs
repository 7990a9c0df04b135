//! How far the log reaches at some point of its history. Pure.

use serde::{Deserialize, Serialize};

use crate::wal::record::{Kind, Op};

/// Where the log ends and up to where it has been purged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Index of the last entry, purged or not.
    pub(crate) last_index: Option<u64>,
    /// The last purge.
    pub(crate) purged: Option<Purged>,
}

/// A purge: everything up to `index` is gone; `name` is what the caller calls that point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Purged {
    pub(crate) index: u64,
    pub(crate) name: String,
}

impl Extent {
    /// The index the next entry must have, or `None` where any will do: a log that never held an entry.
    pub(crate) fn next_index(&self) -> Option<u64> {
        self.last_index.map(|index| index.saturating_add(1))
    }

    /// The extent after `op`.
    pub(crate) fn follow(&mut self, op: &Op) {
        match op.kind {
            Kind::Entry => self.last_index = Some(op.index),
            Kind::Truncate => self.last_index = self.last_index.min(op.index.checked_sub(1)),
            Kind::Purge => {
                let name = String::from_utf8_lossy(&op.payload).into_owned();
                self.purged = Some(Purged { index: op.index, name });
                self.last_index = self.last_index.max(Some(op.index));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: Kind, index: u64) -> Op {
        Op { kind, index, term: 1, payload: b"p".to_vec() }
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_end() {
        let mut extent = Extent::default();
        extent.follow(&op(Kind::Entry, 4));
        extent.follow(&op(Kind::Purge, 9));
        assert_eq!(extent.next_index(), Some(10));
        assert_eq!(extent.purged.map(|purged| purged.index), Some(9));
    }

    #[test]
    fn truncating_from_zero_empties_the_log_and_truncating_past_the_end_does_nothing() {
        let mut extent = Extent::default();
        extent.follow(&op(Kind::Entry, 4));
        extent.follow(&op(Kind::Truncate, 8));
        assert_eq!(extent.last_index, Some(4));
        extent.follow(&op(Kind::Truncate, 0));
        assert_eq!(extent.last_index, None);
    }
}
