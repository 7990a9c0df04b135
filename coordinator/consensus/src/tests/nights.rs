//! Bad nights on a virtual clock: openraft, our log and tonic as they are, on disks and cables that are simulated. One thread, and
//! a clock that jumps to the next moment at which anybody has something to do, so a minute of trouble takes a second or less.
//!
//! A seed gives the same troubles to the same replicas. That it gives the same night to the last message takes tokio's own
//! dice as well, which `--cfg tokio_unstable` alone can load.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::clock::{self, Clock};
use super::commands::set;
use super::generator::Generator;
use super::group::{Group, Settings, address};
use super::history::{Remains, Writers};
use super::sim_disk::{Fault, SimDisk};
use crate::limits;
use crate::options::{ReplicaId, Start};

/// By the virtual clock, after the last trouble (I16).
const SERVICE_WITHIN: Duration = Duration::from_secs(10);

/// How long a trouble may keep everybody from being answered before it is ended.
const TROUBLE_MAX: Duration = Duration::from_secs(5);

/// Long enough for all waits of a change of voters.
const CHANGE_MAX: Duration = Duration::from_secs(60);

const TROUBLES: u64 = 14;

/// A register that no writer has.
const PROBE: u64 = 60;

struct Night {
    seed: u64,
    generator: Generator,
    clock: Clock,
    group: Group,
    writers: Writers,
    remains: BTreeMap<u64, Remains>,
    next_id: u64,
    snapshots: bool,
}

/// Lives through the night of a seed; returns its trace.
fn night(seed: u64, troubles: u64) -> String {
    clock::live_through(seed, async {
        let mut night = Night::begin(seed).await;
        for _ in 0..troubles {
            night.trouble().await;
            night.go_on().await;
            if night.generator.chance(60) {
                night.heal();
            }
        }
        night.end().await
    })
}

impl Night {
    /// Every second night has five voters, and half of the nights snapshots all the time. In the others the logs of all replicas
    /// are compared from their first entry on.
    async fn begin(seed: u64) -> Night {
        let voters = if seed.is_multiple_of(2) { 3 } else { 5 };
        let snapshots = (seed / 2) % 2 == 1;
        let settings = Settings {
            snapshot_every: if snapshots { 40 } else { u64::MAX },
            leader_silence: limits::LEADER_SILENCE,
            night: Some(seed),
        };
        let group = Group::of_with(voters, settings).await;
        let clock = group.clock.clone().unwrap();
        let mut writers = Writers::start_by(4, Some(clock.clone()));
        group.ids().iter().for_each(|id| writers.open(*id, group.on(*id)));
        writers.more(10).await;
        let (generator, remains) = (Generator::new(seed), BTreeMap::new());
        Night { seed, generator, clock, group, writers, remains, next_id: voters + 1, snapshots }
    }

    fn anybody(&mut self) -> u64 {
        let ids = self.group.ids();
        ids[self.generator.below(ids.len() as u64) as usize]
    }

    fn anybody_but(&mut self, victim: u64) -> u64 {
        let others: Vec<u64> = self.group.ids().into_iter().filter(|id| *id != victim).collect();
        others[self.generator.below(others.len() as u64) as usize]
    }

