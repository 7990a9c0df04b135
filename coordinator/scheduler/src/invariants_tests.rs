//! Each law against a room in which it is broken by hand.

use super::*;
use crate::batcher::Batcher;
use crate::blame::Isolation;
use crate::command::{Command, Submission};
use crate::effect::Affinity;
use crate::fairness::Turns;
use crate::ids::{Attempt, TenantId};
use crate::ledger::Booking;
use crate::limits::Limits;
use crate::report::{Measured, ModelReport, ModelState, NodeReport, Rates};
use crate::requests::tests::{record, submission};
use crate::time::{At, Span};

const NODE: NodeId = NodeId(1);
const MODEL: ModelId = ModelId(1);
const LANE: Lane = (NODE, MODEL);

/// One node with one slot: request 1 runs, request 2 waits.
fn room() -> Scheduler {
    let mut scheduler = Scheduler::new(Limits { waiting_max: 1, ..Limits::default() });
    let mut effects = Vec::new();
    scheduler.apply(At(0), holds(NODE), &mut effects);
    scheduler.apply(At(1), Command::Submit(submission(1)), &mut effects);
    scheduler.apply(At(1), Command::Submit(submission(2)), &mut effects);
    assert_eq!(check(&scheduler, &effects), Ok(()));
    scheduler
}

fn holds(node: NodeId) -> Command {
    let model = ModelReport {
        model: MODEL,
        state: ModelState::Ready,
        slots: 1,
        kv_tokens: 1_000,
        prefix_tokens: 0,
        bytes: 0,
        rates: Rates { prefill_tokens_per_s: 100.0, step_ms: 20.0, batch_slope: 0.3 },
        measured: Measured::default(),
    };
    Command::NodeReported { node, report: NodeReport { models: vec![model], ..NodeReport::default() } }
}

fn booking(request: u64, kv_tokens: u32) -> Booking {
    Booking {
        request: RequestId(request),
        prefill: Span(1),
        kv_tokens,
        ends: At(9),
        isolation: Isolation::None,
    }
}

fn dispatch() -> Effect {
    Effect::Dispatch {
        request: RequestId(1),
        attempt: Attempt(1),
        node: NODE,
        affinity: Affinity::Resident,
        prefill_chunk: 512,
    }
}

#[test]
fn an_attempt_too_many_is_noticed() {
    let mut scheduler = room();
    scheduler.ledger.start(LANE, booking(3, 1), At(1));
    let broken = Err(Broken::SlotOverLimit { node: NODE, model: MODEL });
    assert_eq!(no_slot_over_limit(&scheduler, &[dispatch()]), broken);
    assert_eq!(no_slot_over_limit(&scheduler, &[]), Ok(()), "nothing was sent there");
}

#[test]
fn a_dispatch_to_a_drained_node_is_noticed() {
    let mut scheduler = room();
    assert_eq!(no_dispatch_to_the_wrong_node(&scheduler, &[dispatch()]), Ok(()));
    scheduler.fleet.drain(NODE, true, 9);
    assert_eq!(no_dispatch_to_the_wrong_node(&scheduler, &[dispatch()]), Ok(()), "nobody else serves");
    scheduler.apply(At(1), holds(NodeId(2)), &mut Vec::new());
    let broken = Err(Broken::Misdirected { request: RequestId(1), node: NODE });
    assert_eq!(no_dispatch_to_the_wrong_node(&scheduler, &[dispatch()]), broken);
}

#[test]
fn a_dispatch_after_the_deadline_is_noticed() {
    let mut scheduler = room();
    scheduler.now = At(1_000_000_000);
    let broken = Err(Broken::Misdirected { request: RequestId(1), node: NODE });
    assert_eq!(no_dispatch_to_the_wrong_node(&scheduler, &[dispatch()]), broken);
}

#[test]
fn more_tokens_than_a_cache_holds_are_noticed() {
    let mut scheduler = room();
    scheduler.ledger.start(LANE, booking(3, 900), At(1));
    let broken = Err(Broken::KvOverRoom { node: NODE, model: MODEL });
    assert_eq!(no_kv_over_room(&scheduler, &[dispatch()]), broken);
    assert_eq!(no_kv_over_room(&scheduler, &[]), Ok(()), "nothing was sent there");
}

