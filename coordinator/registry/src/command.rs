//! What may be asked of the registry. This is what the replicated log holds, so the names are for ever.
//!
//! Owns the list of commands and their form on disk. Refuses to show secrets: `Debug` leaves out keys and hashes,
//! because commands end up in traces.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, ModelName, ModelSource, NodeId, Role, TokenId};

/// A change of the durable facts. Times are the proposer's, in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Begins the cluster. A second founding is refused, so that the certificate authority never changes by accident.
    FoundCluster {
        /// The name of the cluster.
        cluster: ClusterId,
        /// The authority's certificate.
        ca_certificate_pem: String,
        /// The authority's private key.
        ca_key_pem: String,
        /// When it was founded.
        at_unix_ms: u64,
    },
    /// Lets machines that know the secret join, until the token expires or is spent. Idempotent.
    IssueJoinToken {
        /// The token's public part.
        id: TokenId,
        /// Hash of the secret; hex on disk.
        #[serde(with = "crate::secret_hash")]
        secret_hash: [u8; 32],
        /// What a joiner becomes.
        role: Role,
        /// The first moment at which the token is no longer good.
        expires_at_unix_ms: u64,
        /// How many machines may join with it; absent: any number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uses: Option<u32>,
    },
    /// A machine joins. The same public key is the same node, however often it asks and whichever token it shows.
    AdmitNode {
        /// The token it shows.
        token: TokenId,
        /// Hash of the secret it shows; hex on disk.
        #[serde(with = "crate::secret_hash")]
        secret_hash: [u8; 32],
        /// What people call the machine.
        name: String,
        /// Fingerprint of its public key, lower-case hex.
        public_key: String,
        /// When it asked.
        at_unix_ms: u64,
    },
    /// Ends a node's membership for ever: its key is no longer accepted and nothing is wanted on it. Idempotent.
    RevokeNode {
        /// The node.
        node: NodeId,
    },
    /// This node shall hold the model. Another source replaces the former one. Idempotent.
    WantModel {
        /// The node; an agent.
        node: NodeId,
        /// The model.
        model: ModelName,
        /// Where the node finds it.
        source: ModelSource,
    },
    /// This node need not hold the model. Idempotent.
    UnwantModel {
        /// The node.
        node: NodeId,
        /// The model.
        model: ModelName,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::FoundCluster { cluster, at_unix_ms, ca_certificate_pem: _, ca_key_pem: _ } => f
                .debug_struct("FoundCluster")
                .field("cluster", cluster)
                .field("at_unix_ms", at_unix_ms)
                .finish_non_exhaustive(),
            Command::IssueJoinToken { id, role, expires_at_unix_ms, uses, secret_hash: _ } => f
                .debug_struct("IssueJoinToken")
                .field("id", id)
                .field("role", role)
                .field("expires_at_unix_ms", expires_at_unix_ms)
                .field("uses", uses)
                .finish_non_exhaustive(),
            Command::AdmitNode { token, name, public_key, at_unix_ms, secret_hash: _ } => f
                .debug_struct("AdmitNode")
                .field("token", token)
                .field("name", name)
                .field("public_key", public_key)
                .field("at_unix_ms", at_unix_ms)
                .finish_non_exhaustive(),
            Command::RevokeNode { node } => f.debug_struct("RevokeNode").field("node", node).finish(),
            Command::WantModel { node, model, source } => f
                .debug_struct("WantModel")
                .field("node", node)
                .field("model", model)
                .field("source", source)
                .finish(),
            Command::UnwantModel { node, model } => {
                f.debug_struct("UnwantModel").field("node", node).field("model", model).finish()
            }
        }
    }
}
