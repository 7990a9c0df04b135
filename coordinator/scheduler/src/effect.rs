//! What the scheduler wants done: one variant per order. Owns the shape of the orders; refuses to carry them out.

use crate::breaker::ProbeNumber;
use crate::fact::Fact;
use crate::ids::{Attempt, ModelId, NodeId, RequestId};
use crate::residency::{ReservationId, WhyNot};
use crate::time::Span;

/// An order to the shell. Effects of one command are to be carried out in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a stream to the node and run the request there. Every older attempt of the request is void.
    Dispatch {
        /// Which request.
        request: RequestId,
        /// 1 for the first dispatch, then one more each time.
        attempt: Attempt,
        /// Where.
        node: NodeId,
        /// What drew it there.
        affinity: Affinity,
        /// Prompt tokens that the runtime is to compute between two decode steps from now on.
        prefill_chunk: u32,
    },
    /// It waits: sent once when a request enters the queue and cannot start at once, at its arrival and again after an
    /// attempt that came to nothing (which is void then). How it moves on is in [`crate::Scheduler::position`].
    Queued {
        /// Which request.
        request: RequestId,
        /// About how many wait before it for the same model.
        position: u32,
        /// When it will probably start; `None` while no node can serve the model and none will soon.
        eta: Option<Span>,
        /// No node holds the model: it is loaded first.
        loading: bool,
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
    /// Propose to the registry that this node holds this model, in so much of its memory. The answer is
    /// [`crate::Command::Reserved`]; only a granted reservation loads anything.
    Reserve {
        /// Its number.
        reservation: ReservationId,
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
        /// How much.
        bytes: u64,
    },
    /// Propose to the registry that this node need not hold this model any more. What runs there may end; nothing new is sent.
    Evict {
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
    },
    /// Run the canary there and tell how it went with [`crate::Command::Probed`].
    Probe {
        /// Its number.
        probe: ProbeNumber,
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
    },
    /// Keep this among the replicated facts; a later leader is told by [`crate::Command::Recall`].
    Record(Fact),
}

/// What drew a request to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Affinity {
    /// Part of its prompt is in the node's prefix cache.
    Prefix,
    /// Its session ran there before.
    Session,
    /// Nothing but that the node holds the model.
    Resident,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room in the queue.
    QueueFull {
        /// When to come back, from the rate at which the queue drains.
        retry_after: Span,
    },
    /// Batch work has to give way to interactive work.
    Shed {
        /// When to come back.
        retry_after: Span,
    },
    /// It would pass its deadline before its first token.
    DeadlineUnreachable {
        /// The time to the first token.
        needed: Span,
    },
    /// Its deadline passed while it waited.
    Expired,
    /// Every allowed attempt failed.
    NodeLost,
    /// The number belongs to a request that is alive. This second submission is refused; the first one goes on.
    Duplicate,
    /// It brought down two runtimes.
    Quarantined,
    /// No node can come to hold its model.
    NoCapacity(WhyNot),
}

/// Why a running stream must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The deadline passed.
    DeadlineExceeded,
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
    /// A breaker's time is over, or that of a probe.
    Breaker {
        /// On which node.
        node: NodeId,
        /// For which model.
        model: ModelId,
    },
    /// A node will soon be done with the prompts that were sent there.
    PromptsDone,
    /// A request has held back long enough.
    HoldOver {
        /// Which one.
        request: RequestId,
    },
    /// Batch work has waited so long that it counts as interactive.
    Aged {
        /// Which request.
        request: RequestId,
    },
    /// It is time to look again at which model is where.
    Plan,
    /// A new leader will have been told what runs.
    Settled,
}
