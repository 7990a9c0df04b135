//! Durable jobs: requests that are answered once, whatever dies.
//!
//! Owns what outlives a client's connection, batches among it: the runs of this process (`runs.rs`) with the answers they are giving
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

use self::exchange::Shelf;
use self::store::{Full, Store};
use crate::founding::Founded;
use crate::gateway::HashKeys;
use crate::peers::Peers;
use crate::{Config, limits};

pub(crate) use self::exchange::Exchange;
pub(crate) use self::record::{Piece, Reading, Record};
pub(crate) use self::runs::{Running, Runs};

/// Where answers are kept, and what other coordinators know of their runs.
pub(crate) trait Keeper: Send + Sync {
    /// Whether this coordinator's disk takes more.
    fn has_room(&self) -> bool;
    /// Puts it on two disks, this coordinator's and another one's. Returns who has it: fewer where there are fewer.
    fn keep(&self, what: What, digest: Digest, bytes: Bytes) -> BoxFuture<'_, BTreeSet<u64>>;
    fn fetch(
        &self,
        what: What,
        digest: Digest,
        holders: BTreeSet<u64>,
    ) -> BoxFuture<'_, Result<Bytes, Missing>>;
    /// Whether a run of another coordinator goes on. One that cannot be asked counts as dead: if it is not, it is too late.
    fn goes_on(&self, run: JobRun) -> BoxFuture<'_, bool>;
}

/// What is kept, and so for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The answer of a job: for its day, and where all of them are too large, the oldest goes first.
    Answer,
    /// A part of a file or of what a batch has answered: as long as a fact names it. What does not fit is refused.
    Piece,
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

/// The folders of kept answers and of files, in a new life of this coordinator.
pub(crate) fn open(
    config: &Config,
    consensus: &Consensus,
    founded: &Founded,
    peers: &Peers,
    replica: ReplicaId,
) -> anyhow::Result<Exchange> {
    let keys = HashKeys::new(founded.leaf.hash_key());
    Ok(Exchange {
        replica,
        consensus: consensus.clone(),
        peers: peers.clone(),
        answers: Shelf {
            store: Store::open(
                config.data_folder.join("answers"),
                Full::OldestGoes(limits::ANSWERS_BYTES_MAX),
            )?,
            key: keys.answers,
        },
        pieces: Shelf {
            store: Store::open(config.data_folder.join("files"), Full::Refuses(limits::PIECES_BYTES_MAX))?,
            key: keys.pieces,
        },
        runs: Runs::new(replica.0)?,
    })
}
