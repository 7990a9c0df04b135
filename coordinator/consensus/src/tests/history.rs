//! Writers that never rest, and what must hold of all they were told: I1 (one leader per term; what was answered is never lost
//! or changed, and nothing takes effect twice) and I13 (all replicas hold the same facts).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::RaftLogReader;
use openraft::entry::EntryPayload;
use openraft::storage::RaftLogStorage;
use registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::clock::Clock;
use super::commands::{get, set};
use super::sim_disk::SimDisk;
use crate::error::Retry;
use crate::handle::Consensus;
use crate::options::ReplicaId;
use crate::raft::log_store;
use crate::raft::types::Entry;
use crate::wal::folder::Folder;
use crate::wal::log::Rotation;

/// The replicas that can be asked at the moment.
type Doors = Arc<Mutex<BTreeMap<u64, Consensus>>>;

/// Writers at work; each has a register of its own and writes growing numbers into it.
pub(super) struct Writers {
    doors: Doors,
    stop: Arc<AtomicBool>,
    answered: watch::Receiver<u64>,
    writers: JoinSet<Told>,
    leaders: Leaders,
    watching: JoinSet<()>,
    clock: Option<Clock>,
}

/// Who led in which term, as every replica saw it.
type Leaders = Arc<Mutex<BTreeMap<u64, BTreeSet<u64>>>>;

/// What one writer was told.
struct Told {
    register: u64,
    answered: Vec<u64>,
    unknown: Vec<u64>,
}

impl Writers {
    pub(super) fn start(count: u64) -> Writers {
        Writers::start_by(count, None)
    }

    /// By a clock that only goes on while they rest, they do.
    pub(super) fn start_by(count: u64, clock: Option<Clock>) -> Writers {
        let (sender, answered) = watch::channel(0);
        let (doors, stop) = (Doors::default(), Arc::new(AtomicBool::new(false)));
        let mut writers = JoinSet::new();
        for register in 0..count {
            let rest = clock.clone();
            writers.spawn(write(register, Arc::clone(&doors), Arc::clone(&stop), sender.clone(), rest));
        }
        let (leaders, watching) = (Leaders::default(), JoinSet::new());
        Writers { doors, stop, answered, writers, leaders, watching, clock }
    }

