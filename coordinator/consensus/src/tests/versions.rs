//! A cluster whose version rises, and replicas that do not speak it.

use std::sync::Arc;

use proto::raft as wire;
use proto::raft::replica_client::ReplicaClient;
use registry::{ClusterVersion, Command, Refusal, Reply};
use tokio::time::timeout;
use tonic::Code;

use super::commands::{founding, set};
use super::group::{Group, PATIENCE, address};
use super::sim_disk::SimDisk;
use crate::error::OpenError;
use crate::handle::Consensus;
use crate::options::{Options, ReplicaId, Start};
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;
use crate::wal::snapshot_file;

const FIRST: ClusterVersion = ClusterVersion::FIRST;
const SECOND: ClusterVersion = ClusterVersion::SECOND;

fn raise(to: u32) -> Command {
    Command::RaiseVersion { to: ClusterVersion(to), at_unix_ms: 9 }.audited("leader-1", 9)
}

async fn open(disk: &SimDisk, speaks: ClusterVersion) -> Result<Consensus, OpenError> {
    let (folder, released) = Folder::on(Arc::new(disk.clone()));
    Consensus::open_in(folder, released, Options { speaks, ..Options::default() }, Start::Found).await
}

/// Returns when the snapshot on the disk is of the second version.
async fn sealed(disk: &SimDisk) {
    let look = async {
        loop {
            let state = snapshot_file::read(disk).unwrap().map(|snapshot| snapshot.state);
            if state.is_some_and(|state| String::from_utf8_lossy(&state).contains(r#""cluster_version":2"#)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, look).await.expect("no snapshot of the second version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_rises_on_all_replicas_and_survives_their_death() {
    let mut group = Group::of(3).await;
    assert_eq!(group.on(2).local().cluster_version(), FIRST);
    // By a follower, as any command.
    assert_eq!(group.on(3).propose(raise(2)).await.unwrap(), Reply::Done);
    assert_eq!(group.settled().await.cluster_version(), SECOND);
    for id in group.ids() {
        sealed(&group.nodes[&id].disk).await;
    }
    let mut disks = Vec::new();
    for id in group.ids() {
        disks.push((id, group.kill(id).await));
    }
    group.start_all(disks).await;
    assert_eq!(group.settled().await.cluster_version(), SECOND);
    group.on(1).propose(set(1, 1)).await.unwrap();
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_spoken_here_never_enters_the_log() {
    let disk = SimDisk::default();
    let replica = open(&disk, FIRST).await.unwrap();
    replica.propose(founding().remove(0)).await.unwrap();
    let last = replica.health().last_log_index;
    for to in [2, 3] {
        let refusal = Refusal::VersionUnknown { to: ClusterVersion(to), newest: FIRST };
        assert_eq!(replica.propose(raise(to)).await.unwrap(), Reply::Refused(refusal));
    }
    assert_eq!((replica.health().last_log_index, replica.health().fatal), (last, None));
    replica.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_a_later_version_is_refused_with_the_fix_whether_log_or_snapshot_says_it() {
    let disk = SimDisk::default();
    let replica = open(&disk, SECOND).await.unwrap();
    replica.propose(founding().remove(0)).await.unwrap();
    replica.propose(raise(2)).await.unwrap();
    let in_the_log = disk.after_kill();
    sealed(&disk).await;
    replica.shutdown().await.unwrap();
    for disk in [in_the_log, disk] {
        let before = disk.names().unwrap();
        let refused = open(&disk, FIRST).await.err().unwrap().to_string();
        assert!(
            refused.starts_with("this cluster speaks version 2, this coordinator only 1 to 1"),
            "{refused}"
        );
        assert_eq!(disk.names().unwrap(), before);
        open(&disk, SECOND).await.unwrap().shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_meets_what_it_does_not_speak_stops_and_says_why() {
    let mut group = Group::of(3).await;
    let disk = group.kill(3).await;
    let held = Options { speaks: FIRST, ..group.options(3) };
    let (folder, released) = Folder::on(Arc::new(disk));
    let held = Consensus::open_in(folder, released, held, Start::Join).await.unwrap();
    let server = group.net.serve(&held, &address(3)).await;
    // Its leader did not ask it.
    group.on(group.leader().await).propose(raise(2)).await.unwrap();
    let why = timeout(PATIENCE, held.stopped()).await.expect("it goes on");
    assert!(why.starts_with("this cluster speaks version 2, this coordinator only 1 to 1"), "{why}");
    assert_eq!(held.health().fatal, Some(why));
    assert_eq!(held.local().cluster_version(), FIRST, "it took nothing over");
    server.abort();
    held.shutdown().await.unwrap();
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_carry_the_version_and_who_speaks_less_is_refused() {
    let group = Group::of(3).await;
    let dial = group.net.dialler(2).dial(ReplicaId(1), &address(1));
    let mut client = ReplicaClient::new(dial.await.unwrap());
    let ask = |wire_version, speaks| wire::ReadIndexRequest {
        header: Some(wire::Header { wire_version, from: 2, to: 1, epoch: 0, speaks }),
    };
    let old = || ask(1, 0);
    assert!(client.read_index(old()).await.is_ok(), "an older release is a member like any other");
    group.on(1).propose(raise(2)).await.unwrap();
    let refused = client.read_index(old()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let words = "this cluster speaks version 2, replica 2 up to 1; update mlx-serving there";
    assert_eq!(refused.message(), words);
    // One that speaks it and has not heard of the rise yet.
    assert!(client.read_index(ask(1, 2)).await.is_ok());
    assert!(client.read_index(ask(2, 2)).await.is_ok());
    assert_eq!(group.on(1).health().fatal, None);
    let later = client.read_index(ask(9, 9)).await.unwrap_err();
    assert!(later.message().ends_with("update mlx-serving on this machine"), "{later}");
    assert!(group.on(1).health().fatal.is_some(), "it was left behind");
    group.shutdown().await;
}
