//! The plain key of the authority is gone from the disk once it is sealed.
//!
//! Owns the snapshot and the purge that follow the sealing, on each replica for itself: a snapshot without the plain key, then no log
//! file that was begun before. Refuses to touch a cluster that never had a plain key, and to do it twice where it is done.

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use registry::Registry;
use tokio::time::sleep;

use crate::error::SnapshotError;
use crate::handle::Consensus;
use crate::limits;
use crate::replica::Replica;
use crate::wal::erasure::Erasure;
use crate::wal::log;

/// `found`: the facts of the snapshot on the disk, or none. The founding is in the first log file, if it is in any.
pub(crate) fn keep(replica: &Arc<Replica>, found: &Registry, erasure: Erasure) {
    let begun_before = erasure.oldest() == log::FIRST_SEGMENT;
    let (replica, mut facts) = (Arc::downgrade(replica), replica.published.clone());
    if was_sealed(found) && !begun_before {
        return;
    }
    tokio::spawn(async move {
        if facts.wait_for(|facts| was_sealed(facts)).await.is_err() {
            return;
        }
        erasure.want();
        let mut covered = None;
        // What is written meanwhile is in the file that was to go: then it takes another snapshot, of more than the last one.
        while erasure.oldest() == log::FIRST_SEGMENT || covered.is_none() {
            let Some(replica) = replica.upgrade() else { return };
            let applied = *replica.applied_index.borrow();
            if applied > covered {
                match erase(&replica).await {
                    Ok(upto) => covered = upto,
                    Err(SnapshotError::Slow) => {}
                    Err(SnapshotError::Stopped(_)) => return,
                }
            }
            drop(replica);
            sleep(limits::ERASE_AGAIN).await;
        }
    });
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