    /// This replica can be asked from now on.
    pub(super) fn open(&mut self, id: u64, consensus: &Consensus) {
        self.doors.lock().unwrap().insert(id, consensus.clone());
        let (leaders, mut leadership) = (Arc::clone(&self.leaders), consensus.leadership());
        let clock = self.clock.clone();
        self.watching.spawn(async move {
            loop {
                let now = leadership.borrow_and_update().clone();
                if let Some(clock) = &clock {
                    clock.note(format_args!("{id} says {:?} leads term {}", now.leader, now.term));
                }
                if let Some(leader) = now.leader {
                    leaders.lock().unwrap().entry(now.term).or_default().insert(leader.0);
                }
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// It is about to go.
    pub(super) fn close(&mut self, id: u64) {
        self.doors.lock().unwrap().remove(&id);
    }

    /// Waits until this many more commands were answered.
    pub(super) async fn more(&mut self, count: u64) {
        let wanted = *self.answered.borrow() + count;
        let more = self.answered.wait_for(|answered| *answered >= wanted);
        tokio::time::timeout(super::group::PATIENCE, more).await.expect("no command is answered").unwrap();
    }

    /// Ends the writers; what they were told is to be checked when the replicas are stopped.
    pub(super) async fn finish(mut self) -> History {
        self.stop.store(true, Ordering::Relaxed);
        let told = self.writers.join_all().await;
        self.doors.lock().unwrap().clear();
        self.watching.abort_all();
        History { told, leaders: self.leaders }
    }
}

/// What all writers were told, and who led.
pub(super) struct History {
    told: Vec<Told>,
    leaders: Leaders,
}

/// What a replica left behind.
pub(super) struct Remains {
    pub(super) disk: SimDisk,
    /// Up to where its log is known to be committed; `None`: as far as the disk itself says, which may be behind.
    pub(super) committed: Option<u64>,
}

impl History {
    fn check_leaders(&self) {
        for (term, leaders) in self.leaders.lock().unwrap().iter() {
            assert_eq!(leaders.len(), 1, "term {term} had the leaders {leaders:?}");
        }
    }

    /// As [`History::check`] where logs were purged: what is left of them is of one history, and each register holds what was
    /// answered last, or something whose outcome nobody was told.
    pub(super) async fn check_rest(self, remains: &BTreeMap<u64, Remains>, facts: &Registry) {
        self.check_leaders();
        let mut history = BTreeMap::new();
        for (id, remains) in remains {
            for (index, entry) in committed(*id, remains).await {
                let entry = serde_json::to_string(&entry).unwrap();
                let known = history.entry(index).or_insert_with(|| entry.clone());
                assert_eq!(*known, entry, "replica {id} has another history");
            }
        }
        for Told { register, answered, unknown } in self.told {
            let found = get(facts, register);
            let fits =
                found == answered.last().copied() || found.is_some_and(|found| unknown.contains(&found));
            assert!(fits, "register {register} holds {found:?}, the last answer was {:?}", answered.last());
        }
    }

    /// Checks what writers were told against what the disks of all replicas hold. Logs must not have been purged.
    pub(super) async fn check(self, remains: &BTreeMap<u64, Remains>) {
        self.check_leaders();
        let mut logs = Vec::new();
        for (id, remains) in remains {
            logs.push((*id, written(*id, remains).await));
        }
        let (_, longest) = logs.iter().max_by_key(|(_, log)| log.len()).unwrap();
        for (id, log) in &logs {
            assert_eq!(*log, longest[..log.len()], "replica {id} has another history");
        }
        for Told { register, answered, unknown } in self.told {
            let of_register = longest.iter().filter(|(of, _)| *of == register).map(|(_, value)| *value);
            let found: Vec<u64> = of_register.collect();
            let distinct: BTreeSet<u64> = found.iter().copied().collect();
            assert_eq!(found.len(), distinct.len(), "a command of register {register} took effect twice");
            for value in &answered {
                assert!(distinct.contains(value), "{value} of register {register} was answered and is gone");
            }
            let known: BTreeSet<u64> = answered.iter().chain(&unknown).copied().collect();
            assert!(distinct.is_subset(&known), "a command took effect that was refused");
        }
    }
}

/// Proposes one number after another, each at another door.
async fn write(
    register: u64,
    doors: Doors,
    stop: Arc<AtomicBool>,
    count: watch::Sender<u64>,
    clock: Option<Clock>,
) -> Told {
    let mut told = Told { register, answered: Vec::new(), unknown: Vec::new() };
    let mut value = 0;
    let mut turn = register as usize;
    while !stop.load(Ordering::Relaxed) {
        if let Some(clock) = &clock {
            clock.note(format_args!("{register} is at {value}"));
            tokio::time::sleep(Duration::from_millis(1 + clock.below(120))).await;
        }
        let door = {
            let doors = doors.lock().unwrap();
            turn += 1;
            doors.values().nth(turn % doors.len().max(1)).cloned()
        };
        let Some(door) = door else {
            tokio::task::yield_now().await;
            continue;
        };
        match door.propose(set(register, value)).await {
            Ok(_) => {
                told.answered.push(value);
                count.send_modify(|count| *count += 1);
                value += 1;
            }
            Err(error) if error.retry() == Retry::Safe => {}
            Err(_) => {
                told.unknown.push(value);
                value += 1;
            }
        }
    }
    told
}

/// The numbers in a replica's committed log, with their registers, in order.
async fn written(id: u64, remains: &Remains) -> Vec<(u64, u64)> {
    let entries = committed(id, remains).await;
    // One that was never added to a group holds nothing.
    let first = entries.first().map_or(0, |(index, _)| *index);
    assert_eq!(first, 0, "the log of replica {id} was purged");
    let commands = entries.into_iter().filter_map(|(_, entry)| match entry.payload {
        EntryPayload::Normal(proposal) => number(&proposal.0),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    });
    commands.collect()
}

/// What is left of a replica's committed log.
async fn committed(id: u64, remains: &Remains) -> Vec<(u64, Entry)> {
    let (folder, _released) = Folder::on(Arc::new(remains.disk.after_kill()));
    let mut stores = log_store::read(folder, ReplicaId(id), Rotation::default()).unwrap();
    let hint = stores.log.read_committed().await.unwrap().map(|committed| committed.index);
    let Some(committed) = remains.committed.or(hint) else { return Vec::new() };
    let mut reader = stores.log.get_log_reader().await;
    let entries = reader.try_get_log_entries(0..=committed).await.unwrap();
    entries.into_iter().map(|entry| (entry.log_id.index, entry)).collect()
}

/// The register and value of a command that [`set`] made.
fn number(command: &registry::Command) -> Option<(u64, u64)> {
    let registry::Command::WantModel { model, source: registry::ModelSource::Path(path), .. } = command
    else {
        return None;
    };
    let register = model.as_str().strip_prefix("register-")?.parse().ok()?;
    Some((register, path.strip_prefix('/')?.parse().ok()?))
}
