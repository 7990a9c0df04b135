//! What the registry answers, in types for the program and in words for the operator.
//!
//! Owns the words of every refusal: what, which id, what to do. Refuses to tell a joiner more than it may know: an
//! unknown token and a wrong secret are the same answer.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::batch_refusal::BatchRefusal;
use crate::ca_refusal::CaRefusal;
use crate::job_refusal::JobRefusal;
use crate::key_refusal::KeyRefusal;
use crate::usage::UsageMark;
use crate::{ClusterVersion, Field, ModelName, NodeId, Role, TokenId};

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
    /// The token was taken back.
    TokenRevoked {
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
    /// The node does not offer the model.
    NotOffered {
        /// The node.
        node: NodeId,
        /// The model.
        model: ModelName,
    },
    /// The node's agent never said how much memory there is.
    BudgetUnknown {
        /// The node.
        node: NodeId,
    },
    /// The reservation does not fit beside the others.
    NoRoom {
        /// The node.
        node: NodeId,
        /// The model.
        model: ModelName,
        /// What was to be reserved for it.
        needed_bytes: u64,
        /// What the node's other models leave.
        free_bytes: u64,
        /// What the node has in all.
        budget_bytes: u64,
    },
    /// The breaker has moved on since.
    StaleGeneration {
        /// The node.
        node: NodeId,
        /// The model; absent: the breaker of the whole node.
        model: Option<ModelName>,
        /// The generation the move was into.
        generation: u32,
        /// The one that is known.
        known: u32,
    },
    /// The canary was answered otherwise under the same card.
    GoldenDiffers {
        /// The model.
        model: ModelName,
    },
    /// Another change of the coordinators is under way.
    VotersLocked {
        /// Its number.
        number: u64,
        /// The replica that began it.
        by: u64,
    },
    /// The change of the coordinators is not the next one.
    VoterChangeOutOfTurn {
        /// Its number.
        number: u64,
        /// The number it would have to have.
        next: u64,
    },
    /// The replica was a member and was removed.
    ReplicaRemoved {
        /// The replica.
        replica: u64,
    },
    /// The report of usage is not the gateway's next one.
    UsageOutOfTurn {
        /// The replica whose gateway told it.
        gateway: u64,
        /// The report.
        told: UsageMark,
        /// The last one that was counted.
        known: UsageMark,
    },
    /// Not every replica would understand the command.
    VersionTooLow {
        /// The version it needs.
        needs: ClusterVersion,
        /// The one that the cluster has.
        has: ClusterVersion,
    },
    /// The version comes with a later release.
    VersionUnknown {
        /// The version.
        to: ClusterVersion,
        /// The newest that this release knows.
        newest: ClusterVersion,
    },
    /// An API key is not as the command needs it.
    Key(KeyRefusal),
    /// A job is not as the command needs it.
    Job(JobRefusal),
    /// A file or a batch is not as the command needs it.
    Batch(BatchRefusal),
    /// The authority is not as the command needs it.
    Ca(CaRefusal),
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
    /// Models offered by one node.
    ModelsOnNode,
    /// Models with a policy that is not the default.
    ModelPolicies,
    /// Models whose golden ids are known, when all of them are offered.
    Goldens,
    /// API keys that are not revoked.
    LiveKeys,
    /// Secrets of one API key.
    KeySecrets,
    /// Jobs that are remembered.
    Jobs,
    /// Those of one tenant.
    JobsOfTenant,
    /// Responses that run without their clients.
    RunningResponses,
    /// Those of one tenant.
    RunningResponsesOfTenant,
    /// Files that are remembered.
    Files,
    /// Those of one tenant.
    FilesOfTenant,
    /// All files together, in MiB.
    FileMib,
    /// Those of one tenant.
    FileMibOfTenant,
    /// Batches that are remembered and not over.
    Batches,
    /// Those of one tenant.
    BatchesOfTenant,
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
            Refusal::TokenExpired { token } => words_for_token(f, token, "has expired"),
            Refusal::TokenRevoked { token } => words_for_token(f, token, "was revoked"),
            Refusal::TokenSpent { token } => words_for_token(f, token, "is used up"),
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
            Refusal::NotOffered { node, model } => write!(
                f,
                "node {node} does not offer model {model}; see who does with `mlx-serving models ls`, or start its \
                 agent with the model"
            ),
            Refusal::BudgetUnknown { node } => write!(
                f,
                "the agent of node {node} has not said how much memory its GPU may hold; start it, and see it with \
                 `mlx-serving nodes`"
            ),
            Refusal::NoRoom { node, model, needed_bytes, free_bytes, budget_bytes } => write!(
                f,
                "model {model} needs {} MiB on node {node}, where {} of {} MiB are free; make room with \
                 `mlx-serving models unload`, or see where it fits with `mlx-serving models plan`",
                needed_bytes.div_ceil(MIB),
                free_bytes / MIB,
                budget_bytes / MIB
            ),
            Refusal::StaleGeneration { node, model, generation, known } => {
                words_for_stale(f, *node, model.as_ref(), *generation, *known)
            }
            Refusal::GoldenDiffers { model } => words_for_golden(f, model),
            Refusal::VotersLocked { number, by } => words_for_locked(f, *number, *by),
            Refusal::VoterChangeOutOfTurn { number, next } => words_for_turn(f, *number, *next),
            Refusal::ReplicaRemoved { replica } => words_for_removed(f, *replica),
            Refusal::UsageOutOfTurn { gateway, told, known } => words_for_usage(f, *gateway, *told, *known),
            Refusal::VersionTooLow { needs, has } => words_for_low(f, *needs, *has),
            Refusal::VersionUnknown { to, newest } => words_for_unknown(f, *to, *newest),
            Refusal::Key(refusal) => write!(f, "{refusal}"),
            Refusal::Job(refusal) => write!(f, "{refusal}"),
            Refusal::Batch(refusal) => write!(f, "{refusal}"),
            Refusal::Ca(refusal) => write!(f, "{refusal}"),
            Refusal::TooMany { what, limit } => words_for_full(f, *what, *limit),
            Refusal::Malformed { what } => write!(f, "{what}"),
        }
    }
}

