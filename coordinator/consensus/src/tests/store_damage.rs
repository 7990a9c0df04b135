//! Flipped bits and cuts in everything a replica keeps: segments, vote, mark and snapshot.
//!
//! The guarantee, asserted for every single bit: in segments, vote and snapshot it is refused; in the mark, of which
//! there are two copies, the exact acknowledged state is recovered.

use std::sync::Arc;

use openraft::RaftLogReader;
use openraft::entry::EntryPayload;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use registry::Registry;

use super::commands::{founding, set};
use super::sim_disk::SimDisk;
use crate::error::OpenError;
use crate::handle::Consensus;
use crate::options::{Options, ReplicaId, Start};
use crate::raft::log_store;
use crate::raft::types::{LogId, Vote};
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;
use crate::wal::log::{Rotation, VOTE};
use crate::wal::{mark, segment, snapshot_file};

/// Everything a replica must not forget.
#[derive(Clone, Debug, PartialEq)]
struct Truth {
    registry: Registry,
    vote: Option<Vote>,
    last: Option<LogId>,
    covered: Option<LogId>,
}

/// A replica that answered a few commands, took a snapshot, and answered a few more.
fn sample() -> SimDisk {
    let disk = SimDisk::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (folder, released) = Folder::on(Arc::new(disk.clone()));
        let replica = Consensus::open_in(folder, released, Options::default(), Start::Found).await.unwrap();
        for command in founding() {
            replica.propose(command).await.unwrap();
        }
        replica.snapshot().await.unwrap();
        for value in 0..2 {
            replica.propose(set(value, value)).await.unwrap();
        }
        replica.shutdown().await.unwrap();
    });
    disk
}

/// What opening the store yields. A single voter's log is all committed, so its registry is snapshot plus log.
fn opened(runtime: &tokio::runtime::Runtime, disk: &SimDisk) -> Result<Truth, OpenError> {
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    let mut stores = log_store::read(folder, ReplicaId(1), Rotation::default())?;
    runtime.block_on(async {
        let state = stores.log.get_log_state().await.unwrap();
        let covered = stores.state_machine.applied_state().await.unwrap().0;
        let mut registry = Registry::clone(&stores.published.borrow());
        let mut reader = stores.log.get_log_reader().await;
        let behind = covered.map_or(0, |id| id.index + 1);
        for entry in reader.try_get_log_entries(behind..).await.unwrap() {
            if let EntryPayload::Normal(proposal) = entry.payload {
                registry.apply(&proposal.0);
            }
        }
        let vote = reader.read_vote().await.unwrap();
        Ok(Truth { registry, vote, last: state.last_log_id, covered })
    })
}

fn with_edit(disk: &SimDisk, name: &str, bytes: Vec<u8>) -> SimDisk {
    let copy = disk.after_kill();
    copy.edit(name, bytes);
    copy
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn every_flipped_bit_of_the_log_the_vote_and_the_snapshot_is_refused() {
    let disk = sample();
    let runtime = current_thread();
    for name in [segment::name(1), VOTE.to_owned(), snapshot_file::NAME.to_owned()] {
        let bytes = disk.bytes(&name);
        for bit in 0..bytes.len() * 8 {
            match opened(&runtime, &with_edit(&disk, &name, flipped(&bytes, bit))) {
                Err(OpenError::Damaged(damage)) => assert_eq!(damage.file, name, "bit {bit}"),
                other => panic!("bit {bit} of {name}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_the_mark_leaves_the_exact_acknowledged_state() {
    let disk = sample();
    let runtime = current_thread();
    let truth = opened(&runtime, &disk.after_kill()).unwrap();
    let bytes = disk.bytes(mark::NAME);
    for bit in 0..bytes.len() * 8 {
        // The rest of a slot is filler that nothing reads: one bit in each of its bytes will do.
        if (bit / 8) % 4096 >= 512 && bit % 8 != 0 {
            continue;
        }
        let found = opened(&runtime, &with_edit(&disk, mark::NAME, flipped(&bytes, bit)));
        assert_eq!(found.unwrap(), truth, "bit {bit}");
    }
}

#[test]
fn every_file_cut_anywhere_is_refused_or_yields_the_exact_acknowledged_state() {
    let disk = sample();
    let runtime = current_thread();
    let truth = opened(&runtime, &disk.after_kill()).unwrap();
    for name in disk.names().unwrap() {
        let bytes = disk.bytes(&name);
        for cut in 0..bytes.len() {
            match opened(&runtime, &with_edit(&disk, &name, bytes[..cut].to_vec())) {
                Err(OpenError::Damaged(damage)) => assert_eq!(damage.file, name, "cut at {cut}"),
                Ok(found) => assert_eq!((found, name.as_str()), (truth.clone(), mark::NAME), "cut at {cut}"),
                Err(other) => panic!("{name} cut at {cut}: {other}"),
            }
        }
    }
}

#[test]
fn a_snapshot_that_is_missing_behind_a_purged_log_is_refused() {
    let disk = SimDisk::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (folder, _released) = Folder::on(Arc::new(disk.clone()));
        let mut stores = log_store::read(folder, ReplicaId(1), Rotation::default()).unwrap();
        let id = LogId { leader_id: openraft::vote::leader_id_std::CommittedLeaderId::new(1), index: 3 };
        stores.log.purge(id).await.unwrap();
    });
    let error = opened(&current_thread(), &disk.after_kill()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(damage) if damage.file == "snapshot"), "{error}");
}
