//! A wish that what is purged is gone from the disk, and not only from what is read.
//!
//! Owns the wish, and what the log says of its oldest file. A purge by itself leaves the segment that is written to: its records are
//! no longer read, and their bytes stay until it is full. Refuses to promise more than that the file is gone: what a medium does
//! with freed blocks is its own affair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the log and by whoever wants something gone.
#[derive(Clone, Default)]
pub(crate) struct Erasure(Arc<Shared>);

#[derive(Default)]
struct Shared {
    wanted: AtomicBool,
    oldest: AtomicU64,
    newest: AtomicU64,
}

impl Erasure {
    /// The next purge closes the segment that is written to, so that it, or a later one, removes it.
    pub(crate) fn want(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether it is wanted; asked once for each wish.
    pub(crate) fn take(&self) -> bool {
        self.0.wanted.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn oldest_is(&self, segment: u64) {
        self.0.oldest.store(segment, Ordering::Relaxed);
    }

    pub(crate) fn newest_is(&self, segment: u64) {
        self.0.newest.store(segment, Ordering::Relaxed);
    }

    /// The number of the segment that is written to.
    pub(crate) fn newest(&self) -> u64 {
        self.0.newest.load(Ordering::Relaxed)
    }

    /// The number of the oldest segment on the disk.
    pub(crate) fn oldest(&self) -> u64 {
        self.0.oldest.load(Ordering::Relaxed)
    }
}
