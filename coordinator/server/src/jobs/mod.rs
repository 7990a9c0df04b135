//! Durable jobs: requests that are answered once, whatever dies.
//!
//! Owns what outlives a client's connection: the runs of this process (`runs.rs`) with the answers they are giving
//! (`record.rs`), the answers that are kept (`store.rs`, `exchange.rs`), and forgetting them (`upkeep.rs`). Which run has a job
//! is the registry's word, and what a client is told is the gateway's.

mod runs;
mod record;
mod store;
mod exchange;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use consensus::{Consensus, ReplicaId};
use futures_util::future::BoxFuture;
use registry::{Digest, JobRun};

use self::store::Store;
use crate::Config;
use crate::founding::Founded;
use crate::gateway::HashKeys;
use crate::peers::Peers;

pub(crate) use self::exchange::Exchange;
pub(crate) use self::record::{Piece, Reading, Record};
pub(crate) use self::runs::{Running, Runs};

/// Where answers are kept, and what other coordinators know of their runs.
pub(crate) trait Keeper: Send + Sync {
    /// Whether this coordinator's disk takes more.
    fn has_room(&self) -> bool;
    /// Puts the answer on two disks, this coordinator's and another one's. Returns who has it: fewer where there are fewer.
    fn keep(&self, digest: Digest, answer: Bytes) -> BoxFuture<'_, BTreeSet<u64>>;
    fn fetch(&self, digest: Digest, holders: BTreeSet<u64>) -> BoxFuture<'_, Result<Bytes, Missing>>;
    /// Whether a run of another coordinator goes on. One that cannot be asked counts as dead: if it is not, it is too late.
    fn goes_on(&self, run: JobRun) -> BoxFuture<'_, bool>;
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No disk has it any more.
    Gone,
    /// Somebody who may have it does not answer.
    Unreachable,
}

/// What the gateway is given of all this.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) runs: Runs,
    pub(crate) keeper: Arc<dyn Keeper>,
}

/// The folder of kept answers, in a new life of this coordinator.
pub(crate) fn open(
    config: &Config,
    consensus: &Consensus,
    founded: &Founded,
    peers: &Peers,
    replica: ReplicaId,
) -> anyhow::Result<Exchange> {
    Ok(Exchange {
        replica,
        consensus: consensus.clone(),
        peers: peers.clone(),
        store: Store::open(config.data_folder.join("answers"))?,
        runs: Runs::new(replica.0)?,
        key: HashKeys::new(founded.leaf.hash_key()).answers,
    })
}
