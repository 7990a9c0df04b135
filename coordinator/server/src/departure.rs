//! How a coordinator that was revoked leaves.
//!
//! Owns finding out that it is one: by its own registry, or, where that hears nothing any more, by asking the others. Refuses to go
//! at once: the group may need its vote to go on without it.

use std::sync::{Arc, OnceLock};

use consensus::{Consensus, ReplicaId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::peers::Peers;
use crate::{enlisting, limits, members};

/// What the operator reads.
pub(crate) const WORDS: &str = "this coordinator was removed from the cluster (its membership was revoked): to use the machine \
     again, start it with an empty data folder, --join and a new token of `mlx-serving token create --role coordinator`";

/// Ends the coordinator, and says why.
#[derive(Clone)]
pub(crate) struct Departure {
    stop: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Departure {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { stop, why: Arc::default() }
    }

    /// The first reason counts.
    pub(crate) fn leave(&self, why: &str) {
        tracing::error!("{why}");
        let _ = self.why.set(why.to_owned());
        self.stop.cancel();
    }

    pub(crate) fn why(&self) -> Option<&String> {
        self.why.get()
    }

    /// Returns when it has left, or the registry has stopped.
    pub(crate) async fn watch(self, consensus: Consensus, peers: Peers, own: ReplicaId, address: String) {
        let (mut facts, mut leadership) = (consensus.changes(), consensus.leadership());
        loop {
            let revoked = members::is_coordinator_revoked(&facts.borrow_and_update(), own);
            if revoked {
                sleep(limits::LINGER).await;
                return self.leave(WORDS);
            }
            let leaderless = leadership.borrow_and_update().leader.is_none();
            tokio::select! {
                changed = facts.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                () = sleep(limits::LEADERLESS), if leaderless => {
                    if enlisting::is_revoked(&consensus, &peers, own, &address).await {
                        return self.leave(WORDS);
                    }
                }
            }
        }
    }
}
