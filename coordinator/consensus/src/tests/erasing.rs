//! A plain key of the authority, sealed: it leaves every disk, whatever happens on the way.

use std::sync::Arc;

use registry::{CaStep, ClusterId, ClusterVersion, Command, Reply};
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
    holds_word(disk, PLAIN)
}

fn holds_word(disk: &SimDisk, word: &[u8]) -> Vec<String> {
    let names = disk.names().unwrap();
    let holding = |name: &String| {
        let bytes = disk.read(name).unwrap().unwrap_or_default();
        bytes.windows(word.len()).any(|window| window == word)
    };
    names.into_iter().filter(holding).collect()
}

async fn erased(disk: &SimDisk) {
    erased_word(disk, PLAIN).await;
}

async fn erased_word(disk: &SimDisk, word: &[u8]) {
    let look = async {
        while !holds_word(disk, word).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, look).await.is_ok(), "still in {:?}", holds_word(disk, word));
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

const KEYS: [&str; 3] = ["c0ffee00", "c0ffee11", "c0ffee22"];

fn sealed_founding() -> [Command; 2] {
    let founding = Command::FoundSealed {
        cluster: ClusterId("room".to_owned()),
        ca_certificate_pem: "authority 0".to_owned(),
        sealed_ca_key: KEYS[0].to_owned(),
        at_unix_ms: 1,
    };
    [founding, Command::RaiseVersion { to: ClusterVersion::FOURTH, at_unix_ms: 2 }]
}

fn rotation(number: u64, key: &str) -> [Command; 2] {
    let begin = CaStep::Begin {
        ca_certificate_pem: format!("authority {number}"),
        cross_certificate_pem: "certified".to_owned(),
        sealed_ca_key: key.to_owned(),
        sealed_hash_key: "ab".to_owned(),
        until_unix_ms: 9,
    };
    [begin, CaStep::End { abandon: true }].map(|step| Command::RotateCa { number, step, at_unix_ms: 3 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_an_authority_that_gave_way_leaves_the_disk_each_time() {
    let disk = SimDisk::default();
    let replica = open(&disk).await;
    for command in sealed_founding() {
        assert_eq!(replica.propose(command).await.unwrap(), Reply::Done);
    }
    for (number, former, next) in [(1, KEYS[0], KEYS[1]), (2, KEYS[1], KEYS[2])] {
        assert!(!holds_word(&disk, former.as_bytes()).is_empty(), "the test looks in the wrong place");
        let [begin, end] = rotation(number, next);
        assert_eq!(replica.propose(begin).await.unwrap(), Reply::Done);
        assert!(!holds_word(&disk, former.as_bytes()).is_empty(), "it signed what is good still");
        assert_eq!(replica.propose(end).await.unwrap(), Reply::Done);
        erased_word(&disk, former.as_bytes()).await;
        assert!(!holds_word(&disk, next.as_bytes()).is_empty());
    }
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_killed_when_a_rotation_ended_forgets_the_former_key_at_its_next_start() {
    let disk = SimDisk::default();
    let replica = open(&disk).await;
    for command in sealed_founding().into_iter().chain(rotation(1, KEYS[1])) {
        replica.propose(command).await.unwrap();
    }
    let killed = disk.after_kill();
    erased_word(&disk, KEYS[0].as_bytes()).await;
    replica.shutdown().await.unwrap();
    let replica = open(&killed).await;
    erased_word(&killed, KEYS[0].as_bytes()).await;
    assert_eq!(replica.local().cluster().unwrap().sealed_ca_key.as_deref(), Some(KEYS[1]));
    replica.shutdown().await.unwrap();
}
