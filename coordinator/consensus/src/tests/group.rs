//! Groups of replicas in one process, on simulated disks and cut-able cables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::clock::{Clock, Medium};
use super::commands::founding;
use super::generator::Generator;
use super::net::Net;
use super::sim_disk::{Fault, SimDisk};
use crate::changing::Even;
use crate::handle::Consensus;
use crate::limits;
use crate::options::{Options, ReplicaId, Start};
use crate::wal::folder::Folder;
use crate::wal::hands::Hands;

/// What keeps a test that waits for something that never comes from hanging. Never a measurement.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Group {
    pub(super) net: Net,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) clock: Option<Clock>,
    settings: Settings,
}

/// What the replicas of a group have in common.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) snapshot_every: u64,
    pub(super) leader_silence: Duration,
    /// Everything by a virtual clock with this seed, rather than by threads and sockets.
    pub(super) night: Option<u64>,
}

impl Default for Settings {
    /// Patient: on a machine that does much else, a leader that is asked for is still the one that was.
    fn default() -> Settings {
        Settings { snapshot_every: 4096, leader_silence: 2 * limits::LEADER_SILENCE, night: None }
    }
}

pub(super) struct Node {
    pub(super) consensus: Consensus,
    pub(super) disk: SimDisk,
    /// In a simulated night.
    pub(super) medium: Option<Medium>,
    server: JoinHandle<()>,
}

impl Group {
    /// Replica 1 alone, with a founded registry.
    pub(super) async fn found() -> Group {
        Group::found_with(Settings::default()).await
    }

    pub(super) async fn found_with(settings: Settings) -> Group {
        let clock = settings.night.map(Clock::new);
        let net = clock.clone().map_or_else(Net::default, Net::on_clock);
        let mut group = Group { net, nodes: BTreeMap::new(), clock, settings };
        group.start(1, SimDisk::default(), Start::Found).await;
        for command in founding() {
            group.on(1).propose(command).await.unwrap();
        }
        group
    }

    /// Voters 1 to `voters`.
    pub(super) async fn of(voters: u64) -> Group {
        Group::of_with(voters, Settings::default()).await
    }

    pub(super) async fn of_with(voters: u64, settings: Settings) -> Group {
        let mut group = Group::found_with(settings).await;
        for id in 2..=voters {
            group.join(id).await;
        }
        let others: Vec<_> = (2..=voters).map(ReplicaId).collect();
        if !others.is_empty() {
            group.on(1).promote(&others, Even::Refuse).await.unwrap();
        }
        group.settled().await;
        group
    }

    /// Starts a new replica and has the leader add it.
    pub(super) async fn join(&mut self, id: u64) {
        self.start(id, SimDisk::default(), Start::Join).await;
        let leader = self.leader().await;
        self.on(leader).add(ReplicaId(id), &address(id), |_| {}).await.unwrap();
    }

    pub(super) fn options(&self, id: u64) -> Options {
        Options {
            replica: ReplicaId(id),
            snapshot_every: self.settings.snapshot_every,
            leader_silence: self.settings.leader_silence,
            address: address(id),
            dial: self.net.dialler(id),
            ..Options::default()
        }
    }

    pub(super) async fn start(&mut self, id: u64, disk: SimDisk, start: Start) {
        let node = self.boot(id, disk, start).await;
        self.nodes.insert(id, node);
    }

    /// All at once, as after a power loss: one alone would wait for the others.
    pub(super) async fn start_all(&mut self, disks: Vec<(u64, SimDisk)>) {
        let group = &*self;
        let booting =
            disks.into_iter().map(|(id, disk)| async move { (id, group.boot(id, disk, Start::Join).await) });
        let booted = futures_util::future::join_all(booting).await;
        self.nodes.extend(booted);
    }

