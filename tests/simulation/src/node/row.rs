//! One request in a runtime, and what a runtime says about it.
//!
//! Owns the shapes of a row through its life: waiting, in prefill, decoding; and the notices that leave a node. Refuses
//! behaviour.

use scheduler::{Attempt, ModelId, RequestId};

use crate::request::Chain;

/// A request as a runtime gets it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) request: RequestId,
    pub(crate) attempt: Attempt,
    /// Tokens to prefill: the prompt, and what earlier attempts have generated.
    pub(crate) prompt: u32,
    /// Tokens it will generate here.
    pub(crate) output: u32,
    /// Tokens of KV memory that are set aside for it.
    pub(crate) reserve: u32,
    pub(crate) chain: Chain,
    /// How much slower than the mean its work is.
    pub(crate) noise: f64,
    pub(crate) poison: bool,
    /// What its runtime reads between two decode steps from its coming on.
    pub(crate) chunk: Option<u32>,
}

/// A row whose prompt is being read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefill {
    pub(crate) row: Row,
    pub(crate) cached: u32,
    /// Tokens still to be read.
    pub(crate) left: u32,
    /// Tokens read or cached.
    pub(crate) context: u32,
    pub(crate) started: bool,
    /// GPU seconds so far.
    pub(crate) spent_s: f64,
}

/// A row that gets a token with each step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decode {
    pub(crate) row: Row,
    /// The lane's count of steps at which its last token comes.
    pub(crate) ends: u64,
    /// The lane's share per row when it joined.
    pub(crate) joined_s: f64,
    pub(crate) prefill_s: f64,
}

/// What a node lets the outside know at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Notice {
    /// The first token.
    Began { request: RequestId, attempt: Attempt, cached: u32, prefill_s: f64 },
    /// The last token.
    Ended { request: RequestId, attempt: Attempt, generated: u32, prefill_s: f64, gpu_s: f64 },
    /// The row is gone.
    Dropped { request: RequestId, attempt: Attempt, generated: u32, gpu_s: f64 },
    /// A request has killed its runtime.
    Poisoned { model: ModelId },
}
