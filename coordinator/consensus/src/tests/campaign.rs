//! Long stories: growth from one to five and back, and a bad night, under writers that never rest, on real sockets and threads.
//! Most bad nights are in `nights.rs`, on a virtual clock.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::commands::set;
use super::generator::Generator;
use super::group::{Group, Settings};
use super::history::{Remains, Writers};
use crate::changing::Even;
use crate::limits;
use crate::options::{ReplicaId, Start};

/// As impatient as a coordinator, but without snapshots: the logs of all replicas are compared from their first entry on, and how
/// many commands a night holds depends on the machine.
const BRISK: Settings =
    Settings { snapshot_every: u64::MAX, leader_silence: limits::LEADER_SILENCE, night: None };

/// Adds learners and gives them votes.
async fn grow(group: &mut Group, writers: &mut Writers, ids: [u64; 2]) {
    for id in ids {
        group.join(id).await;
        writers.open(id, group.on(id));
        writers.more(20).await;
    }
    let leader = group.leader().await;
    group.on(leader).promote(&ids.map(ReplicaId), Even::Refuse).await.unwrap();
    writers.more(20).await;
}

/// Takes two votes away, that of the leader first.
async fn shrink(group: &mut Group, writers: &mut Writers, remains: &mut BTreeMap<u64, Remains>) {
    let leader = group.leader().await;
    let other = group.ids().into_iter().find(|id| *id != leader).unwrap();
    group.on(leader).remove(&[ReplicaId(leader), ReplicaId(other)], Even::Refuse).await.unwrap();
    for id in [leader, other] {
        writers.close(id);
        let disk = group.kill(id).await;
        remains.insert(id, Remains { disk, committed: None });
    }
    writers.more(20).await;
}

/// Ends everything, and checks everything.
async fn end(mut group: Group, writers: Writers, mut remains: BTreeMap<u64, Remains>) {
    let history = writers.finish().await;
    group.settled().await;
    for id in group.ids().into_iter().rev() {
        let committed = group.on(id).health().applied_index;
        remains.insert(id, Remains { disk: group.kill(id).await, committed });
    }
    history.check(&remains).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_grows_from_one_to_five_and_shrinks_to_one_and_loses_and_repeats_nothing() {
    let mut group = Group::found().await;
    let mut writers = Writers::start(4);
    let mut remains = BTreeMap::new();
    writers.open(1, group.on(1));
    writers.more(50).await;
    grow(&mut group, &mut writers, [2, 3]).await;
    grow(&mut group, &mut writers, [4, 5]).await;
    let leader = group.leader().await;
    let next = group.ids().into_iter().find(|id| *id != leader).unwrap();
    group.on(leader).transfer(ReplicaId(next)).await.unwrap();
    writers.more(50).await;
    shrink(&mut group, &mut writers, &mut remains).await;
    shrink(&mut group, &mut writers, &mut remains).await;
    let last = group.leader().await;
    assert_eq!((group.ids(), group.on(last).members().len()), (vec![last], 1));
    end(group, writers, remains).await;
}

/// One trouble after another; ends healed.
async fn bad_night(voters: u64, seed: u64, troubles: u64) {
    let mut generator = Generator::new(seed);
    let mut group = Group::of_with(voters, BRISK).await;
    let mut writers = Writers::start(4);
    group.ids().iter().for_each(|id| writers.open(*id, group.on(*id)));
    writers.more(20).await;
    for _ in 0..troubles {
        let ids = group.ids();
        let at = generator.below(voters);
        let victim = ids[at as usize];
        let other = ids[((at + 1 + generator.below(voters - 1)) % voters) as usize];
        match generator.below(6) {
            0 => group.net.isolate(victim, ids),
            1 => group.net.cut(victim, other),
            2 => group.net.delay(victim, other, Duration::from_millis(generator.below(80))),
            3 => group.net.tear_out(victim),
            // A power loss: what was not flushed is gone.
            _ => {
                writers.close(victim);
                let lost = group.power_off(victim, &mut generator).await;
                writers_go_on(&mut writers, &group, &mut generator).await;
                group.start(victim, lost, Start::Join).await;
                writers.open(victim, group.on(victim));
            }
        }
        writers_go_on(&mut writers, &group, &mut generator).await;
        if generator.chance(60) {
            group.net.heal();
        }
    }
    group.net.heal();
    writers.more(20).await;
    end(group, writers, BTreeMap::new()).await;
}

/// Lets the writers get on for as long as a majority can be reached; a seed may have cut it away.
async fn writers_go_on(writers: &mut Writers, group: &Group, generator: &mut Generator) {
    let some = 1 + generator.below(30);
    let on = writers.more(some);
    if tokio::time::timeout(Duration::from_secs(5), on).await.is_err() {
        group.net.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_three_loses_and_repeats_nothing_in_a_bad_night() {
    bad_night(3, 1, 8).await;
}

/// `SEEDS=100 cargo nextest run -p consensus --run-ignored only many_bad_nights`; each seed says so when it is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a campaign: minutes to hours"]
async fn many_bad_nights() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        bad_night(if seed % 2 == 0 { 3 } else { 5 }, seed, 12).await;
        writeln!(std::io::stderr(), "seed {seed} held").unwrap();
    }
}

/// How long the cluster has no leader: from the moment the old one dies, is removed or hands over, until a command is answered
/// by another. A measurement, so it asserts only what is promised.
///
/// `cargo nextest run -p consensus --run-ignored only --no-capture leader_changes_are_measured`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn leader_changes_are_measured() {
    let mut killed = Vec::new();
    let mut group = Group::of_with(3, BRISK).await;
    for value in 0..20 {
        let old = group.leader().await;
        let others: Vec<u64> = group.ids().into_iter().filter(|id| *id != old).collect();
        let begin = Instant::now();
        let disk = group.kill(old).await;
        answered_by_another(&group, others[0], value).await;
        killed.push(begin.elapsed());
        group.start(old, disk, Start::Join).await;
        group.settled().await;
    }
    let mut handed_over = Vec::new();
    for value in 0..20 {
        let old = group.leader().await;
        let next = group.ids().into_iter().find(|id| *id != old).unwrap();
        let begin = Instant::now();
        group.on(old).transfer(ReplicaId(next)).await.unwrap();
        answered_by_another(&group, next, value).await;
        handed_over.push(begin.elapsed());
        group.settled().await;
    }
    let mut removed = Vec::new();
    for value in 0..20 {
        let old = group.leader().await;
        let new = 10 + value;
        group.join(new).await;
        let other = group.ids().into_iter().find(|id| *id != old && *id != new).unwrap();
        let begin = Instant::now();
        group.on(old).replace(ReplicaId(old), ReplicaId(new)).await.unwrap();
        let mut leadership = group.on(other).leadership();
        leadership.wait_for(|now| now.leader.is_some_and(|leader| leader.0 != old)).await.unwrap();
        answered_by_another(&group, other, value).await;
        removed.push(begin.elapsed());
        group.kill(old).await;
        group.settled().await;
    }
    for (what, mut times) in [("killed", killed), ("handed over", handed_over), ("removed", removed)] {
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let count = times.len();
        writeln!(std::io::stderr(), "leader {what}: median {median:?}, worst {worst:?} of {count}").unwrap();
    }
    group.shutdown().await;
}

async fn answered_by_another(group: &Group, id: u64, value: u64) {
    while group.on(id).propose(set(9, value)).await.is_err() {}
}
