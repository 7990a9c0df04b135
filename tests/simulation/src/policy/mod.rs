//! What a policy hears and what it may order: one interface for the real scheduler and for all it is compared with.
//!
//! Owns the shapes. Refuses knowledge: what is not in an [`Event`] a policy does not know, unless it was built with it.

mod bound;
pub mod rules;
mod seat;

use scheduler::{At, Attempt, ModelId, NodeId, RequestId, Span};

pub use self::bound::Bound;
pub use crate::node::StepSample;
use crate::request::Request;

/// Decides which request runs where, and which model is loaded where.
pub trait Policy {
    /// Hears of one event and appends what is to be done.
    fn decide(&mut self, at: At, event: Event, orders: &mut Vec<Order>);

    /// When it wants to hear [`Event::Wake`].
    fn next_wake(&self) -> Option<At> {
        None
    }
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A request arrives.
    Arrived(Request),
    /// Its first token of this attempt.
    FirstToken {
        /// Of which request.
        request: RequestId,
        /// Of which attempt.
        attempt: Attempt,
        /// Prompt tokens that the prefix cache had.
        cached_tokens: u32,
        /// GPU time of the prefill.
        prefill: Span,
    },
    /// Its last token.
    Finished {
        /// Of which request.
        request: RequestId,
        /// Of which attempt.
        attempt: Attempt,
        /// Tokens of this attempt.
        generated: u32,
        /// Prompt tokens that the prefix cache had.
        cached_tokens: u32,
        /// GPU time of the prefill.
        prefill: Span,
    },
    /// The attempt is over and the request is not.
    Failed {
        /// Of which request.
        request: RequestId,
        /// Of which attempt.
        attempt: Attempt,
        /// How.
        kind: FailureKind,
        /// Tokens of this attempt.
        generated: u32,
        /// Whether the client has tokens, of this attempt or an older one.
        began: bool,
    },
    /// What a node says of itself.
    NodeReport {
        /// Which one.
        node: NodeId,
        /// What it says.
        report: NodeReport,
    },
    /// A node is gone with all that ran there.
    NodeLost {
        /// Which one.
        node: NodeId,
    },
    /// A canary has been answered, or not.
    ProbeDone {
        /// On which node.
        node: NodeId,
        /// By which model.
        model: ModelId,
        /// What came back.
        answer: Canary,
        /// How long it took.
        took: Span,
    },
    /// The time of [`Policy::next_wake`].
    Wake,
}

/// What a canary came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// The known answer.
    Right,
    /// Another answer.
    Wrong,
    /// No answer.
    Silent,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The runtime takes nothing now.
    Busy,
    /// The model is not there.
    NotResident,
    /// The runtime died.
    Crashed,
    /// The runtime was killed since it made no progress.
    Hung,
    /// The node was lost.
    NodeLost,
}

/// A node's complete list of models, with what it has measured since its last report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReport {
    /// One entry for each model that is resident or on its way.
    pub models: Vec<ModelReport>,
    /// Loads that came to nothing since the last report.
    pub failed_loads: Vec<ModelId>,
}

/// One model of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReport {
    /// Which one.
    pub model: ModelId,
    /// Whether it serves.
    pub state: ModelState,
    /// Sequences it takes at once.
    pub slots: u32,
    /// Decode steps since the last report.
    pub samples: Vec<StepSample>,
    /// How long its load took, once it has ended.
    pub loaded_in: Option<Span>,
}

/// Whether a model serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// It will, once it is loaded.
    Loading,
    /// It does.
    Ready,
    /// It leaves when its last row has ended.
    Leaving,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run the request there. Every older attempt is void.
    Run {
        /// Which request.
        request: RequestId,
        /// Where.
        node: NodeId,
        /// One more than the one before.
        attempt: Attempt,
        /// Prompt tokens that its runtime reads between two decode steps from now on; as before when it is absent.
        prefill_chunk: Option<u32>,
    },
    /// Stop what runs, if anything does; the request waits.
    Recall {
        /// Which request.
        request: RequestId,
    },
    /// The request will not run, or not be finished.
    Refuse {
        /// Which request.
        request: RequestId,
    },
    /// Stop what runs; the request is over.
    Abort {
        /// Which request.
        request: RequestId,
    },
    /// Load the model, once there is memory.
    Load {
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
    },
    /// Let the model go, once what it runs has ended.
    Unload {
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
    },
    /// Send a canary.
    Probe {
        /// Where.
        node: NodeId,
        /// To which model.
        model: ModelId,
    },
}
