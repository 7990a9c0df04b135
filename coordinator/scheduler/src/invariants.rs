//! What is true after every command: one function per law.
//!
//! Owns the laws, for tests, simulators and debug builds alike; [`check`] tries them all. Refuses to mend: a broken law is a
//! fault of this crate. Laws over a whole history are in [`crate::witness`].

use crate::effect::Effect;
use crate::ids::{Lane, ModelId, NodeId, RequestId};
use crate::machine::Scheduler;
use crate::placement::{self, Choice};
use crate::time::Span;

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
    /// A request was sent to a node that must not have it.
    Misdirected {
        /// Which one.
        request: RequestId,
        /// The node.
        node: NodeId,
    },
    /// More tokens are reserved on a runtime than its KV cache holds.
    KvOverRoom {
        /// Where.
        node: NodeId,
        /// Which model.
        model: ModelId,
    },
    /// Breakers trust somebody they must not, or probe two at once.
    Breakers,
    /// More memory is promised than a node has, or a pinned model was given up.
    Homes,
    /// A wake-up belongs to nobody, or somebody's is missing.
    WakeUps,
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
    no_dispatch_to_the_wrong_node(scheduler, effects)?;
    no_kv_over_room(scheduler, effects)?;
    conservation(scheduler)?;
    room_is_known(scheduler)?;
    kv_is_conserved(scheduler)?;
    rest(scheduler)?;
    work_conservation(scheduler)?;
    queue_bound(scheduler)?;
    trust(scheduler)?;
    wake_ups(scheduler)
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
        let waits = scheduler.queue.contains(model, &record.place());
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

/// The runtimes with room are those of the model's holders that carry less than their limits.
///
/// # Errors
/// [`Broken::Stray`].
pub fn room_is_known(scheduler: &Scheduler) -> Result<(), Broken> {
    for (model, _) in scheduler.queue.lengths() {
        let lanes = scheduler.fleet.holders(model).map(|node| (node, model));
        let with_room = lanes.filter(|lane| scheduler.ledger.on_lane(*lane) < scheduler.batcher.limit(*lane));
        if !with_room.map(|(node, _)| node).eq(scheduler.batcher.with_room(model)) {
            return Err(Broken::Stray);
        }
    }
    Ok(())
}

/// What is reserved in the KV cache of a runtime is what those who run there need, and nothing of others.
///
/// # Errors
/// [`Broken::Stray`].
pub fn kv_is_conserved(scheduler: &Scheduler) -> Result<(), Broken> {
    for (lane, _) in scheduler.ledger.lanes() {
        let running = scheduler.ledger.requests_on_lane(lane).into_iter();
        let needed =
            running.filter_map(|request| scheduler.requests.get(request)).map(|record| record.kv_tokens);
        if needed.fold(0, u32::saturating_add) != scheduler.ledger.kv_tokens(lane) {
            return Err(Broken::Stray);
        }
    }
    Ok(())
}

/// When no request is alive nothing is left of any: no slot, no token of a KV cache, no prefill ahead, no work in line, no tenant
/// that counts as active, no wake-up.
///
/// # Errors
/// [`Broken::Stray`].
pub fn rest(scheduler: &Scheduler) -> Result<(), Broken> {
    if scheduler.requests.iter().next().is_some() {
        return Ok(());
    }
    let no_work = scheduler.queue.work() == Span::ZERO && scheduler.queue.tenants() == 0;
    let no_wake_up = scheduler.ageing.is_empty()
        && scheduler.holding.is_empty()
        && scheduler.wishes.all().next().is_none()
        && scheduler.prompts_done_at.is_none()
        && scheduler.requests.first_deadline().is_none();
    let at_rest = no_work && no_wake_up && scheduler.ledger.is_empty() && scheduler.fairness.active() == 0;
    if at_rest { Ok(()) } else { Err(Broken::Stray) }
}

