//! How a coordinator that was revoked leaves.
//!
//! Owns finding out that it is one: by its own registry, or by asking the others, once when it starts, since it may lead others that
//! are none any more either, and where the registry hears nothing any more. Refuses to go at once: the group may need its vote to go
//! on without it.

use std::sync::{Arc, OnceLock};

use consensus::{Consensus, ReplicaId};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::peers::Peers;
use crate::{enlisting, limits, members};

/// What the operator reads.
pub(crate) const WORDS: &str = "this coordinator was removed from the cluster (its membership was revoked, or the cluster began anew \
     without it): to use the machine again, start it with an empty data folder, --join and a new token of `mlx-serving token create \
     --role coordinator`";

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
        tokio::select! {
            () = self.follow(&consensus, &peers, own, &address) => {}
            Some(why) = enlisting::barred(&consensus, &peers, own, &address) => {
                sleep(limits::LINGER).await;
                self.leave(&why.to_string());
            }
        }
    }

    async fn follow(&self, consensus: &Consensus, peers: &Peers, own: ReplicaId, address: &str) {
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
                    if let Some(why) = enlisting::barred(consensus, peers, own, address).await {
                        return self.leave(&why.to_string());
                    }
                }
            }
        }
    }
}