    async fn boot(&self, id: u64, disk: SimDisk, start: Start) -> Node {
        let medium = self.clock.clone().map(|clock| Medium::new(clock, id));
        let hands = medium.clone().map_or(Hands::Threads, Hands::Clock);
        let (folder, released) = Folder::worked_by(Arc::new(disk.clone()), hands);
        let opening = Consensus::open_in(folder, released, self.options(id), start);
        let consensus = timeout(PATIENCE, opening).await.unwrap().unwrap();
        let server = self.net.serve(&consensus, &address(id)).await;
        Node { consensus, disk, medium, server }
    }

    /// Ends a replica at once; returns the disk as it stood at that moment.
    pub(super) async fn kill(&mut self, id: u64) -> SimDisk {
        self.end(id).await.after_kill()
    }

    /// Takes a replica's power away; returns the disk as it comes back.
    pub(super) async fn power_off(&mut self, id: u64, generator: &mut Generator) -> SimDisk {
        self.end(id).await.after_power_loss(generator)
    }

    /// From its first line on the replica can make nothing durable, and so promise nothing.
    async fn end(&mut self, id: u64) -> SimDisk {
        let node = self.nodes.remove(&id).unwrap();
        node.disk.fail(Fault::DeadFrom(0));
        self.net.tear_out(id);
        node.server.abort();
        node.consensus.shutdown().await.unwrap();
        node.disk
    }

    pub(super) fn on(&self, id: u64) -> &Consensus {
        &self.nodes[&id].consensus
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// A replica that leads and has confirmed it with a majority.
    pub(super) async fn leader(&self) -> u64 {
        self.leader_among(&self.ids()).await
    }

    pub(super) async fn leader_among(&self, ids: &[u64]) -> u64 {
        let search = async {
            loop {
                let leads = ids.iter().map(|id| {
                    let mut leadership = self.on(*id).leadership();
                    Box::pin(async move {
                        leadership.wait_for(|leadership| leadership.is_self).await.unwrap();
                        *id
                    })
                });
                let (leader, _, _) = futures_util::future::select_all(leads).await;
                if self.on(leader).barrier().await.is_ok() {
                    return leader;
                }
                // It cannot be confirmed at once, and by a virtual clock at once is for ever.
                tokio::time::sleep(limits::LEADER_PAUSE).await;
            }
        };
        timeout(PATIENCE, search).await.expect("nobody leads")
    }

    /// Returns when all replicas have applied what the leader has, and hold the same facts (I13).
    pub(super) async fn settled(&self) -> Registry {
        let leader = self.leader().await;
        let index = self.on(leader).health().applied_index.unwrap();
        let facts = self.on(leader).local();
        for node in self.nodes.values() {
            timeout(PATIENCE, node.consensus.replica.applied(index)).await.unwrap().unwrap();
            // What openraft says of itself comes a moment later than what it has done.
            let raft = &node.consensus.replica.raft;
            raft.wait(Some(PATIENCE)).applied_index_at_least(Some(index), "said so").await.unwrap();
        }
        for (id, node) in &self.nodes {
            if node.consensus.health().applied_index == Some(index) {
                assert_eq!(*node.consensus.local(), *facts, "replica {id} holds other facts");
            }
        }
        Registry::clone(&facts)
    }

    /// Returns when the leader knows that member `id` has flushed all of the log: applying alone does not promise it.
    pub(super) async fn mirrored(&self, id: u64) {
        let leader = self.on(self.leader().await);
        let mut metrics = leader.replica.raft.metrics();
        let mirrored = async {
            while leader.members().iter().all(|member| (member.replica.0, member.lag) != (id, Some(0))) {
                metrics.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, mirrored).await.expect("the member is behind");
    }

    pub(super) async fn shutdown(mut self) {
        // Last to first: a leader that stops first strands those that lag.
        while let Some((_, node)) = self.nodes.pop_last() {
            node.server.abort();
            node.consensus.shutdown().await.unwrap();
        }
    }
}

pub(super) fn address(id: u64) -> String {
    format!("replica-{id}")
}
