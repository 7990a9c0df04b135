//! Coordinators that were revoked lose their place in the group.
//!
//! Owns this errand of whoever leads: the registry says who was revoked, so the next leader completes what the one before did not.
//! Refuses to mend the number that is left: an operator who revokes one of three adds another.

use consensus::{Consensus, Even, MemberState, ReplicaId};
use registry::Registry;
use tokio::time::sleep;

use crate::{limits, members};

/// Runs as long as the registry.
pub(crate) async fn run(consensus: Consensus) {
    let (mut facts, mut leadership) = (consensus.changes(), consensus.leadership());
    loop {
        let (registry, leads) = (facts.borrow_and_update().clone(), leadership.borrow_and_update().is_self);
        let expelled = if leads { expelled(&registry, &consensus.members()) } else { Vec::new() };
        let mut again = false;
        if !expelled.is_empty() {
            match consensus.remove(&expelled, Even::Allow).await {
                Ok(()) => tracing::info!(?expelled, "coordinators that were revoked have left the group"),
                Err(error) => {
                    tracing::warn!(?expelled, %error, "coordinators that were revoked are still members");
                    again = true;
                }
            }
        }
        tokio::select! {
            changed = facts.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep(limits::PROPOSE_AGAIN_MAX), if again => {}
        }
    }
}

/// Members that were revoked and whose removal has not begun. One that has begun is completed without this.
fn expelled(registry: &Registry, group: &[MemberState]) -> Vec<ReplicaId> {
    let replicas = group.iter().map(|member| member.replica);
    let begun = |replica: &ReplicaId| registry.is_replica_removed(replica.0);
    replicas
        .filter(|replica| members::is_coordinator_revoked(registry, *replica) && !begun(replica))
        .collect()
}
