//! Followers that are too far behind for the log.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use proto::raft as wire;
use proto::raft::snapshot_chunk::Part;
use tonic::{Code, Status};

use super::commands::{get, set};
use super::group::{Group, Settings, address};
use super::sim_disk::SimDisk;
use crate::limits;
use crate::options::{ReplicaId, Start};
use crate::raft::snapshot_pieces;
use crate::raft::types::{Snapshot, SnapshotMeta, Vote};
use crate::wal::disk::Disk;
use crate::wal::snapshot_file;

/// A snapshot after every few commands.
const SMALL: Settings = Settings { snapshot_every: 16, leader_silence: Duration::from_secs(2), night: None };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_the_snapshot_and_then_the_log_behind_it() {
    let mut group = Group::found_with(SMALL).await;
    for value in 0..200 {
        group.on(1).propose(set(value % 64, value)).await.unwrap();
    }
    group.on(1).snapshot().await.unwrap();
    assert!(group.on(1).health().snapshot_index > Some(100));
    group.join(2).await;
    assert!(group.nodes[&2].disk.names().unwrap().contains(&snapshot_file::NAME.to_owned()));
    assert_eq!(get(&group.settled().await, 199 % 64), Some(199));
    group.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_long_catches_up_by_a_snapshot_and_survives_a_restart() {
    let mut group = Group::of_with(3, SMALL).await;
    let disk = group.kill(3).await;
    for value in 0..300 {
        group.on(1).propose(set(value % 64, value)).await.unwrap();
    }
    group.start(3, disk, Start::Found).await;
    let facts = group.settled().await;
    assert_eq!(get(&facts, 299 % 64), Some(299));
    assert!(group.on(3).health().snapshot_index > Some(100));
    let disk = group.kill(3).await;
    group.start(3, disk, Start::Found).await;
    assert_eq!(group.settled().await, facts);
    group.shutdown().await;
}

fn snapshot(bytes: usize) -> Snapshot {
    Snapshot { meta: SnapshotMeta::default(), snapshot: (0..bytes).map(|at| (at % 251) as u8).collect() }
}

async fn pieces(bytes: usize) -> Vec<wire::SnapshotChunk> {
    let header = wire::Header::default();
    snapshot_pieces::of(header, &Vote::new(1, ReplicaId(1)), snapshot(bytes)).collect().await
}

async fn received(chunks: Vec<wire::SnapshotChunk>) -> Result<Vec<u8>, Status> {
    let mut chunks = stream::iter(chunks.into_iter().map(Ok));
    let head = snapshot_pieces::head(&mut chunks).await?;
    snapshot_pieces::state(&mut chunks, &head).await
}

#[tokio::test]
async fn a_snapshot_of_any_size_arrives_as_it_was_sent_in_bounded_pieces() {
    let chunk = limits::SNAPSHOT_CHUNK_BYTES;
    for bytes in [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk + 7] {
        let sent = pieces(bytes).await;
        assert_eq!(sent.len(), 1 + bytes.div_ceil(chunk));
        for piece in &sent {
            if let Some(Part::Data(data)) = &piece.part {
                assert!(data.len() <= chunk);
            }
        }
        assert_eq!(received(sent).await.unwrap(), snapshot(bytes).snapshot);
    }
}

#[tokio::test]
async fn a_snapshot_that_does_not_arrive_whole_is_refused() {
    let whole = pieces(3 * limits::SNAPSHOT_CHUNK_BYTES).await;
    assert!(received(whole.clone()).await.is_ok());
    let without = |at: usize| {
        let mut pieces = whole.clone();
        pieces.remove(at);
        pieces
    };
    let mut flipped = whole.clone();
    if let Some(Part::Data(data)) = &mut flipped[2].part {
        let mut bytes = data.to_vec();
        bytes[77] ^= 1;
        *data = bytes.into();
    }
    let mut swapped = whole.clone();
    swapped.swap(1, 2);
    let longer = [whole.clone(), vec![whole[1].clone()]].concat();
    let twice = [whole.clone(), vec![whole[0].clone()]].concat();
    let empty = [whole.clone(), vec![wire::SnapshotChunk { part: None }]].concat();
    let mut huge = whole.clone();
    if let Some(Part::Head(head)) = &mut huge[0].part {
        head.bytes = limits::SNAPSHOT_BYTES_MAX + 1;
    }
    for (broken, code) in [
        (without(0), Code::InvalidArgument),
        (without(1), Code::DataLoss),
        (without(3), Code::DataLoss),
        (flipped, Code::DataLoss),
        (swapped, Code::DataLoss),
        (longer, Code::InvalidArgument),
        (twice, Code::InvalidArgument),
        (empty, Code::InvalidArgument),
        (huge, Code::ResourceExhausted),
        (Vec::new(), Code::InvalidArgument),
    ] {
        assert_eq!(received(broken).await.unwrap_err().code(), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_breaks_leaves_nothing_behind() {
    let mut group = Group::found().await;
    group.start(2, SimDisk::default(), Start::Join).await;
    let before = group.nodes[&2].disk.names().unwrap();
    let dial = group.net.dialler(1).dial(ReplicaId(2), &address(2));
    let mut client = wire::replica_client::ReplicaClient::new(dial.await.unwrap());
    let header = wire::Header { wire_version: 1, from: 1, to: 2, epoch: 0, speaks: 1 };
    let leader = Vote::new_committed(7, ReplicaId(1));
    let mut sent: Vec<_> =
        snapshot_pieces::of(header, &leader, snapshot(2 * limits::SNAPSHOT_CHUNK_BYTES)).collect().await;
    sent.pop();
    let refused = client.snapshot(stream::iter(sent)).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    // One that is whole and no registry is as good as broken.
    let senseless: Vec<_> = snapshot_pieces::of(header, &leader, snapshot(5)).collect().await;
    let refused = client.snapshot(stream::iter(senseless)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let health = group.on(2).health();
    assert_eq!((health.term, health.applied_index, health.snapshot_index), (0, None, None));
    assert_eq!(group.nodes[&2].disk.names().unwrap(), before);
    // The way is free for a whole one.
    group.on(1).add(ReplicaId(2), &address(2), |_| {}).await.unwrap();
    group.settled().await;
    group.shutdown().await;
}
