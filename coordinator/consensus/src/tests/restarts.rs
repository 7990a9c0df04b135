//! A replica that is stopped or killed again and again holds what a plain registry would hold.

use std::sync::Arc;

use registry::Registry;

use super::commands::{founding, set};
use super::generator::Generator;
use super::sim_disk::SimDisk;
use crate::handle::Consensus;
use crate::options::{Options, Start};
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;
use crate::wal::{segment, snapshot_file};

async fn replica(disk: &SimDisk) -> Consensus {
    let (folder, released) = Folder::on(Arc::new(disk.clone()));
    let options = Options { snapshot_every: 8, ..Options::default() };
    Consensus::open_in(folder, released, options, Start::Found).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_restarted_a_hundred_times_holds_what_a_plain_registry_holds() {
    let mut generator = Generator::new(2026);
    let mut model = Registry::default();
    let mut disk = SimDisk::default();
    for round in 0..100 {
        let replica = replica(&disk).await;
        assert_eq!(*replica.local(), model, "round {round}: as opened");
        assert_eq!(replica.read(Registry::clone).await.unwrap(), model, "round {round}");
        let mut commands = if round == 0 { founding() } else { Vec::new() };
        commands.extend((0..generator.below(12)).map(|_| set(generator.below(64), generator.below(1000))));
        for command in commands {
            let reply = replica.propose(command.clone()).await.unwrap();
            assert_eq!(reply, model.apply(&command), "round {round}");
        }
        // Power is lost at this moment, or the replica is shut down first.
        let orderly = generator.chance(50);
        let lost = disk.after_power_loss(&mut generator);
        replica.shutdown().await.unwrap();
        disk = if orderly { disk.after_kill() } else { lost };
    }
    assert!(disk.names().unwrap().contains(&snapshot_file::NAME.to_owned()), "no snapshot was ever taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_behind_a_snapshot_is_purged_and_the_replica_opens_without_it() {
    let disk = SimDisk::default();
    let replica = replica(&disk).await;
    for command in founding() {
        replica.propose(command).await.unwrap();
    }
    // Enough bytes that a purge finds its segment worth closing.
    for value in 0..1500 {
        replica.propose(set(value % 64, value)).await.unwrap();
    }
    let applied = replica.health().applied_index;
    replica.snapshot().await.unwrap();
    assert!(replica.health().snapshot_index >= applied, "{:?}", replica.health());
    let before = replica.local();
    replica.shutdown().await.unwrap();
    let names = disk.names().unwrap();
    assert!(!names.contains(&segment::name(1)), "the first segment is still there: {names:?}");

    let reopened = self::replica(&disk.after_kill()).await;
    assert_eq!(reopened.local(), before);
    reopened.shutdown().await.unwrap();
}
