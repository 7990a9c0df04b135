//! Whole groups that lose power at once, and a replica whose disk has flipped a bit.

use std::sync::Arc;

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use registry::Registry;
use tokio::task::JoinSet;

use super::commands::{get, set};
use super::generator::Generator;
use super::group::{Group, Settings};
use super::sim_disk::SimDisk;
use crate::error::OpenError;
use crate::handle::Consensus;
use crate::limits;
use crate::options::{ReplicaId, Start};
use crate::raft::log_store;
use crate::wal::disk::Disk;
use crate::wal::folder::Folder;
use crate::wal::log::Rotation;
use crate::wal::{mark, segment};

/// All three lose power, at any point of their work, again and again.
async fn power_losses(rounds: u64, seed: u64) {
    let mut generator = Generator::new(seed);
    let settings = Settings { leader_silence: limits::LEADER_SILENCE, ..Settings::default() };
    let mut group = Group::of_with(3, settings).await;
    let mut answered = 0;
    for round in 0..rounds {
        let mut writing = JoinSet::new();
        for register in 0..4 {
            let door = group.on(1 + (register + round) % 3).clone();
            writing.spawn(write(door, register, round * 100_000));
        }
        // The moment is counted in what a disk did, so that a slow machine only takes longer.
        let disk = group.nodes[&(1 + generator.below(3))].disk.clone();
        let moment = disk.operations() + 1 + generator.below(120);
        while disk.operations() < moment {
            tokio::task::yield_now().await;
        }
        let mut disks = Vec::new();
        for id in group.ids() {
            disks.push((id, group.power_off(id, &mut generator).await));
        }
        let told = writing.join_all().await;
        group.start_all(disks).await;
        let leader = group.leader().await;
        let facts = group.on(leader).read(Registry::clone).await.unwrap();
        for (register, value) in told {
            answered += u64::from(value.is_some());
            assert!(
                get(&facts, register) >= value,
                "round {round}: {value:?} of register {register} is gone"
            );
        }
        group.settled().await;
    }
    assert!(answered >= rounds, "{answered} lines of writes were answered in {rounds} rounds");
    group.shutdown().await;
}

/// Writes growing numbers until there is no answer; returns the last that was answered.
async fn write(door: Consensus, register: u64, first: u64) -> (u64, Option<u64>) {
    let mut last = None;
    for value in first.. {
        if door.propose(set(register, value)).await.is_err() {
            break;
        }
        last = Some(value);
    }
    (register, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_when_all_three_lose_power_at_any_moment() {
    power_losses(8, 7).await;
}

/// `ROUNDS=200 cargo nextest run -p consensus --run-ignored only many_power_losses`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a campaign: minutes"]
async fn many_power_losses() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(200);
    power_losses(rounds, 11).await;
}

/// A small group of three; what its third replica holds after it was stopped.
async fn small_group() -> (Group, SimDisk, Registry) {
    let mut group = Group::of(3).await;
    for value in 0..3 {
        group.on(1).propose(set(value, value)).await.unwrap();
    }
    let facts = group.settled().await;
    group.mirrored(3).await;
    let disk = group.kill(3).await;
    (group, disk, facts)
}

fn flipped(disk: &SimDisk, name: &str, bit: usize) -> SimDisk {
    let copy = disk.after_kill();
    let mut bytes = copy.bytes(name);
    bytes[bit / 8] ^= 1 << (bit % 8);
    copy.edit(name, bytes);
    copy
}

#[test]
fn a_follower_with_any_bit_flipped_is_refused_or_opens_with_exactly_what_it_had() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (group, disk, _) = runtime.block_on(small_group());
    runtime.block_on(group.shutdown());
    let opened = |disk: &SimDisk| -> Result<_, OpenError> {
        let (folder, _released) = Folder::on(Arc::new(disk.clone()));
        let mut stores = log_store::read(folder, ReplicaId(3), Rotation::default())?;
        runtime.block_on(async {
            let state = stores.log.get_log_state().await.unwrap();
            let mut reader = stores.log.get_log_reader().await;
            let entries = reader.try_get_log_entries(0..).await.unwrap();
            let entries: Vec<_> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
            Ok((state.last_log_id, entries, reader.read_vote().await.unwrap()))
        })
    };
    let whole = opened(&disk.after_kill()).unwrap();
    assert!(whole.1.len() > 8, "{whole:?}");
    for name in disk.names().unwrap() {
        for bit in 0..disk.bytes(&name).len() * 8 {
            // The rest of a slot of the mark is filler that nothing reads: one bit in each of its bytes will do.
            if name == mark::NAME && (bit / 8) % 4096 >= 512 && bit % 8 != 0 {
                continue;
            }
            match opened(&flipped(&disk, &name, bit)) {
                Err(OpenError::Damaged(damage)) => assert_eq!(damage.file, name, "bit {bit}"),
                Ok(found) => assert_eq!((&found, name.as_str()), (&whole, mark::NAME), "bit {bit}"),
                Err(other) => panic!("bit {bit} of {name}: {other}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_is_replaced_by_a_new_one_and_no_committed_command_is_lost() {
    let (mut group, disk, facts) = small_group().await;
    let log = segment::name(1);
    let damaged = flipped(&disk, &log, disk.bytes(&log).len() * 4);
    let (folder, released) = Folder::on(Arc::new(damaged));
    let refused = Consensus::open_in(folder, released, group.options(3), Start::Join).await.err().unwrap();
    assert!(refused.to_string().contains("remove this replica and join it anew under a new id"), "{refused}");
    let leader = group.leader().await;
    group.join(4).await;
    group.on(leader).replace(ReplicaId(3), ReplicaId(4)).await.unwrap();
    let now = group.settled().await;
    for register in 0..3 {
        assert_eq!(get(&now, register), get(&facts, register));
    }
    assert_eq!(
        group.on(leader).members().iter().map(|member| member.replica.0).collect::<Vec<_>>(),
        [1, 2, 4]
    );
    group.shutdown().await;
}
