//! A request as it arrives, with what only the simulator may know, and the workload that holds them all.
//!
//! Owns the chains of prompt blocks in one long list, since the turns of a conversation share theirs. Refuses text: a prompt
//! is a length and its blocks.

use scheduler::{At, Block, Class, ModelId, RequestId, SessionKey, TenantId};

/// Tokens in one block of a prompt.
pub const BLOCK_TOKENS: u32 = 256;

/// A request. Its number is its index in the workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// When it arrives.
    pub arrived: At,
    /// Who asks.
    pub tenant: TenantId,
    /// How urgent.
    pub class: Class,
    /// Which model must answer.
    pub model: ModelId,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// The most tokens it may generate.
    pub max_tokens: u32,
    /// When the whole answer is due.
    pub deadline: At,
    /// The conversation it belongs to.
    pub session: SessionKey,
    /// Where its blocks are.
    pub chain: Chain,
    /// What a policy must not look at, unless it is to know everything.
    pub truth: Truth,
}

impl Request {
    /// Tokens it will generate within its bound; at least one.
    #[must_use]
    pub fn output_tokens(&self) -> u32 {
        self.truth.output_tokens.min(self.max_tokens).max(1)
    }
}

/// What becomes of a request once it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Tokens it will generate.
    pub output_tokens: u32,
    /// Whether it kills the runtime that prefills it.
    pub poison: bool,
}

/// A stretch of the workload's list of blocks: those of the prompt, then those that the answer fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The first block.
    pub start: u32,
    /// Whole blocks of the prompt.
    pub prompt: u32,
    /// Whole blocks of prompt and answer.
    pub whole: u32,
}

/// Requests in order of arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// The requests.
    pub requests: Vec<Request>,
    /// What their chains point into.
    pub blocks: Vec<Block>,
}

impl Workload {
    /// The blocks of a prompt.
    #[must_use]
    pub fn prompt(&self, chain: Chain) -> &[Block] {
        self.stretch(chain.start, chain.prompt)
    }

    /// The blocks of a prompt and its answer.
    #[must_use]
    pub fn whole(&self, chain: Chain) -> &[Block] {
        self.stretch(chain.start, chain.whole)
    }

    /// The request of that number.
    #[must_use]
    pub fn request(&self, id: RequestId) -> &Request {
        &self.requests[id.0 as usize]
    }

    /// Puts the requests in order of arrival and numbers them.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.requests.sort_by_key(|request| request.arrived);
        for (number, request) in self.requests.iter_mut().enumerate() {
            request.id = RequestId(number as u64);
        }
        self
    }

    /// Stretches the time between arrivals, and what is left until the deadlines stays.
    #[must_use]
    pub fn stretched(mut self, factor: f64) -> Self {
        for request in &mut self.requests {
            let left = request.deadline.since(request.arrived);
            request.arrived = At((request.arrived.0 as f64 * factor) as u64);
            request.deadline = request.arrived + left;
        }
        self
    }

    /// The time of the last arrival, in seconds.
    #[must_use]
    pub fn span_s(&self) -> f64 {
        self.requests.last().map_or(0.0, |request| request.arrived.0 as f64 / 1e6)
    }

    fn stretch(&self, start: u32, length: u32) -> &[Block] {
        &self.blocks[start as usize..(start + length) as usize]
    }
}