#[test]
fn a_request_that_neither_waits_nor_runs_is_noticed() {
    let mut scheduler = room();
    let place = scheduler.requests.get(RequestId(2)).expect("it waits").place();
    scheduler.queue.remove(MODEL, &place);
    assert_eq!(conservation(&scheduler), Err(Broken::Misplaced { request: RequestId(2) }));
}

#[test]
fn a_request_that_waits_and_runs_is_noticed() {
    let mut scheduler = room();
    let place = scheduler.requests.get(RequestId(1)).expect("it runs").place();
    scheduler.queue.insert(MODEL, &place, Turns(0));
    assert_eq!(conservation(&scheduler), Err(Broken::Misplaced { request: RequestId(1) }));
}

#[test]
fn a_run_that_the_ledger_does_not_know_is_noticed() {
    let mut scheduler = room();
    scheduler.ledger.end(LANE, RequestId(1), At(1));
    assert_eq!(conservation(&scheduler), Err(Broken::Misplaced { request: RequestId(1) }));
}

#[test]
fn a_place_or_a_slot_of_nobody_is_noticed() {
    let mut scheduler = room();
    scheduler.queue.insert(MODEL, &record(submission(9)).place(), Turns(0));
    assert_eq!(conservation(&scheduler), Err(Broken::Stray));
    let mut scheduler = room();
    scheduler.ledger.start(LANE, booking(9, 1), At(1));
    assert_eq!(conservation(&scheduler), Err(Broken::Stray));
}

#[test]
fn a_place_that_is_not_there_is_noticed() {
    let mut scheduler = room();
    assert_eq!(room_is_known(&scheduler), Ok(()));
    scheduler.batcher.carries(LANE, 0);
    assert_eq!(room_is_known(&scheduler), Err(Broken::Stray));
}

#[test]
fn tokens_in_a_cache_that_nobody_needs_are_noticed() {
    let mut scheduler = room();
    assert_eq!(kv_is_conserved(&scheduler), Ok(()));
    scheduler.requests.get_mut(RequestId(1)).expect("it runs").kv_tokens += 1;
    assert_eq!(kv_is_conserved(&scheduler), Err(Broken::Stray));
}

#[test]
fn whatever_is_left_when_nobody_is_alive_is_noticed() {
    let quiet = || {
        let mut scheduler = room();
        for request in [1, 2] {
            scheduler.apply(At(2), Command::Cancel { request: RequestId(request) }, &mut Vec::new());
        }
        assert_eq!(rest(&scheduler), Ok(()));
        scheduler
    };
    let leave: [fn(&mut Scheduler); 6] = [
        |scheduler| scheduler.ledger.start(LANE, booking(9, 1), At(1)),
        |scheduler| scheduler.queue.insert(MODEL, &record(submission(9)).place(), Turns(0)),
        |scheduler| scheduler.fairness.entered(TenantId(1)),
        |scheduler| scheduler.wishes.add(LANE, At(1), RequestId(9)),
        |scheduler| {
            scheduler.ageing.insert((At(1), RequestId(9)));
        },
        |scheduler| scheduler.prompts_done_at = Some(At(1)),
    ];
    for leave in leave {
        let mut scheduler = quiet();
        leave(&mut scheduler);
        assert_eq!(rest(&scheduler), Err(Broken::Stray));
    }
    let mut busy = room();
    busy.ageing.insert((At(1), RequestId(9)));
    assert_eq!(rest(&busy), Ok(()), "somebody is alive");
}

#[test]
fn a_slot_left_idle_is_noticed() {
    let mut scheduler = room();
    let mut batcher = Batcher::default();
    batcher.report(LANE, 2, 0);
    scheduler.batcher = batcher;
    scheduler.ledger.began(LANE, RequestId(1), At(1));
    assert_eq!(work_conservation(&scheduler), Err(Broken::IdleSlot { request: RequestId(2), node: NODE }));
}

#[test]
fn a_newcomer_too_many_is_noticed() {
    let mut scheduler = room();
    scheduler.requests.admit(record(Submission { request: RequestId(3), ..submission(3) }));
    assert_eq!(queue_bound(&scheduler), Err(Broken::QueueOverBound));
}

#[test]
fn a_wake_up_for_nobody_is_noticed() {
    let mut scheduler = room();
    scheduler.holding.insert((At(5), RequestId(1)));
    assert_eq!(wake_ups(&scheduler), Err(Broken::WakeUps));
}
