//! One generation as the gateway sees it: a wish goes in, events come out, dropping it cancels.
//!
//! Owns the vocabulary between the API side, which knows text, and the cluster side, which knows token ids, nodes and
//! attempts. Refuses to know HTTP or tokenizers: everything here is ids, numbers and reasons.

use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use scheduler::Class;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where wishes come true: the cluster, or a script in a test.
pub(crate) trait StartGeneration: Send + Sync {
    /// Begins at once and never blocks; whatever goes wrong is an event.
    fn start(&self, wish: Wish) -> Generation;
}

/// What the gateway wants computed.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) model: String,
    pub(crate) prompt: Vec<u32>,
    /// Tokens of the answer that there are already: it goes on behind them.
    pub(crate) journal: Vec<u32>,
    /// Those of the journal included.
    pub(crate) max_tokens: u32,
    pub(crate) sampling: v1::Sampling,
    pub(crate) stop_ids: Vec<u32>,
    /// `None`: no logprobs. `Some(n)`: the sampled token's and the n best alternatives'.
    pub(crate) top_logprobs: Option<u32>,
    /// After this moment nobody waits for the answer any more.
    pub(crate) deadline: Instant,
    pub(crate) traits: Traits,
}

/// What the scheduler may know of a wish beyond its size: numbers only, keyed so that nobody outside can compute them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Whose token came with it; 0 when none did.
    pub(crate) tenant: u64,
    pub(crate) class: Class,
    /// What the client says belongs together.
    pub(crate) session: Option<u64>,
    /// One hash for each whole block of the prompt and all before it; empty when nothing may be taken from a cache.
    pub(crate) blocks: Arc<[u64]>,
    /// Equal for the same request sent again.
    pub(crate) fingerprint: u64,
    /// Rows of a runtime's prefix cache are shared under one salt only. Empty: neither looked up nor kept.
    pub(crate) cache_salt: String,
}

/// What happens to a wish, in order; `Finished` or `Failed` is the last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// It waits: so many requests are ahead of it. Again whenever that changes.
    Queued {
        ahead: u32,
        eta: Option<Duration>,
        /// What it waits for is its model, which is on the way into a node's memory.
        loading: bool,
    },
    /// A node has it; again when a node failed before the first token.
    Dispatched {
        node: u64,
        attempt: u32,
        /// What drew it there: `prefix`, `session`, `resident` or `cold`.
        affinity: Option<&'static str>,
    },
    /// New tokens; `logprobs` is empty or has one entry for each id.
    Tokens {
        ids: Vec<u32>,
        logprobs: Vec<v1::TokenLogprobs>,
    },
    Finished {
        reason: FinishReason,
        usage: v1::AttemptUsage,
    },
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// The model ended its answer (or hit a stop id).
    Stop,
    /// `max_tokens` were generated.
    Length,
}

/// Why there will be no (whole) answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    QueueFull {
        retry_after: Duration,
    },
    /// Batch work that makes room for people.
    Overloaded {
        retry_after: Duration,
    },
    /// Nothing here can hold the model; `words` say why. `None`: coming back does not help.
    NoCapacity {
        words: String,
        retry_after: Option<Duration>,
    },
    /// It brought down a runtime twice, and is not given a third.
    Quarantined,
    /// It could not be done in the time the client gives it.
    DeadlineUnreachable {
        needed: Duration,
    },
    DeadlineExceeded,
    /// The node died or went silent; `began` = the client already has tokens.
    NodeLost {
        began: bool,
    },
    /// The runtime refused this one request; `code` is one of runtime-frames.md.
    Rejected {
        code: String,
        text: String,
    },
    /// This coordinator is going down.
    ShuttingDown,
}

/// A running generation. Dropping it cancels, as for a client that is gone: the slot is free again before the next decode step.
pub(crate) struct Generation {
    /// The scheduler's number for it.
    pub(crate) request: u64,
    pub(crate) events: mpsc::Receiver<Event>,
    /// The answer is whole although its runtime goes on.
    pub(crate) enough: CancellationToken,
    pub(crate) _cancel: DropGuard,
}

impl Generation {
    /// Ends it as one that has succeeded: the client has all it wants.
    pub(crate) fn suffices(self) {
        self.enough.cancel();
    }
}
