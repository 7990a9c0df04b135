//! Forgetting: jobs, files and batches whose time is over, and what no fact names any more on this disk.
//!
//! Owns when it is looked for. Whoever leads says the time, in a command, because the registry has no clock; each coordinator
//! tidies its own disk.

use std::collections::BTreeSet;

use registry::{Command, Registry};
use tokio::time::sleep;

use super::exchange::Exchange;
use crate::clock::unix_ms;
use crate::limits;

impl Exchange {
    /// Until it is dropped.
    pub(crate) async fn keep_up(self) {
        loop {
            sleep(limits::LOOK_AGAIN).await;
            self.look_after(unix_ms()).await;
        }
    }

    pub(super) async fn look_after(&self, now_unix_ms: u64) {
        let (registry, leadership) = (self.consensus.local(), self.consensus.leadership().borrow().clone());
        let over = registry.jobs().any(|(_, job)| job.is_over(now_unix_ms));
        if leadership.is_self && over {
            let forgotten = self.consensus.propose(Command::ForgetJobs { at_unix_ms: now_unix_ms }).await;
            if let Err(error) = forgotten {
                tracing::info!(%error, "jobs that are over are forgotten later");
            }
        }
        if leadership.is_self && registry.has_files_over(now_unix_ms) {
            let forgotten = self.consensus.propose(Command::ForgetFiles { at_unix_ms: now_unix_ms }).await;
            if let Err(error) = forgotten {
                tracing::info!(%error, "files and batches that are over are forgotten later");
            }
        }
        // A replica that has heard nothing yet would take every answer for one that nobody names.
        if registry.cluster().is_some() && leadership.leader.is_some() {
            let named = named(&registry);
            self.answers.store.retain(move |name| named.contains(name)).await;
            let named: BTreeSet<_> = registry.pieces().map(|piece| piece.digest.to_string()).collect();
            self.pieces.store.retain(move |name| named.contains(name)).await;
        }
    }
}

fn named(registry: &Registry) -> BTreeSet<String> {
    let kept = registry.jobs().filter_map(|(_, job)| job.ended.as_ref()?.kept.as_ref());
    kept.map(|kept| kept.digest.to_string()).collect()
}
