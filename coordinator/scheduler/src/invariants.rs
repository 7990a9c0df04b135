//! What is true after every command: one function per law.
//!
//! Owns the laws, for tests, simulators and debug builds alike; [`check`] tries them all. Refuses to mend: a broken law is a
//! fault of this crate. Laws over a whole history are in [`crate::witness`].

use alloc::vec::Vec;

use crate::effect::Effect;
use crate::ids::{ModelId, NodeId, RequestId};
use crate::machine::Scheduler;
use crate::requests::Record;

/// A law that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// An attempt was sent to a runtime that already had as many as it takes.
    SlotOverLimit {
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
    },
    /// A request is neither waiting nor running, or both, or counted wrongly.
    Misplaced {
        /// Which one.
        request: RequestId,
    },
    /// Something is counted that belongs to no request.
    Stray,
    /// A request waits although a node is open for it.
    IdleSlot {
        /// Which one.
        request: RequestId,
        /// The open node.
        node: NodeId,
    },
    /// More newcomers wait than the queue holds.
    QueueOverBound,
    /// An attempt number did not grow by one.
    AttemptOutOfOrder {
        /// Of which request.
        request: RequestId,
    },
    /// A request has an effect after its end, or its state and its effects disagree.
    Unaccounted {
        /// Which one.
        request: RequestId,
    },
}

/// All laws about a state, and the effects of the command that led to it.
///
/// # Errors
/// The first law that does not hold.
pub fn check(scheduler: &Scheduler, effects: &[Effect]) -> Result<(), Broken> {
    no_slot_over_limit(scheduler, effects)?;
    conservation(scheduler)?;
    work_conservation(scheduler)?;
    queue_bound(scheduler)
}

#[cfg(debug_assertions)]
pub(crate) fn checked_in_debug(scheduler: &Scheduler, effects: &[Effect]) -> Result<(), Broken> {
    let small = scheduler.requests.iter().nth(crate::limits::CHECKED_REQUESTS_MAX).is_none();
    if small { check(scheduler, effects) } else { Ok(()) }
}

/// A runtime that was sent something has no more in flight than its limit. (Without a dispatch it may: a limit can shrink
/// below what already runs.)
///
/// # Errors
/// [`Broken::SlotOverLimit`].
pub fn no_slot_over_limit(scheduler: &Scheduler, effects: &[Effect]) -> Result<(), Broken> {
    for effect in effects {
        let Effect::Dispatch { request, node, .. } = effect else { continue };
        let Some(record) = scheduler.requests.get(*request) else { continue };
        let model = record.submission.model;
        if scheduler.ledger.on_lane((*node, model)) > scheduler.batcher.limit((*node, model)) {
            return Err(Broken::SlotOverLimit { node: *node, model });
        }
    }
    Ok(())
}

/// Every live request either waits in its model's line or is in flight on one node, and nothing else is counted anywhere.
///
/// # Errors
/// [`Broken::Misplaced`] or [`Broken::Stray`].
pub fn conservation(scheduler: &Scheduler) -> Result<(), Broken> {
    let (mut waiting, mut running) = (0_usize, 0_usize);
    for record in scheduler.requests.iter() {
        let (model, request) = (record.submission.model, record.submission.request);
        let waits = scheduler.queue.contains(model, record.place());
        let runs = record.run.is_some_and(|run| scheduler.ledger.contains((run.node, model), request));
        if waits == runs || record.run.is_some() != runs {
            return Err(Broken::Misplaced { request });
        }
        waiting += usize::from(waits);
        running += usize::from(runs);
    }
    let counted: usize = scheduler.ledger.lanes().map(|(_, running)| running).sum();
    let in_lines: usize = scheduler.queue.lengths().map(|(_, waiting)| waiting).sum();
    let whole = counted == running && in_lines == waiting && scheduler.queue.waiting() == waiting;
    if whole { Ok(()) } else { Err(Broken::Stray) }
}

/// No request waits that an open node could serve.
///
/// # Errors
/// [`Broken::IdleSlot`].
pub fn work_conservation(scheduler: &Scheduler) -> Result<(), Broken> {
    let waiting: Vec<&Record> = scheduler.requests.iter().filter(|record| record.run.is_none()).collect();
    for record in waiting {
        let candidates = scheduler.candidates(&record.submission, &record.failures);
        if let Some(open) = candidates.iter().find(|candidate| candidate.gate.is_none()) {
            return Err(Broken::IdleSlot { request: record.submission.request, node: open.node });
        }
    }
    Ok(())
}