impl core::error::Error for Refusal {}

/// What is needed is rounded up and what is free down, so that the words never contradict the refusal.
const MIB: u64 = 1 << 20;

fn words_for_token(f: &mut fmt::Formatter<'_>, token: &TokenId, why: &str) -> fmt::Result {
    write!(f, "join token {token} {why}; create a new one with `mlx-serving token create`")
}

fn words_for_stale(
    f: &mut fmt::Formatter<'_>,
    node: NodeId,
    model: Option<&ModelName>,
    generation: u32,
    known: u32,
) -> fmt::Result {
    match model {
        Some(model) => write!(f, "the breaker of model {model} on node {node}")?,
        None => write!(f, "the breaker of node {node}")?,
    }
    write!(
        f,
        " is in generation {known} already, so the move into {generation} is late; see how it stands with \
         `mlx-serving nodes`"
    )
}

fn words_for_golden(f: &mut fmt::Formatter<'_>, model: &ModelName) -> fmt::Result {
    write!(
        f,
        "model {model} answered the canary otherwise before, with the same card; the node that now differs \
         computes wrongly or runs another version: find it with `mlx-serving explain {model}`"
    )
}

fn words_for_low(f: &mut fmt::Formatter<'_>, needs: ClusterVersion, has: ClusterVersion) -> fmt::Result {
    write!(
        f,
        "this needs version {needs} of the cluster, which is at {has} until every coordinator is updated; see which is \
         not with `mlx-serving status`"
    )
}

fn words_for_unknown(f: &mut fmt::Formatter<'_>, to: ClusterVersion, newest: ClusterVersion) -> fmt::Result {
    write!(
        f,
        "this release knows the versions of a cluster up to {newest} and not {to}; update mlx-serving on this machine"
    )
}

