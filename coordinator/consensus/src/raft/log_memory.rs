//! What the log holds, in memory: openraft reads entries far more often than a file should be read, and the log
//! between two snapshots is small (see `limits.rs`). The file is only read at start.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry;

use crate::raft::types::{Entry, LogId, Vote};

/// Shared by the store and its readers. No lock is held over IO or an await.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<u64, Held>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

/// An entry, and what it takes when it is encoded.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) bytes: usize,
}

impl Memory {
    pub(crate) fn new(
        entries: BTreeMap<u64, Held>,
        purged: Option<LogId>,
        vote: Option<Vote>,
        committed: Option<LogId>,
    ) -> Memory {
        Memory { inner: Arc::new(Mutex::new(Inner { entries, purged, vote, committed })) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in these sections can panic half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn append(&self, entry: Entry, bytes: usize) {
        self.inner().entries.insert(entry.log_id.index, Held { entry, bytes });
    }

    /// Removes `index` and everything after it.
    pub(crate) fn truncate(&self, index: u64) {
        self.inner().entries.split_off(&index);
    }

    /// Removes everything up to and including `upto`.
    pub(crate) fn purge(&self, upto: LogId) {
        let mut inner = self.inner();
        inner.entries = inner.entries.split_off(&upto.index.saturating_add(1));
        inner.purged = Some(upto);
    }

    pub(crate) fn set_vote(&self, vote: Vote) {
        self.inner().vote = Some(vote);
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.inner().vote
    }

    pub(crate) fn set_committed(&self, committed: Option<LogId>) {
        self.inner().committed = committed;
    }

    /// Only if this log holds that very entry. The hint may be newer than what a machine's crash left of the log, and
    /// an entry of another leader at that index, or before it, may never have been committed.
    pub(crate) fn committed(&self) -> Option<LogId> {
        let inner = self.inner();
        let committed = inner.committed?;
        let held = inner.entries.get(&committed.index).is_some_and(|held| held.entry.log_id() == committed);
        let purged = inner.purged.is_some_and(|purged| committed <= purged);
        (held || purged).then_some(committed)
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.inner().purged
    }

    /// Id of the last entry, purged or not.
    pub(crate) fn last(&self) -> Option<LogId> {
        let inner = self.inner();
        inner.entries.values().next_back().map(|held| held.entry.log_id()).or(inner.purged)
    }

    pub(crate) fn range(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        // An empty or inverted range is a question like any other, but `BTreeMap::range` panics on it.
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let below = |index: u64| match range.end_bound() {
            Bound::Included(end) => index <= *end,
            Bound::Excluded(end) => index < *end,
            Bound::Unbounded => true,
        };
        let inner = self.inner();
        inner
            .entries
            .range(start..)
            .map(|(_, held)| &held.entry)
            .take_while(|entry| below(entry.log_id.index))
            .cloned()
            .collect()
    }

    /// The first of these entries, as many as `bytes_max` holds and at least one.
    pub(crate) fn batch(&self, start: u64, end: u64, bytes_max: usize) -> Vec<Entry> {
        let inner = self.inner();
        let mut bytes = 0_usize;
        let held = inner.entries.range(start..).take_while(|(index, _)| **index < end).map(|(_, held)| held);
        held.take_while(|held| {
            let fits = bytes == 0 || bytes.saturating_add(held.bytes) <= bytes_max;
            bytes = bytes.saturating_add(held.bytes.max(1));
            fits
        })
        .map(|held| held.entry.clone())
        .collect()
    }
}
