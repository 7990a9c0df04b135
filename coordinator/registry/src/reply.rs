//! What the registry answers, in types for the program and in words for the operator.
//!
//! Owns the words of every refusal: what, which id, what to do. Refuses to tell a joiner more than it may know: an
//! unknown token and a wrong secret are the same answer.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{NodeId, Role, TokenId};

/// The outcome of one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The facts changed.
    Done,
    /// The facts were that way before.
    AlreadySo,
    /// The machine is a node.
    NodeAdmitted {
        /// Its number.
        node: NodeId,
        /// It was one before this command; nothing changed.
        again: bool,
    },
    /// Nothing changed, and why.
    Refused(Refusal),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The registry belongs to a cluster.
    AlreadyFounded,
    /// The registry does not belong to a cluster yet.
    NotFounded,
    /// No such token, or not its secret.
    UnknownToken {
        /// The token shown.
        token: TokenId,
    },
    /// The token's time is over.
    TokenExpired {
        /// The token shown.
        token: TokenId,
    },
    /// As many machines joined with the token as may.
    TokenSpent {
        /// The token shown.
        token: TokenId,
    },
    /// The key belongs to a node of another role than the token gives.
    TokenRoleMismatch {
        /// The node the key belongs to.
        node: NodeId,
        /// What that node is.
        is: Role,
        /// What the token makes of a joiner.
        token_gives: Role,
    },
    /// Another token has this id.
    TokenIdTaken {
        /// The id.
        token: TokenId,
    },
    /// No such node.
    UnknownNode {
        /// The number asked for.
        node: NodeId,
    },
    /// The node was revoked.
    NodeRevoked {
        /// The node.
        node: NodeId,
    },
    /// Only agents hold models.
    NotAnAgent {
        /// The node.
        node: NodeId,
        /// What it is.
        is: Role,
    },
    /// A collection is full.
    TooMany {
        /// Which one.
        what: Bounded,
        /// How many it holds.
        limit: usize,
    },
    /// A field of the command is not formed as it must be.
    Malformed {
        /// Which one.
        what: Field,
    },
}

/// A bounded collection that can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bounded {
    /// Nodes that are not revoked, or their numbers.
    LiveNodes,
    /// Models wanted on one node.
    ModelsOnNode,
}

/// A field with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The id of a cluster.
    ClusterId,
    /// The certificate of the authority.
    CaCertificate,
    /// The private key of the authority.
    CaKey,
    /// The id of a token.
    TokenId,
    /// How often a token may be used.
    TokenUses,
    /// The name of a machine.
    NodeName,
    /// The fingerprint of a public key.
    PublicKey,
    /// The path of a model folder.
    ModelPath,
    /// The id of a model on a hub.
    HubId,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::AlreadyFounded => f.write_str(
                "this registry already belongs to a cluster; use it, or begin another cluster in an empty data folder",
            ),
            Refusal::NotFounded => {
                f.write_str("this registry belongs to no cluster yet; start a coordinator on it first")
            }
            Refusal::UnknownToken { token } => write!(
                f,
                "join token {token} is unknown or its secret is wrong; copy the whole token, or create a new one \
                 with `mlx-serving token create`"
            ),
            Refusal::TokenExpired { token } => {
                write!(f, "join token {token} has expired; create a new one with `mlx-serving token create`")
            }
            Refusal::TokenSpent { token } => {
                write!(f, "join token {token} is used up; create a new one with `mlx-serving token create`")
            }
            Refusal::TokenRoleMismatch { node, is, token_gives } => write!(
                f,
                "this key belongs to node {node}, which is of role {is}, but the token is for role {token_gives}; \
                 use a token for role {is}, or join with a new key"
            ),
            Refusal::TokenIdTaken { token } => {
                write!(f, "another join token has the id {token}; create one with another id")
            }
            Refusal::UnknownNode { node } => {
                write!(f, "this cluster has no node {node}; see its nodes with `mlx-serving status`")
            }
            Refusal::NodeRevoked { node } => write!(
                f,
                "node {node} was revoked, and its key with it; to use the machine again, remove its identity and \
                 join with a new token"
            ),
            Refusal::NotAnAgent { node, is } => {
                write!(f, "node {node} is of role {is} and holds no models; choose an agent")
            }
            Refusal::TooMany { what, limit } => write!(f, "{}", words_for_full(*what, *limit)),
            Refusal::Malformed { what } => write!(f, "{}", FieldRule(*what)),
        }
    }
}

impl core::error::Error for Refusal {}

fn words_for_full(what: Bounded, limit: usize) -> alloc::string::String {
    match what {
        Bounded::LiveNodes => {
            alloc::format!("the cluster has {limit} nodes, the most it can have; revoke one that is gone")
        }
        Bounded::ModelsOnNode => {
            alloc::format!("{limit} models are wanted on this node, the most it can have; remove one")
        }
    }
}

/// Says the rule of a field.
struct FieldRule(Field);

impl fmt::Display for FieldRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id_max = limits::ID_BYTES_MAX;
        let pem_max = limits::PEM_BYTES_MAX;
        match self.0 {
            Field::ClusterId => write!(f, "a cluster id has 1 to {id_max} letters, digits, '_' or '-'"),
            Field::TokenId => write!(f, "a token id has 1 to {id_max} letters, digits, '_' or '-'"),
            Field::CaCertificate => {
                write!(f, "the authority's certificate must be PEM of 1 to {pem_max} bytes")
            }
            Field::CaKey => write!(f, "the authority's private key must be PEM of 1 to {pem_max} bytes"),
            Field::TokenUses => f.write_str("a join token must be good for at least one use"),
            Field::NodeName => write!(
                f,
                "a machine's name has 1 to {} bytes and no control characters",
                limits::NODE_NAME_BYTES_MAX
            ),
            Field::PublicKey => write!(
                f,
                "a key's fingerprint is 1 to {} digits of lower-case hex",
                limits::FINGERPRINT_BYTES_MAX
            ),
            Field::ModelPath => write!(
                f,
                "a model folder is an absolute path of at most {} bytes without control characters",
                limits::MODEL_PATH_BYTES_MAX
            ),
            Field::HubId => write!(
                f,
                "a hub id is made of letters, digits, '.', '_', '-' and '/', at most {} bytes",
                limits::MODEL_NAME_BYTES_MAX
            ),
        }
    }
}
