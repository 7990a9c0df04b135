//! A follower takes back what its leader never committed: exactly that, in memory and on the disk.
//!
//! An entry too few taken back would be there again after a restart, in the place of the leader's; an entry too many is one that
//! was acknowledged.

use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{Entry, EntryPayload, RaftLogReader};

use super::log_model::SMALL;
use super::sim_disk::SimDisk;
use crate::options::ReplicaId;
use crate::raft::log_store::{self, LogStore};
use crate::raft::types::{LogId, Types};
use crate::wal::folder::Folder;

/// Enough that their records lie in several files.
const ENTRIES: u64 = 12;

fn store(disk: &SimDisk) -> LogStore {
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    log_store::read(folder, ReplicaId(1), SMALL).unwrap().log
}

fn id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

async fn append(store: &mut LogStore, ids: impl IntoIterator<Item = LogId>) {
    for log_id in ids {
        let (done, flushed) = Types::oneshot();
        let entry = Entry { log_id, payload: EntryPayload::Blank };
        store.append([entry], IOFlushed::signal(done)).await.unwrap();
        flushed.await.unwrap().unwrap();
    }
}

/// All that it says it holds.
async fn held(store: &mut LogStore) -> (Option<LogId>, Vec<LogId>) {
    let last = store.get_log_state().await.unwrap().last_log_id;
    let entries = store.get_log_reader().await.try_get_log_entries(..).await.unwrap();
    (last, entries.iter().map(|entry| entry.log_id).collect())
}

#[tokio::test]
async fn exactly_the_tail_is_taken_back_and_stays_away_after_a_restart() {
    for kept in 0..=ENTRIES {
        let disk = SimDisk::default();
        let mut written = store(&disk);
        append(&mut written, (0..ENTRIES).map(|index| id(1, index))).await;
        let last = kept.checked_sub(1).map(|index| id(1, index));
        written.truncate_after(last).await.unwrap();
        let expected = (last, (0..kept).map(|index| id(1, index)).collect::<Vec<_>>());
        assert_eq!(held(&mut written).await, expected, "{kept} kept");
        let disk = disk.after_kill();
        assert_eq!(held(&mut store(&disk)).await, expected, "{kept} kept, after a restart");
    }
}

#[tokio::test]
async fn what_the_next_leader_puts_in_place_of_the_tail_is_what_is_there_after_a_restart() {
    for kept in 0..=ENTRIES {
        let disk = SimDisk::default();
        let mut written = store(&disk);
        append(&mut written, (0..ENTRIES).map(|index| id(1, index))).await;
        written.truncate_after(kept.checked_sub(1).map(|index| id(1, index))).await.unwrap();
        let (of_old, of_new) =
            ((0..kept).map(|index| id(1, index)), (kept..kept + 2).map(|index| id(2, index)));
        append(&mut written, of_new.clone()).await;
        let expected = (Some(id(2, kept + 1)), of_old.chain(of_new).collect::<Vec<_>>());
        assert_eq!(held(&mut written).await, expected, "{kept} kept");
        assert_eq!(held(&mut store(&disk.after_kill())).await, expected, "{kept} kept, after a restart");
    }
}
