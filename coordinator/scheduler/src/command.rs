//! What the shell may tell the scheduler: one variant per fact. Owns the shape of the facts; refuses meaning, which is
//! `machine`'s. No prompt, no token and no name is in here.

use alloc::vec::Vec;

use crate::ids::{Attempt, ModelId, NodeId, RequestId, TenantId};
use crate::time::At;

/// A fact. Facts about requests, attempts or nodes that the scheduler does not know are ignored.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A client wants an answer.
    Submit(Submission),
    /// The client hung up, or the gateway has all it needs (a stop string): the slot is free at once, and the request is
    /// over without an effect.
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
        /// Events of older attempts are ignored.
        attempt: Attempt,
        /// How it ended.
        outcome: Outcome,
        /// Tokens generated, for the prediction of the next answers.
        generated: u32,
    },
    /// What a node can run now: a complete list, so a model that is absent is not resident. Admits a new node.
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
    /// The time of [`crate::Scheduler::next_deadline`] has come.
    Wake,
}

/// What is known of a request when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// When the gateway took it in; its place in the line, kept through every retry.
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
    /// The client hung up.
    ClientGone,
    /// The request's own fault: every node would say the same, so it is never retried.
    Rejected,
    /// The runtime's waiting room was full, or it does not hold the model any more: not a failure.
    Busy,
    /// Reset, exit, hang, node lost.
    Failed,
}

/// All the models a node can run now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReport {
    /// One entry per model; of two entries for one model the first counts.
    pub models: Vec<ModelReport>,
}

/// One model on one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelReport {
    /// Which one.
    pub model: ModelId,
    /// Sequences the runtime takes at once.
    pub slots: u32,
    /// How fast it is.
    pub rates: Rates,
}

/// How fast a model runs on a node. A value that is not finite or not above zero counts as unknown and is replaced by the
/// one in [`crate::Limits`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Prompt tokens per second when nothing else runs.
    pub prefill_tokens_per_s: f32,
    /// Milliseconds of a decode step with one sequence (t1).
    pub step_ms: f32,
    /// What each further sequence adds to a step, as a share of `step_ms` (beta).
    pub batch_slope: f32,
}
