//! New lives of a cluster's facts: from a backup, or from what one coordinator has when the others will not come back.
//!
//! Owns these two ways, both with the coordinator stopped. Refuses to guess whether others still live: whoever asks must know, since
//! a group that goes on without them and the old one would both take commands. A new life has a higher epoch, so that they refuse
//! each other; as have two that begin from the same copy.

use std::path::Path;

use anyhow::Context as _;
use consensus::{Consensus, EpochError, OpenError, Options, ReplicaId};

use crate::REGISTRY_FOLDER;
use crate::clock::unix_ms;
use crate::members::{FOUNDER, is_coordinator_revoked, replica_of};
use crate::seal::{self, Keyring};

/// Makes `data_folder`, in which no coordinator has run yet, that of the only coordinator, with the facts of a backup. Others reach it
/// at `address`. The seal key is in `seal_key`, or in the folder already. Returns the epoch.
///
/// # Errors
/// The backup cannot be read or is damaged, its seal key is not there, or the folder holds facts already.
pub async fn restore(
    backup: &Path,
    data_folder: &Path,
    address: &str,
    seal_key: Option<&Path>,
) -> anyhow::Result<u64> {
    let facts = Consensus::facts_of(backup).await.context("restoring the backup")?;
    let key = seal::for_restored(&facts, data_folder, seal_key).context("restoring the backup")?;
    let registry = data_folder.join(REGISTRY_FOLDER);
    // Whose certificates no coordinator takes any more cannot go on: with a number that nobody had, it is a node of the new life.
    let founder_left = is_coordinator_revoked(&facts, FOUNDER);
    let replica = if founder_left { replica_of(facts.number_beyond(unix_ms())) } else { FOUNDER };
    let options = Options { replica, address: address.to_owned(), ..Options::default() };
    let epoch = Consensus::restore(backup, &registry, &options).await.context("restoring the backup")?;
    if let Some(key) = key {
        Keyring::open(data_folder)?.put(key)?;
    }
    Ok(epoch)
}

/// Whether a backup is of no use without the seal key.
///
/// # Errors
/// It cannot be read.
pub async fn needs_seal_key(backup: &Path) -> anyhow::Result<bool> {
    let facts = Consensus::facts_of(backup).await?;
    Ok(facts.cluster().is_some_and(|cluster| cluster.sealed_ca_key.is_some()))
}

/// Makes the coordinator of `data_folder`, which is stopped, the only one. What the others alone had is lost, and they are gone for
/// ever. Returns the epoch.
///
/// # Errors
/// It runs, or has no facts, or is not a member of its own group.
pub async fn force(data_folder: &Path, address: &str) -> anyhow::Result<u64> {
    let registry = data_folder.join(REGISTRY_FOLDER);
    let as_replica = |replica| Options { replica, address: address.to_owned(), ..Options::default() };
    match Consensus::force(&registry, &as_replica(FOUNDER)).await {
        // The folder knows whose it is.
        Err(EpochError::Folder(OpenError::OtherReplica { found, .. })) => {
            Consensus::force(&registry, &as_replica(ReplicaId(found))).await.context("going on alone")
        }
        forced => forced.context("going on alone"),
    }
}
