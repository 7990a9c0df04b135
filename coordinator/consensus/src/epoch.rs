//! Backups, and the beginning of a new life from a copy of the facts: a backup that is restored, or the follower of a leader
//! that will not come back.
//!
//! Both make a group of one whose registry is in a later epoch. It is written as a snapshot that covers everything known and
//! names one voter, so it replaces what was there in one step, and no entry of the former life is behind it. Replicas of two
//! epochs refuse to talk to each other (`raft/door.rs`): an old leader that returns cannot overwrite what was decided since,
//! though it still counts this replica as its follower.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use openraft::entry::EntryPayload;
use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::vote::leader_id_std::CommittedLeaderId;
use openraft::{Membership, RaftLogReader};
use registry::Registry;
use tokio::time::timeout;

use crate::error::{EpochError, OpenError};
use crate::handle::Consensus;
use crate::limits;
use crate::options::Options;
use crate::raft::log_store::{self, Stores, from_json};
use crate::raft::types::{LogId, Member, SnapshotMeta, StoredMembership, Vote};
use crate::speech::Speech;
use crate::wal::disk::RealDisk;
use crate::wal::folder::Folder;
use crate::wal::recovery::{self, Found};
use crate::wal::{log, snapshot_file};

impl Consensus {
    /// Writes everything applied here into one file, which only its owner can read: it holds the key of the cluster's
    /// authority. A file that is there is replaced as a whole or not at all.
    ///
    /// # Errors
    /// See [`EpochError`].
    pub async fn backup(&self, file: &Path) -> Result<(), EpochError> {
        self.snapshot().await?;
        let stopped = |error: &dyn std::fmt::Display| OpenError::Stopped(error.to_string());
        let snapshot = self.replica.raft.get_snapshot().await.map_err(|error| stopped(&error))?;
        let snapshot = snapshot.ok_or(EpochError::Nothing)?;
        let meta = serde_json::to_vec(&snapshot.meta).map_err(|error| stopped(&error))?;
        let version = self.local().cluster_version();
        let (disk, name) = beside(file)?;
        let writing = tokio::task::spawn_blocking(move || {
            snapshot_file::write_as(&disk, &name, version, &meta, &snapshot.snapshot)
        });
        let written = writing.await.map_err(|error| stopped(&error))?;
        Ok(written.map_err(doing(format!("writing {}", file.display())))?)
    }

    /// The facts in a backup, before anything is done with them.
    ///
    /// # Errors
    /// See [`EpochError`].
    pub async fn facts_of(file: &Path) -> Result<Registry, EpochError> {
        let (_, registry) = read(file).await?;
        Ok(registry)
    }

    /// Makes an empty folder the only replica of a new group, from a backup. All other replicas the backup knows are gone for
    /// ever. Returns the epoch; the folder is then opened as usual.
    ///
    /// # Errors
    /// See [`EpochError`]. A folder that a failed attempt has touched is not empty: take another.
    pub async fn restore(file: &Path, folder: &Path, options: &Options) -> Result<u64, EpochError> {
        let (meta, registry) = read(file).await?;
        Speech::up_to(options.speaks).follows(registry.cluster_version()).map_err(OpenError::from)?;
        let known = Known { last: meta.last_log_id, membership: meta.last_membership, registry, vote: None };
        let (folder, mut released) = Folder::lock(folder)?;
        let founded = found(&folder, known, options);
        drop(folder);
        timeout(limits::RELEASE_WAIT, released.wait_for(|released| *released)).await.ok();
        founded
    }

    /// Makes a stopped member, voter or learner, the only replica of a new group, with everything its log holds. For a cluster
    /// whose other coordinators will not come back: what they alone had is lost, and they are gone for ever. Returns the
    /// epoch; the folder is then opened as usual.
    ///
    /// # Errors
    /// See [`EpochError`].
    pub async fn force(folder: &Path, options: &Options) -> Result<u64, EpochError> {
        let (folder, mut released) = Folder::lock(folder)?;
        let forced = force_in(folder, options).await;
        timeout(limits::RELEASE_WAIT, released.wait_for(|released| *released)).await.ok();
        forced
    }
}

async fn read(file: &Path) -> Result<(SnapshotMeta, Registry), EpochError> {
    let (disk, name) = beside(file)?;
    let read = tokio::task::spawn_blocking(move || snapshot_file::read_as(&disk, &name));
    let backup = read.await.map_err(|error| OpenError::Stopped(error.to_string()))??;
    let missing = || doing(format!("reading {}", file.display()))(io::ErrorKind::NotFound.into());
    let backup = backup.ok_or_else(missing)?;
    let meta = from_json(&backup.meta, "the backup", None)?;
    Ok((meta, from_json(&backup.state, "the backup", None)?))
}

