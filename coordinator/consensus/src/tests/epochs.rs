//! New lives: backups that are restored, and followers whose leader will not come back.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::time::timeout;

use super::commands::{founding, get, set};
use super::generator::Generator;
use super::group::{Group, PATIENCE, address};
use super::sim_disk::{Fault, SimDisk};
use crate::epoch::force_in;
use crate::error::{EpochError, OpenError};
use crate::handle::Consensus;
use crate::members::Role;
use crate::options::{Options, ReplicaId, Start};
use crate::raft::log_store;
use crate::wal::folder::Folder;
use crate::wal::log::Rotation;

/// Two Macs: a voter and its learner, both with a value of 1 in register 0.
async fn two_macs() -> Group {
    let mut group = Group::found().await;
    group.join(2).await;
    group.on(1).propose(set(0, 1)).await.unwrap();
    group.mirrored(2).await;
    group
}

async fn force(group: &Group, id: u64, disk: &SimDisk) -> Result<u64, EpochError> {
    let (folder, mut released) = Folder::on(Arc::new(disk.clone()));
    let forced = force_in(folder, &group.options(id)).await;
    let free = released.wait_for(|released| *released);
    timeout(PATIENCE, free).await.expect("the folder is still held").ok();
    forced
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_learner_leads_alone_in_a_later_epoch_with_all_it_had() {
    let mut group = two_macs().await;
    let learner = group.kill(2).await;
    group.kill(1).await;
    let epoch = force(&group, 2, &learner).await.unwrap();
    group.start(2, learner, Start::Join).await;
    let registry = group.on(2).local();
    assert_eq!((registry.epoch(), get(&registry, 0)), (epoch, Some(1)));
    assert!(registry.is_replica_removed(1) && !registry.is_replica_removed(2));
    let members = group.on(2).members();
    assert_eq!((members.len(), members[0].role, &members[0].address), (1, Role::Voter, &address(2)));
    group.on(2).propose(set(0, 2)).await.unwrap();
    // It grows like any other, and its new members are in its epoch.
    group.join(3).await;
    let facts = group.settled().await;
    assert_eq!((facts.epoch(), get(&facts, 0)), (epoch, Some(2)));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_the_old_epoch_that_comes_back_cannot_touch_the_new_one() {
    let mut group = two_macs().await;
    let learner = group.kill(2).await;
    // The old leader goes on alone and gets ahead in entries.
    for value in 100..150 {
        group.on(1).propose(set(0, value)).await.unwrap();
    }
    let old = group.kill(1).await;
    let epoch = force(&group, 2, &learner).await.unwrap();
    assert!(epoch > 0);
    group.start(2, learner, Start::Join).await;
    group.on(2).propose(set(0, 2)).await.unwrap();
    let term = group.on(2).health().term;
    // It still counts replica 2 as its follower, and sends it what it has.
    group.start(1, old, Start::Found).await;
    for value in 200..250 {
        group.on(1).propose(set(0, value)).await.unwrap();
        group.on(2).propose(set(1, value)).await.unwrap();
    }
    assert_eq!((group.on(1).local().epoch(), get(&group.on(1).local(), 0)), (0, Some(249)));
    assert_eq!((group.on(2).local().epoch(), get(&group.on(2).local(), 0)), (epoch, Some(2)));
    assert_eq!(group.on(2).health().term, term, "the old leader's messages moved nothing");
    assert!(group.on(2).health().leader);
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forcing_twice_is_two_epochs_and_a_forced_replica_survives_a_restart() {
    let mut group = two_macs().await;
    group.kill(1).await;
    let mut disk = group.kill(2).await;
    let mut last = 0;
    for life in 1..=3 {
        let epoch = force(&group, 2, &disk).await.unwrap();
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
        group.start(2, disk, Start::Join).await;
        group.on(2).propose(set(1, life)).await.unwrap();
        disk = group.kill(2).await;
    }
    group.start(2, disk, Start::Join).await;
    let registry = group.on(2).local();
    assert_eq!((registry.epoch(), get(&registry, 0), get(&registry, 1)), (last, Some(1), Some(3)));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_forcing_leaves_the_old_life_or_the_new_one() {
    let mut group = two_macs().await;
    let learner = group.kill(2).await;
    group.kill(1).await;
    let operations = {
        let disk = learner.after_kill();
        force(&group, 2, &disk).await.unwrap();
        disk.operations() - learner.operations()
    };
    let (mut old, mut new) = (0, 0);
    for crash in 1..=operations + 1 {
        let disk = learner.after_kill();
        disk.fail(Fault::DeadFrom(disk.operations() + crash));
        force(&group, 2, &disk).await.ok();
        let disk = disk.after_power_loss(&mut Generator::new(crash));
        let (folder, _released) = Folder::on(Arc::new(disk));
        let stores = log_store::read(folder, ReplicaId(2), Rotation::default()).unwrap();
        let registry = stores.published.borrow().clone();
        match registry.epoch() {
            0 => old += 1,
            1.. => {
                new += 1;
                assert_eq!(get(&registry, 0), Some(1), "crash at operation {crash}");
            }
        }
    }
    assert!(old > 0 && new > 0, "{old} crashes left the old life, {new} the new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_coordinators_folder_is_not_forced() {
    let group = Group::found().await;
    assert!(matches!(force(&group, 7, &SimDisk::default()).await, Err(EpochError::Nothing)));
    let disk = group.nodes[&1].disk.after_kill();
    let error = force(&group, 7, &disk).await.unwrap_err();
    assert!(matches!(error, EpochError::Folder(OpenError::OtherReplica { found: 1, wanted: 7 })), "{error}");
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_restored_is_a_group_of_one_with_the_same_facts_in_a_later_epoch() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("backup");
    let group = Group::of(3).await;
    group.on(1).propose(set(3, 33)).await.unwrap();
    group.settled().await;
    // Any replica can be asked.
    group.on(2).backup(&file).await.unwrap();
    let facts = group.on(2).local();
    group.shutdown().await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let folder = temporary.path().join("restored");
    let options = Options { replica: ReplicaId(4), address: address(4), ..Options::default() };
    let epoch = Consensus::restore(&file, &folder, &options).await.unwrap();
    assert!(epoch > facts.epoch());
    let replica = Consensus::open(&folder, options.clone(), Start::Found).await.unwrap();
    let mut expected = registry::Registry::clone(&facts);
    // The time of the second life is larger than the number of the first, so it is the epoch.
    expected.begin_epoch(epoch, 4, [1, 2, 3]);
    assert_eq!(*replica.local(), expected);
    assert_eq!(replica.members().len(), 1);
    replica.propose(set(3, 34)).await.unwrap();
    replica.shutdown().await.unwrap();
    let replica = Consensus::open(&folder, options, Start::Found).await.unwrap();
    assert_eq!(get(&replica.local(), 3), Some(34));
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_restored_only_whole_and_only_where_nothing_is() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("backup");
    let group = Group::found().await;
    group.on(1).backup(&file).await.unwrap();
    group.shutdown().await;
    let options = Options::default();
    let folder = |name: &str| temporary.path().join(name);

    let missing = Consensus::restore(&folder("none"), &folder("a"), &options).await.unwrap_err();
    assert!(missing.to_string().contains("reading"), "{missing}");
    let bytes = std::fs::read(&file).unwrap();
    for bit in (0..bytes.len() * 8).step_by(13) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(folder("damaged"), damaged).unwrap();
        let refused = Consensus::restore(&folder("damaged"), &folder("b"), &options).await.unwrap_err();
        assert!(matches!(&refused, EpochError::Folder(OpenError::Damaged(_))), "bit {bit}: {refused}");
    }
    Consensus::restore(&file, &folder("c"), &options).await.unwrap();
    let refused = Consensus::restore(&file, &folder("c"), &options).await.unwrap_err();
    assert!(matches!(refused, EpochError::NotEmpty), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_replica_restores_nothing_and_nothing_is_restored_from_no_cluster() {
    let temporary = tempfile::tempdir().unwrap();
    let (file, empty) = (temporary.path().join("backup"), temporary.path().join("empty"));
    let mut group = Group::found().await;
    group.join(2).await;
    group.on(1).remove(&[ReplicaId(2)], crate::changing::Even::Refuse).await.unwrap();
    group.on(1).backup(&file).await.unwrap();
    group.shutdown().await;
    let options = Options { replica: ReplicaId(2), ..Options::default() };
    let refused = Consensus::restore(&file, &temporary.path().join("a"), &options).await.unwrap_err();
    assert!(matches!(refused, EpochError::Removed { replica: ReplicaId(2) }), "{refused}");

    let unfounded = temporary.path().join("unfounded");
    let replica = Consensus::open(&unfounded, Options::default(), Start::Found).await.unwrap();
    replica.backup(&empty).await.unwrap();
    replica.shutdown().await.unwrap();
    let refused = Consensus::restore(&empty, &temporary.path().join("b"), &options).await.unwrap_err();
    assert!(matches!(refused, EpochError::Nothing), "{refused}");
    assert!(!founding().is_empty());
}
