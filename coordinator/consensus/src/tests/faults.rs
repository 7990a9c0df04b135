//! Disks that fail while the replica runs.

use std::sync::Arc;
use std::time::Duration;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{Entry, EntryPayload};

use super::commands::{founding, get, set};
use super::generator::Generator;
use super::sim_disk::{Fault, SimDisk};
use crate::error::{OpenError, ProposeError, Retry};
use crate::handle::Consensus;
use crate::options::{Options, ReplicaId, Start};
use crate::raft::log_store::{self, LogStore};
use crate::raft::types::{LogId, Types};
use crate::wal::folder::Folder;
use crate::wal::log::{Log, Rotation, entry};
use crate::wal::segment;
use crate::wal::writer::Writer;

fn store(disk: &SimDisk) -> LogStore {
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    log_store::read(folder, ReplicaId(1), Rotation::default()).unwrap().log
}

fn id(index: u64) -> LogId {
    LogId { leader_id: openraft::vote::leader_id_std::CommittedLeaderId::new(1), index }
}

/// Queues one entry; the receiver hears when it is durable.
async fn append(store: &mut LogStore, index: u64) -> impl Future<Output = std::io::Result<()>> + use<> {
    let (done, flushed) = Types::oneshot();
    let entry = Entry { log_id: id(index), payload: EntryPayload::Blank };
    store.append([entry], IOFlushed::signal(done)).await.unwrap();
    async move { flushed.await.unwrap() }
}

async fn replica(disk: &SimDisk) -> Consensus {
    let (folder, released) = Folder::on(Arc::new(disk.clone()));
    Consensus::open_in(folder, released, Options::default(), Start::Found).await.unwrap()
}

#[tokio::test]
async fn after_one_failed_flush_the_store_refuses_everything_though_the_disk_has_recovered() {
    let disk = SimDisk::default();
    let mut store = store(&disk);
    append(&mut store, 0).await.await.unwrap();
    disk.fail(Fault::FlushFails(disk.operations() + 1));
    append(&mut store, 1).await.await.unwrap_err();
    let written = disk.operations();
    append(&mut store, 2).await.await.unwrap_err();
    store.purge(id(0)).await.unwrap_err();
    store.truncate_after(None).await.unwrap_err();
    store.save_vote(&openraft::Vote::new(9, ReplicaId(1))).await.unwrap_err();
    assert_eq!(disk.operations(), written, "a stopped store touched the disk");
}

#[tokio::test]
async fn appends_that_wait_behind_a_flush_share_the_next_one() {
    let disk = SimDisk::default();
    let mut store = store(&disk);
    let before = disk.flushes();
    disk.hold();
    let mut waiting = Vec::new();
    for index in 0..64 {
        waiting.push(append(&mut store, index).await);
    }
    disk.release();
    for flushed in waiting {
        flushed.await.unwrap();
    }
    // One for what the writer took first, one for all the rest.
    assert!(disk.flushes() - before <= 2, "{} flushes", disk.flushes() - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_stops_the_replica_for_good_and_loses_nothing_that_was_answered() {
    let disk = SimDisk::default();
    let replica = replica(&disk).await;
    for command in founding() {
        replica.propose(command).await.unwrap();
    }
    replica.propose(set(0, 1)).await.unwrap();
    disk.fail(Fault::FlushFails(disk.operations() + 1));
    let error = replica.propose(set(0, 2)).await.unwrap_err();
    assert!(error.fatal() && error.retry() == Retry::OutcomeUnknown, "{error}");
    assert!(replica.propose(set(0, 3)).await.unwrap_err().fatal());
    assert!(replica.read(|_| ()).await.is_err());
    let why = replica.health().fatal.unwrap();
    assert!(why.contains("flushing log-000000000001") && why.contains("os error 5"), "{why}");
    assert_eq!(replica.stopped().await, why);
    assert_eq!(get(&replica.local(), 0), Some(1));
    replica.shutdown().await.unwrap();

    let reopened = self::replica(&disk.after_kill()).await;
    let value = reopened.read(|registry| get(registry, 0)).await.unwrap();
    assert!(value == Some(1) || value == Some(2), "{value:?}");
    reopened.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_in_the_error_and_the_replica_opens_again_when_there_is_room() {
    let disk = SimDisk::default();
    let replica = replica(&disk).await;
    for command in founding() {
        replica.propose(command).await.unwrap();
    }
    disk.fail(Fault::Full(disk.operations() + 1));
    let error = replica.propose(set(0, 1)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Stopped(_)), "{error}");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    replica.shutdown().await.unwrap();

    let reopened = self::replica(&disk.after_kill()).await;
    reopened.propose(set(0, 2)).await.unwrap();
    assert_eq!(get(&reopened.local(), 0), Some(2));
    reopened.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_beyond_the_bound_is_refused_as_busy_while_the_disk_hangs() {
    let disk = SimDisk::default();
    let (folder, released) = Folder::on(Arc::new(disk.clone()));
    let options = Options { proposals_in_flight_max: 1, ..Options::default() };
    let replica = Consensus::open_in(folder, released, options, Start::Found).await.unwrap();
    let mut commands = founding().into_iter();
    replica.propose(commands.next().unwrap()).await.unwrap();
    disk.hold();
    let waiting = replica.clone();
    let command = commands.next().unwrap();
    let mut first = Box::pin(async move { waiting.propose(command).await });
    // Polled once, it holds the only slot.
    assert!(futures_util::poll!(&mut first).is_pending());
    let second = replica.propose(commands.next().unwrap()).await;
    disk.release();
    first.await.unwrap();
    assert_eq!(second.unwrap_err(), ProposeError::Busy { in_flight_max: 1 });
    replica.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_idle_writer_flushes_the_mark_so_that_even_a_power_loss_leaves_damage_visible() {
    let disk = SimDisk::default();
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    let (log, _) = Log::open(folder, 1, Rotation::default()).unwrap();
    let writer = Writer::start(log, Duration::ZERO).unwrap();
    let flushes = disk.flushes();
    let (done, flushed) = tokio::sync::oneshot::channel();
    writer.append(vec![entry(0, 1, b"{}".to_vec())], Box::new(|result| done.send(result).unwrap()));
    flushed.await.unwrap().unwrap();
    // The second flush is the mark's; it comes by itself, while nobody asks for anything.
    while disk.flushes() < flushes + 2 {
        tokio::task::yield_now().await;
    }
    let disk = disk.after_power_loss(&mut Generator::new(1));
    let name = segment::name(1);
    let mut bytes = disk.bytes(&name);
    *bytes.last_mut().unwrap() ^= 1;
    disk.edit(&name, bytes);
    let (folder, _released) = Folder::on(Arc::new(disk));
    assert!(matches!(Log::open(folder, 1, Rotation::default()), Err(OpenError::Damaged(_))));
}