/// As [`Consensus::force`], in a folder that is locked already.
pub(crate) async fn force_in(folder: Folder, options: &Options) -> Result<u64, EpochError> {
    if let Found::Unfounded = recovery::read(folder.disk(), options.replica.0)? {
        return Err(EpochError::Nothing);
    }
    let mut stores =
        log_store::open(folder.clone(), options.replica, Arc::new(Speech::up_to(options.speaks))).await?;
    let known = replayed(&mut stores).await.map_err(doing("reading the log".to_owned()))?;
    if known.membership.get_node(&options.replica).is_none() {
        return Err(EpochError::NotAMember { replica: options.replica });
    }
    let next = next_life(known, options)?;
    // The vote first: the new life's first entry has its term, which no other leader may then have here.
    stores.log.save_vote(&next.vote).await.map_err(doing("writing the vote".to_owned()))?;
    let (meta, state) = next.encoded()?;
    let version = next.registry.cluster_version();
    let writing =
        tokio::task::spawn_blocking(move || snapshot_file::write(folder.disk(), version, &meta, &state));
    let written = writing.await.map_err(|error| OpenError::Stopped(error.to_string()))?;
    written.map_err(doing("writing the snapshot".to_owned()))?;
    Ok(next.registry.epoch())
}

/// The snapshot first: a crash leaves a folder that is refused, never one that looks new.
fn found(folder: &Folder, known: Known, options: &Options) -> Result<u64, EpochError> {
    let names = folder.disk().names().map_err(doing("listing the folder".to_owned()))?;
    if names.iter().any(|name| name != "lock") {
        return Err(EpochError::NotEmpty);
    }
    let next = next_life(known, options)?;
    let (meta, state) = next.encoded()?;
    let version = next.registry.cluster_version();
    snapshot_file::write(folder.disk(), version, &meta, &state)
        .map_err(doing("writing the snapshot".to_owned()))?;
    let vote = serde_json::to_vec(&next.vote).map_err(|error| OpenError::Stopped(error.to_string()))?;
    log::found(folder, options.replica.0, &vote).map_err(doing("founding the log".to_owned()))?;
    Ok(next.registry.epoch())
}

/// What one replica knows, committed or not.
struct Known {
    last: Option<LogId>,
    membership: StoredMembership,
    registry: Registry,
    vote: Option<Vote>,
}

/// The beginning of another life.
struct NextLife {
    meta: SnapshotMeta,
    registry: Registry,
    vote: Vote,
}

impl NextLife {
    fn encoded(&self) -> Result<(Vec<u8>, Vec<u8>), EpochError> {
        let encode = || Ok((serde_json::to_vec(&self.meta)?, serde_json::to_vec(&self.registry)?));
        encode().map_err(|error: serde_json::Error| OpenError::Stopped(error.to_string()).into())
    }
}

/// Snapshot and log together, as if all of the log had been committed.
async fn replayed(stores: &mut Stores) -> io::Result<Known> {
    let (mut last, mut membership) = stores.state_machine.applied_state().await?;
    let mut registry = Registry::clone(&stores.published.borrow());
    let mut reader = stores.log.get_log_reader().await;
    let behind = last.map_or(0, |id| id.index.saturating_add(1));
    for entry in reader.try_get_log_entries(behind..).await? {
        last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(proposal) => drop(registry.apply(&proposal.0)),
            EntryPayload::Membership(members) => {
                membership = StoredMembership::new(Some(entry.log_id), members);
            }
        }
    }
    Ok(Known { last, membership, registry, vote: reader.read_vote().await? })
}

fn next_life(known: Known, options: &Options) -> Result<NextLife, EpochError> {
    let Known { last: Some(last), membership, mut registry, vote } = known else {
        return Err(EpochError::Nothing);
    };
    let replica = options.replica;
    if registry.cluster().is_none() {
        return Err(EpochError::Nothing);
    }
    if registry.is_replica_removed(replica.0) {
        return Err(EpochError::Removed { replica });
    }
    let voted = vote.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.leader_id.term).saturating_add(1);
    let first = LogId { leader_id: CommittedLeaderId::new(term), index: last.index.saturating_add(1) };
    let others = membership.nodes().map(|(id, _)| id.0).filter(|id| *id != replica.0);
    registry.begin_epoch(unix_ms(), replica.0, others.collect::<Vec<_>>());
    let alone = vec![BTreeSet::from([replica])];
    let members = BTreeMap::from([(replica, Member { address: options.address.clone() })]);
    let membership =
        Membership::new(alone, members).map_err(|error| OpenError::Stopped(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(first),
        last_membership: StoredMembership::new(Some(first), membership),
    };
    Ok(NextLife { meta, registry, vote: Vote::new(term, replica) })
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The folder a file lies in, and its name there.
fn beside(file: &Path) -> Result<(RealDisk, String), EpochError> {
    let named = || doing(format!("using {} as a file", file.display()))(io::ErrorKind::InvalidInput.into());
    let name = file.file_name().and_then(|name| name.to_str()).ok_or_else(named)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((RealDisk::new(folder.unwrap_or(Path::new(".")).to_path_buf()), name.to_owned()))
}

fn doing(what: String) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { doing: what, source }
}
