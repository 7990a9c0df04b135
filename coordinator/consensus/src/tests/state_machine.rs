//! The state machine apart from Raft: snapshots that arrive from elsewhere.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::vote::leader_id_std::CommittedLeaderId;
use registry::Registry;

use super::commands::{founding, get, set};
use super::sim_disk::SimDisk;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{LogId, SnapshotMeta};
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;
use crate::wal::snapshot_file;

fn machine(disk: &SimDisk) -> StateMachine {
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    StateMachine::open(folder, snapshot_file::read(disk).unwrap(), Arc::default()).unwrap()
}

fn meta(index: u64) -> SnapshotMeta {
    let last_log_id = Some(LogId { leader_id: CommittedLeaderId::new(2), index });
    SnapshotMeta { last_log_id, ..SnapshotMeta::default() }
}

#[tokio::test]
async fn an_installed_snapshot_is_published_and_durable_before_it_counts() {
    let disk = SimDisk::default();
    let mut registry = Registry::default();
    founding().iter().chain([&set(1, 5)]).for_each(|command| drop(registry.apply(command)));
    let mut machine = machine(&disk);
    let changes = machine.published();
    machine.install_snapshot(&meta(7), serde_json::to_vec(&registry).unwrap()).await.unwrap();
    assert_eq!(get(&changes.borrow(), 1), Some(5));
    assert_eq!(*machine.applied_index().borrow(), Some(7));

    let mut reopened = self::machine(&disk.after_power_loss(&mut super::generator::Generator::new(3)));
    assert_eq!(**reopened.published().borrow(), registry);
    assert_eq!(reopened.applied_state().await.unwrap().0, meta(7).last_log_id);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_decoded_changes_nothing_and_its_content_is_not_repeated() {
    let disk = SimDisk::default();
    let mut machine = machine(&disk);
    let error = machine.install_snapshot(&meta(7), b"{\"canary-key-material\":".to_vec()).await.unwrap_err();
    assert!(!error.to_string().contains("canary"), "{error}");
    assert_eq!(*machine.applied_index().borrow(), None);
    assert!(disk.names().unwrap().is_empty());
}
