//! What the scheduler wants done: one variant per order. Owns the shape of the orders; refuses to carry them out.

use crate::ids::{Attempt, ModelId, NodeId, RequestId};
use crate::time::Span;

/// An order to the shell. Effects of one command are to be carried out in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a stream to the node and run the request there. Every older attempt of the request is void.
    Dispatch {
        /// Which request.
        request: RequestId,
        /// 1 for the first dispatch, then one more each time.
        attempt: Attempt,
        /// Where.
        node: NodeId,
    },
    /// It waits: sent once when a request enters the queue and cannot start at once, at its arrival and again after an
    /// attempt that came to nothing (which is void then). How it moves on is in [`crate::Scheduler::position`].
    Queued {
        /// Which request.
        request: RequestId,
        /// How many wait before it for the same model.
        position: u32,
        /// When it will probably start; `None` while no node holds the model.
        eta: Option<Span>,
    },
    /// Terminal: it will not run.
    Refuse {
        /// Which request.
        request: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// Terminal: stop the running stream.
    Abort {
        /// Which request.
        request: RequestId,
        /// The attempt that runs.
        attempt: Attempt,
        /// Where it runs.
        node: NodeId,
        /// Why.
        reason: AbortReason,
    },
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room in the queue.
    QueueFull {
        /// When to come back, from the rate at which the queue drains.
        retry_after: Span,
    },
    /// The fastest node that holds the model, idle, would pass the deadline before the first token.
    DeadlineUnreachable {
        /// The time to the first token there.
        needed: Span,
    },
    /// Its deadline passed while it waited.
    Expired,
    /// Every allowed attempt failed before the first token.
    NodeLost,
    /// The number belongs to a request that is alive. This second submission is refused; the first one goes on.
    Duplicate,
}

/// Why a running stream must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The deadline passed.
    DeadlineExceeded,
    /// The node was lost after the first token.
    NodeLost,
}

/// Why the scheduler wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The deadline of a request.
    Deadline {
        /// Whose.
        request: RequestId,
    },
    /// A runtime that said "busy" may be tried again.
    PauseOver {
        /// On which node.
        node: NodeId,
        /// For which model.
        model: ModelId,
    },
}
