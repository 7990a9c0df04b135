//! What the shell may tell the scheduler: one variant per fact. Owns the shape of the facts; refuses meaning, which is
//! `machine`'s. No prompt, no token and no name is in here.

use alloc::sync::Arc;

use crate::breaker::{ProbeNumber, ProbeResult};
use crate::fact::Fact;
use crate::ids::{Attempt, Block, Fingerprint, ModelId, NodeId, RequestId, SessionKey, TenantId};
use crate::report::NodeReport;
use crate::residency::{ModelPolicy, ReservationId};
use crate::time::{At, Span};

/// A fact. Facts about requests, attempts or nodes that the scheduler does not know are ignored.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A client wants an answer.
    Submit(Submission),
    /// A request that an earlier leader had accepted, told by the gateway that holds its client. Told of a number that is alive, it
    /// changes nothing.
    Adopt {
        /// As it arrived; its tokens as they count now, or for an attempt that runs as they counted when it was sent.
        submission: Submission,
        /// Attempts made so far; the next has the next number.
        attempt: Attempt,
        /// Where the latest of them runs. `None` when it waits: never sent, or its latest attempt came to nothing.
        running: Option<Adopted>,
    },
    /// The client hung up: the slot is free at once, and the request is over without an effect.
    Cancel {
        /// Which one.
        request: RequestId,
    },
    /// The first token of the attempt arrived at the gateway.
    Began {
        /// Of which request.
        request: RequestId,
        /// Events of older attempts are ignored.
        attempt: Attempt,
    },
    /// The attempt is over.
    Finished {
        /// Of which request.
        request: RequestId,
        /// Of an older one it counts only that the request is over, where it is: the gateway has said its last word.
        attempt: Attempt,
        /// How it ended.
        outcome: Outcome,
        /// What it took, as the runtime counted.
        usage: Usage,
    },
    /// What a node can run now: a complete list, so a model that is absent is not there. Admits a new node.
    NodeReported {
        /// Who reports.
        node: NodeId,
        /// Its models.
        report: NodeReport,
    },
    /// The node is gone, with all that ran there.
    NodeLost {
        /// Which one.
        node: NodeId,
    },
    /// A draining node gets no new attempts and ends those it has. Outlives the loss of the node.
    NodeDraining {
        /// Which one.
        node: NodeId,
        /// Whether it drains from now on.
        draining: bool,
    },
    /// The answer to [`crate::Effect::Reserve`].
    Reserved {
        /// Its number.
        reservation: ReservationId,
        /// The memory is reserved; otherwise it was refused.
        granted: bool,
    },
    /// The answer to [`crate::Effect::Probe`].
    Probed {
        /// The number of the probe.
        probe: ProbeNumber,
        /// How it ended.
        result: ProbeResult,
    },
    /// How a model wants to be placed.
    Policy {
        /// Which one.
        model: ModelId,
        /// Its policy.
        policy: ModelPolicy,
    },
    /// How much a tenant may have, next to the others.
    Weight {
        /// Which one.
        tenant: TenantId,
        /// In thousandths; 1,000 is the weight of a tenant nobody gave another.
        permille: u32,
    },
    /// A replicated fact, told to a scheduler that begins: what an earlier leader had recorded.
    Recall(Fact),
    /// This scheduler leads from now on, in the place of another one: until `settles_at`, and for [`crate::Limits::settling`] at
    /// most, nothing is sent to a node, since what runs there may not have been told yet. The latest word counts; a time that has
    /// passed ends the pause.
    Lead {
        /// When everybody will have told.
        settles_at: At,
    },
    /// The time of [`crate::Scheduler::next_deadline`] has come.
    Wake,
}

/// An attempt that an earlier leader sent and that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Where.
    pub node: NodeId,
    /// It has had its first token.
    pub began: bool,
}

/// What is known of a request when it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Its number.
    pub request: RequestId,
    /// The model that must answer.
    pub model: ModelId,
    /// Who asks.
    pub tenant: TenantId,
    /// How urgent.
    pub class: Class,
    /// Tokens to prefill.
    pub prompt_tokens: u32,
    /// The most tokens it may generate.
    pub max_tokens: u32,
    /// How many it will generate, where somebody knows; else the predictor is asked.
    pub output_tokens: Option<u32>,
    /// The prompt as a chain of block hashes, each of [`crate::PrefixLimits::block_tokens`] tokens. Empty: nothing to share.
    pub blocks: Arc<[Block]>,
    /// What it belongs to.
    pub session: Option<SessionKey>,
    /// What decides how it may end.
    pub fingerprint: Fingerprint,
    /// When the gateway took it in; counts for its place in the line, kept through every retry.
    pub arrived: At,
    /// When the whole answer is due.
    pub deadline: At,
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A person waits.
    Interactive,
    /// Nobody waits.
    Batch,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is complete.
    Completed,
    /// The gateway had all it needs before the runtime's last word (a stop string). The answer is whole; what it took is known only
    /// as far as the gateway has counted, which is the tokens generated.
    Enough,
    /// The client hung up.
    ClientGone,
    /// The request's own fault: every node would say the same, so it is never retried.
    Rejected,
    /// The runtime's waiting room was full: not a failure.
    Busy,
    /// The gateway has no way to the node, or has it no more, or the node does not hold the model any more. Not a failure either,
    /// since others may reach it and it may hold the model again; but this request tries every other node first.
    NotThere,
    /// It broke.
    Failed(Failure),
}

impl Outcome {
    /// Whether the request is over with it, whatever its node had done by then.
    #[must_use]
    pub const fn ends_the_request(self) -> bool {
        match self {
            Self::Completed | Self::Enough | Self::ClientGone | Self::Rejected => true,
            Self::Busy | Self::NotThere | Self::Failed(_) => false,
        }
    }
}

/// How an attempt broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The stream was reset, or could not be opened.
    Reset,
    /// The runtime's process ended.
    RuntimeExit,
    /// The runtime made no progress and was killed.
    Hang,
    /// What arrived was no frame.
    Corrupt,
    /// The runtime says that its model call failed.
    Internal,
}

/// What an attempt took; zeros where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens generated.
    pub generated: u32,
    /// Prompt tokens that came out of the prefix cache.
    pub cached_tokens: u32,
    /// From the first prompt token computed to the last.
    pub prefill: Span,
    /// Since its first token: how long its tokens waited for a client that did not read.
    pub held: Span,
}