    fn ms(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.generator.below(bound))
    }

    async fn trouble(&mut self) {
        let (kind, victim) = (self.generator.below(TROUBLES), self.anybody());
        let other = self.anybody_but(victim);
        self.clock.note(format_args!("trouble {kind} for {victim}, {other}"));
        let ids = self.group.ids();
        match kind {
            0 => self.group.net.isolate(victim, ids),
            1 | 2 => self.group.net.cut(victim, other),
            3 => {
                let by = self.ms(150);
                self.group.net.delay(victim, other, by);
            }
            4 => self.group.net.tear_out(victim),
            5 => self.group.net.tear(victim, other),
            6 => {
                let slowest = self.ms(800);
                self.group.nodes[&victim].medium.as_ref().unwrap().slow_down(slowest);
            }
            7 | 8 => self.power_fails(&[victim]).await,
            9 => self.power_fails(&ids).await,
            10 => self.disk_fails(victim).await,
            11 => self.away(victim).await,
            12 => self.newcomer(victim).await,
            _ => self.lead_moves(victim).await,
        }
    }

    /// The network and the disks are well again.
    fn heal(&mut self) {
        self.group.net.heal();
        for node in self.group.nodes.values() {
            node.medium.as_ref().unwrap().recover();
            node.disk.mend();
        }
    }

    /// Lets the writers get on for as long as a majority can be reached.
    async fn go_on(&mut self) {
        let some = 1 + self.generator.below(20);
        if timeout(TROUBLE_MAX, self.writers.more(some)).await.is_err() {
            self.heal();
        }
        for (id, node) in &self.group.nodes {
            assert_eq!(node.consensus.health().fatal, None, "replica {id} stopped without a reason");
        }
    }

    /// In the middle of a write, and what was not flushed is gone.
    async fn power_fails(&mut self, victims: &[u64]) {
        for id in victims {
            self.group.nodes[id].disk.die_soon(&mut self.generator);
        }
        let moment = self.ms(60);
        sleep(moment).await;
        let mut disks = Vec::new();
        for id in victims {
            self.writers.close(*id);
            disks.push((*id, self.group.power_off(*id, &mut self.generator).await));
        }
        if self.group.nodes.len() > 1 {
            self.go_on().await;
        }
        self.come_back(disks).await;
    }

    /// Only the process dies, and stays away until the others have gone on for a while.
    async fn away(&mut self, victim: u64) {
        self.writers.close(victim);
        let disk = self.group.kill(victim).await;
        for _ in 0..self.generator.below(6) {
            self.go_on().await;
        }
        self.come_back(vec![(victim, disk)]).await;
    }

    async fn come_back(&mut self, disks: Vec<(u64, SimDisk)>) {
        let ids: Vec<u64> = disks.iter().map(|(id, _)| *id).collect();
        self.group.start_all(disks).await;
        ids.iter().for_each(|id| self.writers.open(*id, self.group.on(*id)));
    }

    /// A flush fails, or a write finds no room: the replica stops and serves nothing until it is started again.
    async fn disk_fails(&mut self, victim: u64) {
        let disk = self.group.nodes[&victim].disk.clone();
        let at = disk.operations() + 1 + self.generator.below(6);
        disk.fail(if self.generator.chance(50) { Fault::FlushFails(at) } else { Fault::Full(at) });
        let stopped = self.group.on(victim).clone();
        if timeout(TROUBLE_MAX, stopped.stopped()).await.is_err() {
            // Cut off, it has nothing to write.
            return disk.mend();
        }
        assert!(stopped.propose(set(PROBE, 0)).await.is_err_and(|error| error.fatal()));
        drop(stopped);
        self.writers.close(victim);
        let disk = if self.generator.chance(50) {
            self.group.power_off(victim, &mut self.generator).await
        } else {
            self.group.kill(victim).await
        };
        self.go_on().await;
        self.come_back(vec![(victim, disk)]).await;
    }

    /// A learner joins, and takes the place of a voter, which may be the leader.
    async fn newcomer(&mut self, old: u64) {
        let new = self.next_id;
        self.next_id += 1;
        self.group.start(new, SimDisk::default(), Start::Join).await;
        self.writers.open(new, self.group.on(new));
        let changing = async {
            let leader = self.group.leader().await;
            let leader = self.group.on(leader);
            leader.add(ReplicaId(new), &address(new), |_| {}).await.ok();
            leader.replace(ReplicaId(old), ReplicaId(new)).await.ok();
        };
        timeout(TROUBLE_MAX, changing).await.ok();
        self.go_on().await;
        self.heal();
        self.regroup().await;
    }

    /// Waits until no change of voters is under way, and ends those that belong no more.
    async fn regroup(&mut self) {
        let regrouped = async {
            loop {
                let leader = self.group.on(self.group.leader().await);
                // Whatever was proposed before this is decided with it.
                let probed = leader.propose(set(PROBE, self.next_id)).await.is_ok();
                if probed && leader.health().leader && leader.local().voter_change().is_none() {
                    return leader.members();
                }
                sleep(limits::LEADER_PAUSE).await;
            }
        };
        let members = timeout(CHANGE_MAX, regrouped).await.expect("a change of voters is never completed");
        let gone =
            self.group.ids().into_iter().filter(|id| members.iter().all(|member| member.replica.0 != *id));
        for id in gone.collect::<Vec<_>>() {
            self.writers.close(id);
            let disk = self.group.kill(id).await;
            self.remains.insert(id, Remains { disk, committed: None });
        }
    }

    /// A snapshot in half of the nights, and another leader, if it can be had.
    async fn lead_moves(&mut self, to: u64) {
        if self.snapshots {
            timeout(TROUBLE_MAX, self.group.on(to).snapshot()).await.ok();
        }
        let moving = async {
            let leader = self.group.leader().await;
            self.group.on(leader).transfer(ReplicaId(to)).await.ok();
        };
        timeout(TROUBLE_MAX, moving).await.ok();
    }

    /// Heals everything, and checks everything.
    async fn end(mut self) -> String {
        self.heal();
        let service = async {
            for id in self.group.ids() {
                while self.group.on(id).propose(set(PROBE, id)).await.is_err() {
                    sleep(limits::LEADER_PAUSE).await;
                }
            }
        };
        let served = timeout(SERVICE_WITHIN, service).await;
        assert!(served.is_ok(), "seed {}: not everybody serves again", self.seed);
        self.regroup().await;
        let history = self.writers.finish().await;
        let facts = self.group.settled().await;
        for id in self.group.ids().into_iter().rev() {
            let committed = self.group.on(id).health().applied_index;
            self.remains.insert(id, Remains { disk: self.group.kill(id).await, committed });
        }
        if self.snapshots {
            history.check_rest(&self.remains, &facts).await;
        } else {
            history.check(&self.remains).await;
        }
        self.clock.trace()
    }
}

