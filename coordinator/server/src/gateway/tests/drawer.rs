//! Kept answers without disks and without a network: one drawer for all gateways of a stage.
//!
//! Owns what tests do to it: gateways that die, answers that are lost, disks that are full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use registry::{Digest, JobRun, Registry};

use crate::jobs::{Jobs, Keeper, Missing, Runs, What};

#[derive(Default)]
pub(super) struct Drawer {
    kept: Mutex<BTreeMap<(What, Digest), Bytes>>,
    /// The runs of each gateway that lives and can be reached.
    gateways: Mutex<BTreeMap<u64, Runs>>,
    pub(super) full: AtomicBool,
    /// How many more it takes until it is full, where that is said.
    pub(super) places: Mutex<Option<usize>>,
    pub(super) unreachable: AtomicBool,
}

impl Drawer {
    /// A gateway's new life.
    pub(super) fn jobs(self: &Arc<Self>, replica: u64) -> Jobs {
        let runs = Runs::new(replica).expect("randomness");
        self.gateways.lock().unwrap().insert(replica, runs.clone());
        Jobs { runs, keeper: self.clone() }
    }

    /// Nobody reaches it any more.
    pub(super) fn cut_off(&self, replica: u64) {
        self.gateways.lock().unwrap().remove(&replica);
    }

    pub(super) fn lose_all(&self) {
        self.kept.lock().unwrap().clear();
    }

    /// This piece alone.
    pub(super) fn lose(&self, digest: Digest) {
        self.kept.lock().unwrap().remove(&(What::Piece, digest));
    }

    /// As after the time for which a coordinator keeps what no fact names.
    pub(super) fn lose_unnamed(&self, facts: &Registry) {
        let named: BTreeSet<_> = facts.pieces().map(|piece| piece.digest).collect();
        self.kept.lock().unwrap().retain(|(what, digest), _| *what == What::Answer || named.contains(digest));
    }

    fn takes_one(&self) -> bool {
        let mut places = self.places.lock().unwrap();
        let takes = *places != Some(0) && !self.full.load(Ordering::Relaxed);
        *places = places.map(|places| places.saturating_sub(1));
        takes
    }

    pub(super) fn count(&self) -> usize {
        self.kept.lock().unwrap().len()
    }
}

impl Keeper for Drawer {
    fn has_room(&self) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    fn keep(&self, what: What, digest: Digest, bytes: Bytes) -> BoxFuture<'_, BTreeSet<u64>> {
        let takes = self.takes_one();
        if takes {
            self.kept.lock().unwrap().insert((what, digest), bytes);
        }
        async move { if takes { [1, 2].into() } else { BTreeSet::new() } }.boxed()
    }

    fn fetch(&self, what: What, digest: Digest, _: BTreeSet<u64>) -> BoxFuture<'_, Result<Bytes, Missing>> {
        let missing = match self.unreachable.load(Ordering::Relaxed) {
            true => Missing::Unreachable,
            false => Missing::Gone,
        };
        let answer = self.kept.lock().unwrap().get(&(what, digest)).cloned();
        async move { answer.ok_or(missing) }.boxed()
    }

    fn goes_on(&self, run: JobRun) -> BoxFuture<'_, bool> {
        let gateways = self.gateways.lock().unwrap();
        let goes_on = gateways.get(&run.replica).is_some_and(|runs| runs.goes_on(run.life, run.number));
        async move { goes_on }.boxed()
    }
}
