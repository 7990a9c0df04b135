//! A key of the authority that is no fact any more is gone from the disk: the plain one once it is sealed, a former one, which lay
//! there sealed, once the rotation is over.
//!
//! Owns the snapshot and the purge that follow, on each replica for itself: a snapshot without that key, then no log file that was
//! begun before. Refuses to touch a cluster that never had such a key. Where there was a rotation nothing on the disk says that this is
//! done, so each start does it once more.

use std::sync::{Arc, Weak};

use openraft::async_runtime::watch::WatchReceiver;
use registry::Registry;
use tokio::time::sleep;

use crate::error::SnapshotError;
use crate::handle::Consensus;
use crate::limits;
use crate::replica::Replica;
use crate::wal::erasure::Erasure;
use crate::wal::log;

/// `found`: the facts of the snapshot on the disk, or none. A founding with a plain key is in the first log file, if it is in any.
pub(crate) fn keep(replica: &Arc<Replica>, found: &Registry, erasure: Erasure) {
    let begun_before = erasure.oldest() == log::FIRST_SEGMENT;
    let (replica, mut facts) = (Arc::downgrade(replica), replica.published.clone());
    let is_done = keys_left(found) == 1 && was_sealed(found) && !begun_before;
    let mut done = u64::from(is_done);
    tokio::spawn(async move {
        loop {
            let Ok(keys) =
                facts.wait_for(|facts| keys_left(facts) > done).await.map(|facts| keys_left(&facts))
            else {
                return;
            };
            // A file that is begun from here on holds no word of them.
            let begun = erasure.newest();
            if !erase_up_to(&replica, &erasure, begun).await {
                return;
            }
            done = keys;
        }
    });
}

/// Returns whether they are gone; they are not when the replica stops.
async fn erase_up_to(replica: &Weak<Replica>, erasure: &Erasure, segment: u64) -> bool {
    erasure.want();
    let mut covered = None;
    // What is written meanwhile is in the file that was to go: then it takes another snapshot, of more than the last one.
    while erasure.oldest() <= segment || covered.is_none() {
        let Some(replica) = replica.upgrade() else { return false };
        let applied = *replica.applied_index.borrow();
        if applied > covered {
            match erase(&replica).await {
                Ok(upto) => covered = upto,
                Err(SnapshotError::Slow) => {}
                Err(SnapshotError::Stopped(_)) => return false,
            }
        }
        drop(replica);
        sleep(limits::ERASE_AGAIN).await;
    }
    true
}

/// How many keys the facts had that they have no more.
fn keys_left(facts: &Registry) -> u64 {
    u64::from(was_sealed(facts)) + facts.cluster().map_or(0, |cluster| cluster.rotations)
}

/// It had a plain key, and has none any more.
fn was_sealed(facts: &Registry) -> bool {
    facts.cluster().is_some_and(|cluster| cluster.sealed_at_unix_ms.is_some())
}

/// Returns up to where the snapshot and the purge go. A leader purges a little later, where a follower reads what is to go.
async fn erase(replica: &Arc<Replica>) -> Result<Option<u64>, SnapshotError> {
    Consensus { replica: Arc::clone(replica) }.snapshot().await?;
    let raft = &replica.raft;
    let covered = raft.metrics().borrow_watched().snapshot.map(|id| id.index);
    if let Some(upto) = covered {
        let purging = raft.trigger().purge_log(upto).await;
        purging.map_err(|fatal| SnapshotError::Stopped(fatal.to_string()))?;
    }
    Ok(covered)
}