/// As many as take ten seconds of a processor each way.
fn nights(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        night(seed, 12);
    }
}

#[test]
fn a_group_of_three_loses_and_repeats_nothing_in_virtual_nights_and_serves_soon_after() {
    nights([0, 2, 4, 6].into_iter());
}

#[test]
fn a_group_of_five_loses_and_repeats_nothing_in_virtual_nights_and_serves_soon_after() {
    nights([1, 3].into_iter());
}

/// `RUSTFLAGS="--cfg tokio_unstable" SEEDS=1000 cargo nextest run -p consensus --run-ignored only many_virtual_nights`; `FIRST` is
/// the first seed. `--config profile.dev.package.consensus.opt-level=1` makes it faster, as most of openraft is compiled here. Each
/// seed says so when it is done, with its trace. Without the flag nights are as bad, and repeat less well.
#[test]
#[ignore = "a campaign: minutes to hours"]
fn many_virtual_nights() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let first = number("FIRST").unwrap_or(0);
    let begin = Instant::now();
    for seed in first..first + number("SEEDS").unwrap_or(20) {
        let trace = night(seed, 20);
        let took = begin.elapsed().as_millis();
        writeln!(std::io::stderr(), "seed {seed} held, trace {trace}, {took} ms").unwrap();
    }
}

#[cfg(tokio_unstable)]
#[test]
fn a_seed_gives_the_same_night_twice() {
    for seed in 0..4 {
        assert_eq!(night(seed, 12), night(seed, 12), "seed {seed}");
    }
}
