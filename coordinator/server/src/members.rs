//! Who belongs to the cluster, by the registry's word on an identity.
//!
//! Owns the two ways in which nodes are numbered: an agent is the node of its certificate, a coordinator has the number after its
//! node's, because the founder is number one and was never admitted. Refuses to know connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use consensus::{Consensus, ReplicaId};
use proto::identity::{Identity, Role};
use registry::{NodeId, Registry};
use rustls::pki_types::CertificateDer;

use crate::authority;
use crate::streams::{Judge, Verdict};

/// The founder's number; joiners get theirs from the registry.
pub(crate) const FOUNDER: ReplicaId = ReplicaId(1);

/// A coordinator's number in the group.
pub(crate) fn replica_of(node: NodeId) -> ReplicaId {
    ReplicaId(node.0.saturating_add(FOUNDER.0))
}

/// The node behind a coordinator's number; the founder is none.
pub(crate) fn node_of(replica: ReplicaId) -> Option<NodeId> {
    replica.0.checked_sub(FOUNDER.0).filter(|node| *node > 0).map(NodeId)
}

/// Its membership is over, for ever. Who is not known at all may only be known elsewhere already: that is somebody else's refusal.
pub(crate) fn is_revoked(registry: &Registry, identity: Identity) -> bool {
    match identity.role {
        Role::Agent => registry.is_node_revoked(NodeId(identity.node)),
        Role::Coordinator => is_coordinator_revoked(registry, ReplicaId(identity.node)),
    }
}

/// A coordinator goes by its node's revocation or by its removal from the group, whichever is first.
pub(crate) fn is_coordinator_revoked(registry: &Registry, replica: ReplicaId) -> bool {
    registry.is_replica_removed(replica.0)
        || (replica == FOUNDER && registry.is_founder_revoked())
        || node_of(replica).is_some_and(|node| registry.is_node_revoked(node))
}

/// The number is that of a coordinator, or of an agent with another key than the certificate's: somebody else got it, in another life
/// of the facts. An agent's key stays the same, under however many certificates; a coordinator makes itself new ones.
pub(crate) fn is_somebody_elses(registry: &Registry, agent: NodeId, leaf: &CertificateDer<'_>) -> bool {
    registry.node(agent).is_some_and(|known| {
        known.role != registry::Role::Agent
            || authority::leaf_fingerprint(leaf).as_ref() != Some(&known.public_key)
    })
}

/// What the registry says of an agent, by the facts as they are when it is asked.
pub(crate) fn judge(consensus: &Consensus) -> Judge {
    let facts = consensus.changes();
    Arc::new(move |node, leaf| {
        let (facts, node) = (facts.borrow(), NodeId(node));
        if is_somebody_elses(&facts, node, leaf) {
            Verdict::Another
        } else if facts.is_node_revoked(node) {
            Verdict::Revoked
        } else {
            Verdict::Member
        }
    })
}

/// The numbers of all coordinators that were revoked and are remembered.
pub(crate) fn revoked_coordinators(registry: &Registry) -> BTreeSet<u64> {
    let joined = registry.nodes().filter(|(_, node)| node.role == registry::Role::Coordinator);
    let all = joined.map(|(node, _)| replica_of(node)).chain([FOUNDER]);
    all.filter(|replica| is_coordinator_revoked(registry, *replica)).map(|replica| replica.0).collect()
}

#[cfg(test)]
mod tests {
    use registry::{ClusterId, Command, TokenId, VoterChange};

    use super::*;

    /// Agents 1 and 3, and coordinator 3, which is node 2.
    fn room() -> Registry {
        let mut registry = Registry::default();
        registry.apply(&Command::FoundCluster {
            cluster: ClusterId("room".to_owned()),
            ca_certificate_pem: "certificate".to_owned(),
            ca_key_pem: "key".to_owned(),
            at_unix_ms: 0,
        });
        for (id, role) in [("a", registry::Role::Agent), ("c", registry::Role::Coordinator)] {
            registry.apply(&Command::IssueJoinToken {
                id: TokenId(id.to_owned()),
                secret_hash: [0; 32],
                role,
                expires_at_unix_ms: 9,
                uses: None,
                name: None,
            });
        }
        for (token, key) in [("a", "01"), ("c", "02"), ("a", "03")] {
            registry.apply(&Command::AdmitNode {
                token: TokenId(token.to_owned()),
                secret_hash: [0; 32],
                name: "mini".to_owned(),
                public_key: key.to_owned(),
                at_unix_ms: 1,
            });
        }
        registry
    }

    fn revoked(registry: &Registry) -> Vec<String> {
        let all = [Role::Agent, Role::Coordinator]
            .into_iter()
            .flat_map(|role| (1..5).map(move |node| Identity { role, node }));
        all.filter(|identity| is_revoked(registry, *identity)).map(|identity| identity.to_string()).collect()
    }

    #[test]
    fn a_node_that_was_revoked_is_so_under_its_own_number_and_no_other() {
        let mut registry = room();
        assert_eq!(revoked(&registry), [""; 0]);
        registry.apply(&Command::RevokeNode { node: NodeId(1) });
        // Numbers are given once: coordinator 2 would be this very node, and never was.
        let first = ["spiffe://mlxc/agent/1", "spiffe://mlxc/coordinator/2"];
        assert_eq!(revoked(&registry), first);
        assert_eq!(revoked_coordinators(&registry), BTreeSet::new());
        registry.apply(&Command::RevokeNode { node: NodeId(2) });
        let second = ["spiffe://mlxc/agent/2", "spiffe://mlxc/coordinator/3"];
        assert_eq!(revoked(&registry), [first[0], second[0], first[1], second[1]]);
        assert_eq!(revoked_coordinators(&registry), BTreeSet::from([3]));
    }

    #[test]
    fn a_coordinator_that_left_the_group_is_revoked_and_so_is_the_founder() {
        let mut registry = room();
        let change = VoterChange { number: 1, remove: BTreeSet::from([1]), by: 3, ..VoterChange::default() };
        registry.apply(&Command::LockVoters { change });
        assert_eq!(revoked(&registry), ["spiffe://mlxc/coordinator/1"]);
        assert_eq!(revoked_coordinators(&registry), BTreeSet::from([1]));
    }

    #[test]
    fn the_founder_is_revoked_by_a_word_of_its_own() {
        let mut registry = room();
        registry.apply(&Command::RevokeFounder { at_unix_ms: 3 });
        assert_eq!(revoked(&registry), ["spiffe://mlxc/coordinator/1"]);
    }

    #[test]
    fn nobody_is_revoked_before_there_is_a_cluster() {
        assert_eq!(revoked(&Registry::default()), [""; 0]);
    }
}