/// Nothing is sent to a node that drains while another serves, whose breaker is open or whose model is leaving, nor after its deadline.
///
/// # Errors
/// [`Broken::Misdirected`].
pub fn no_dispatch_to_the_wrong_node(scheduler: &Scheduler, effects: &[Effect]) -> Result<(), Broken> {
    for effect in effects {
        let Effect::Dispatch { request, node, .. } = effect else { continue };
        let Some(record) = scheduler.requests.get(*request) else { continue };
        let lane: Lane = (*node, record.submission.model);
        let shut = scheduler.is_drained(lane) || scheduler.residency.is_leaving(lane);
        let late = record.submission.deadline <= scheduler.now;
        let condemned = scheduler.is_quarantined(&record.submission);
        if shut || late || condemned {
            return Err(Broken::Misdirected { request: *request, node: *node });
        }
    }
    Ok(())
}

/// A runtime that was sent something has room for it in its KV cache, unless it runs nothing else. (Without a dispatch it may
/// not: a report can say that the room is smaller.)
///
/// # Errors
/// [`Broken::KvOverRoom`].
pub fn no_kv_over_room(scheduler: &Scheduler, effects: &[Effect]) -> Result<(), Broken> {
    for effect in effects {
        let Effect::Dispatch { request, node, .. } = effect else { continue };
        let Some(record) = scheduler.requests.get(*request) else { continue };
        let lane = (*node, record.submission.model);
        let (room, reserved) = (scheduler.fleet.kv_tokens(lane), scheduler.ledger.kv_tokens(lane));
        if room > 0 && scheduler.ledger.on_lane(lane) > 1 && reserved > room {
            return Err(Broken::KvOverRoom { node: lane.0, model: lane.1 });
        }
    }
    Ok(())
}

/// No request among the first of its line waits that does best to start now.
///
/// # Errors
/// [`Broken::IdleSlot`].
pub fn work_conservation(scheduler: &Scheduler) -> Result<(), Broken> {
    for (model, _) in scheduler.queue.lengths() {
        let sites = scheduler.sites(model);
        for request in scheduler.queue.window(model, scheduler.window(sites.len())) {
            let record = scheduler.requests.get(request).filter(|record| scheduler.may_start(record));
            let Some(record) = record else { continue };
            let candidates = scheduler.candidates(record, &sites);
            if let Choice::Start(open) = placement::choose(&scheduler.ask(record), &candidates) {
                return Err(Broken::IdleSlot { request, node: open.node });
            }
        }
    }
    Ok(())
}

/// Breakers and reservations keep their own laws.
///
/// # Errors
/// [`Broken::Breakers`] or [`Broken::Homes`].
pub fn trust(scheduler: &Scheduler) -> Result<(), Broken> {
    scheduler.breakers.check(&scheduler.limits.breaker).map_err(|_| Broken::Breakers)?;
    scheduler.residency.check().map_err(|_| Broken::Homes)
}

/// Every wake-up that is asked for belongs to a request that waits.
///
/// # Errors
/// [`Broken::WakeUps`].
pub fn wake_ups(scheduler: &Scheduler) -> Result<(), Broken> {
    let waits =
        |request: &RequestId| scheduler.requests.get(*request).is_some_and(|record| record.run.is_none());
    let mut all = scheduler
        .ageing
        .iter()
        .chain(&scheduler.holding)
        .map(|(_, request)| *request)
        .chain(scheduler.wishes.all());
    if all.all(|request| waits(&request)) { Ok(()) } else { Err(Broken::WakeUps) }
}

/// The newcomers that wait fit the queue. (A request that was accepted once comes back even when others have taken its room.)
///
/// # Errors
/// [`Broken::QueueOverBound`].
pub fn queue_bound(scheduler: &Scheduler) -> Result<(), Broken> {
    let newcomers =
        scheduler.requests.iter().filter(|record| record.run.is_none() && record.is_newcomer()).count();
    if newcomers <= scheduler.limits.waiting_max { Ok(()) } else { Err(Broken::QueueOverBound) }
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