/// The newcomers that wait fit the queue. (A request that was accepted once comes back even when others have taken its room.)
///
/// # Errors
/// [`Broken::QueueOverBound`].
pub fn queue_bound(scheduler: &Scheduler) -> Result<(), Broken> {
    let newcomers =
        scheduler.requests.iter().filter(|record| record.run.is_none() && record.attempt.0 == 0).count();
    if newcomers <= scheduler.limits.waiting_max { Ok(()) } else { Err(Broken::QueueOverBound) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Class, Command, ModelReport, NodeReport, Rates, Submission};
    use crate::ids::{Attempt, TenantId};
    use crate::limits::Limits;
    use crate::queue::Place;
    use crate::time::{At, Span};

    const NODE: NodeId = NodeId(1);
    const MODEL: ModelId = ModelId(1);

    fn submission(request: u64) -> Submission {
        Submission {
            request: RequestId(request),
            model: MODEL,
            tenant: TenantId(1),
            class: Class::Interactive,
            prompt_tokens: 100,
            max_tokens: 100,
            arrived: At(1),
            deadline: At(1_000_000_000),
        }
    }

    fn place(request: u64) -> Place {
        Place { arrived: At(1), request: RequestId(request) }
    }

    /// One node with one slot: request 1 runs, request 2 waits.
    fn room() -> Scheduler {
        let mut scheduler = Scheduler::new(Limits { waiting_max: 1, ..Limits::default() });
        let rates = Rates { prefill_tokens_per_s: 100.0, step_ms: 20.0, batch_slope: 0.3 };
        let report = NodeReport { models: vec![ModelReport { model: MODEL, slots: 1, rates }] };
        let mut effects = Vec::new();
        scheduler.apply(At(0), Command::NodeReported { node: NODE, report }, &mut effects);
        scheduler.apply(At(1), Command::Submit(submission(1)), &mut effects);
        scheduler.apply(At(1), Command::Submit(submission(2)), &mut effects);
        assert_eq!(check(&scheduler, &effects), Ok(()));
        scheduler
    }

    #[test]
    fn an_attempt_too_many_is_noticed() {
        let mut scheduler = room();
        scheduler.ledger.start((NODE, MODEL), RequestId(3), Span(1), At(1));
        let dispatch = Effect::Dispatch { request: RequestId(1), attempt: Attempt(1), node: NODE };
        let broken = Err(Broken::SlotOverLimit { node: NODE, model: MODEL });
        assert_eq!(no_slot_over_limit(&scheduler, &[dispatch]), broken);
        assert_eq!(no_slot_over_limit(&scheduler, &[]), Ok(()), "nothing was sent there");
    }

    #[test]
    fn a_request_that_neither_waits_nor_runs_is_noticed() {
        let mut scheduler = room();
        scheduler.queue.remove(MODEL, place(2));
        assert_eq!(conservation(&scheduler), Err(Broken::Misplaced { request: RequestId(2) }));
    }

    #[test]
    fn a_request_that_waits_and_runs_is_noticed() {
        let mut scheduler = room();
        scheduler.queue.insert(MODEL, place(1), false);
        assert_eq!(conservation(&scheduler), Err(Broken::Misplaced { request: RequestId(1) }));
    }

    #[test]
    fn a_run_that_the_ledger_does_not_know_is_noticed() {
        let mut scheduler = room();
        scheduler.ledger.end((NODE, MODEL), RequestId(1), At(1));
        assert_eq!(conservation(&scheduler), Err(Broken::Misplaced { request: RequestId(1) }));
    }

    #[test]
    fn a_place_or_a_slot_of_nobody_is_noticed() {
        let mut scheduler = room();
        scheduler.queue.insert(MODEL, place(9), false);
        assert_eq!(conservation(&scheduler), Err(Broken::Stray));
        let mut scheduler = room();
        scheduler.ledger.start((NODE, MODEL), RequestId(9), Span(1), At(1));
        assert_eq!(conservation(&scheduler), Err(Broken::Stray));
    }

    #[test]
    fn a_slot_left_idle_is_noticed() {
        let mut scheduler = room();
        scheduler.batcher.report((NODE, MODEL), 2);
        assert_eq!(
            work_conservation(&scheduler),
            Err(Broken::IdleSlot { request: RequestId(2), node: NODE })
        );
    }

    #[test]
    fn a_newcomer_too_many_is_noticed() {
        let mut scheduler = room();
        scheduler.requests.admit(submission(3));
        assert_eq!(queue_bound(&scheduler), Err(Broken::QueueOverBound));
    }
}