fn words_for_locked(f: &mut fmt::Formatter<'_>, number: u64, by: u64) -> fmt::Result {
    write!(
        f,
        "change {number} of the coordinators, begun by replica {by}, is still under way; the leader completes it by \
         itself, so try again shortly and see how far it is with `mlx-serving nodes`"
    )
}

fn words_for_turn(f: &mut fmt::Formatter<'_>, number: u64, next: u64) -> fmt::Result {
    write!(
        f,
        "change {number} of the coordinators is out of turn, it is that of number {next}; see how they stand with \
         `mlx-serving nodes`, and ask again"
    )
}

fn words_for_removed(f: &mut fmt::Formatter<'_>, replica: u64) -> fmt::Result {
    write!(
        f,
        "replica {replica} was removed from the coordinators, and its id is never used again; join the machine anew in \
         an empty data folder, which gives it a new id"
    )
}

fn words_for_usage(
    f: &mut fmt::Formatter<'_>,
    gateway: u64,
    told: UsageMark,
    known: UsageMark,
) -> fmt::Result {
    write!(
        f,
        "report {} of life {} of gateway {gateway} is out of turn, since report {} of life {} was counted last; it \
         begins another life",
        told.sequence, told.life, known.sequence, known.life
    )
}

fn words_for_full(f: &mut fmt::Formatter<'_>, what: Bounded, limit: usize) -> fmt::Result {
    match what {
        Bounded::LiveNodes => {
            write!(f, "the cluster has {limit} nodes, the most it can have; revoke one that is gone")
        }
        Bounded::ModelsOnNode => write!(
            f,
            "this node offers {limit} models, the most it can; remove one with `mlx-serving models rm`"
        ),
        Bounded::ModelPolicies => write!(
            f,
            "{limit} models have a policy of their own, the most that can; give one the default again, they are \
             listed by `mlx-serving models ls`"
        ),
        Bounded::Goldens => write!(
            f,
            "the canary's answers of {limit} models are known, the most that can be, and all these models are \
             offered; remove one that is not needed with `mlx-serving models rm`"
        ),
        Bounded::LiveKeys => write!(
            f,
            "there are {limit} API keys, the most there can be; revoke one that is not needed with \
             `mlx-serving keys revoke`"
        ),
        Bounded::Jobs => write!(
            f,
            "{limit} requests with an idempotency key are remembered, the most that can be; each is forgotten a day \
             after its answer, so send this one later or without such a key"
        ),
        Bounded::JobsOfTenant => write!(
            f,
            "{limit} requests of this tenant with an idempotency key are remembered, the most that can be; each is \
             forgotten a day after its answer, so send this one later or without such a key"
        ),
        Bounded::RunningResponses => {
            write!(f, "{limit} responses run in the background, the most that can; begin this one later")
        }
        Bounded::RunningResponsesOfTenant => {
            write!(
                f,
                "one tenant has {limit} responses in the background, the most it can; begin this one when another is over"
            )
        }
        Bounded::Files => write!(f, "there are {limit} files, the most there can be; delete some of them"),
        Bounded::FilesOfTenant => {
            write!(f, "this tenant has {limit} files, the most it can; delete some of them")
        }
        Bounded::FileMib => {
            write!(f, "all files together have {limit} MiB, the most they can; delete some of them")
        }
        Bounded::FileMibOfTenant => {
            write!(f, "the files of this tenant have {limit} MiB, the most they can; delete some of them")
        }
        Bounded::Batches => {
            write!(f, "there are {limit} batches under way, the most there can be; begin this one later")
        }
        Bounded::BatchesOfTenant => write!(
            f,
            "this tenant has {limit} batches under way, the most it can; begin this one when another is over"
        ),
        Bounded::KeySecrets => write!(
            f,
            "this key has {limit} secrets, the most it can; end the old one with `mlx-serving keys rotate --finish`"
        ),
    }
}
