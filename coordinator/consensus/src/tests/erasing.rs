//! A plain key of the authority, sealed: it leaves every disk, whatever happens on the way.

use std::sync::Arc;

use registry::{ClusterVersion, Command, Reply};
use tokio::time::timeout;

use super::commands::{founding, set};
use super::group::{Group, PATIENCE};
use super::sim_disk::SimDisk;
use crate::handle::Consensus;
use crate::options::{Options, Start};
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;

const PLAIN: &[u8] = b"canary-key-material";

fn holds(disk: &SimDisk) -> Vec<String> {
    let names = disk.names().unwrap();
    let holding = |name: &String| {
        let bytes = disk.read(name).unwrap().unwrap_or_default();
        bytes.windows(PLAIN.len()).any(|window| window == PLAIN)
    };
    names.into_iter().filter(holding).collect()
}

async fn erased(disk: &SimDisk) {
    let look = async {
        while !holds(disk).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, look).await.is_ok(), "still in {:?}", holds(disk));
}

fn sealing() -> [Command; 2] {
    let raise = Command::RaiseVersion { to: ClusterVersion::THIRD, at_unix_ms: 8 };
    [raise, Command::SealCa { sealed_ca_key: "00ab".to_owned(), at_unix_ms: 9 }]
}

async fn open(disk: &SimDisk) -> Consensus {
    let (folder, released) = Folder::on(Arc::new(disk.clone()));
    Consensus::open_in(folder, released, Options::default(), Start::Found).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_key_leaves_the_disks_of_all_replicas_once_it_is_sealed() {
    let mut group = Group::of(3).await;
    assert!(!holds(&group.nodes[&1].disk).is_empty(), "the test looks in the wrong place");
    for command in sealing() {
        assert_eq!(group.on(2).propose(command).await.unwrap(), Reply::Done);
    }
    group.settled().await;
    for id in group.ids() {
        erased(&group.nodes[&id].disk).await;
    }
    let mut disks = Vec::new();
    for id in group.ids() {
        disks.push((id, group.kill(id).await));
    }
    group.start_all(disks).await;
    assert_eq!(group.settled().await.cluster().unwrap().sealed_ca_key.as_deref(), Some("00ab"));
    group.on(1).propose(set(1, 1)).await.unwrap();
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_killed_before_the_key_was_gone_removes_it_at_its_next_start() {
    let disk = SimDisk::default();
    let replica = open(&disk).await;
    replica.propose(founding().remove(0)).await.unwrap();
    for command in sealing() {
        replica.propose(command).await.unwrap();
    }
    let killed = disk.after_kill();
    erased(&disk).await;
    replica.shutdown().await.unwrap();
    let replica = open(&killed).await;
    erased(&killed).await;
    replica.shutdown().await.unwrap();
}
