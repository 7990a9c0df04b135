//! What an ending does to whom: breakers, charges and the retry budget, seen through the whole machine.

use super::rig_tests::{NOTHING, Room, worded};
use crate::breaker::{ProbeNumber, ProbeResult};
use crate::command::{Command, Failure, Outcome, Usage};
use crate::effect::Effect;
use crate::ids::{Attempt, RequestId};
use crate::limits::{Limits, RetryLimits};
use crate::time::Span;

/// Node 1, whose runtime hung under request 1, and whose canary has passed.
fn half_open(slots: u32) -> Room {
    let mut room = Room::new();
    room.holds(1, slots);
    room.asks(1);
    room.fails(1, 1, Failure::Hang);
    room.hangs_up(1);
    assert_eq!(room.wait(7_000), ["1 is Probing", "probe 1 on 1"]);
    passes(&mut room);
    room
}

fn passes(room: &mut Room) {
    let passed = Command::Probed { probe: ProbeNumber(1), result: ProbeResult::Passed };
    assert_eq!(room.apply(passed), NOTHING);
}

fn late(room: &mut Room, request: u64) -> Vec<String> {
    assert_eq!(room.asks(request), [format!("{request}.1 on 1")]);
    room.wait(3_000);
    room.begins(request, 1);
    room.completes(request, 1)
}

#[test]
fn a_half_open_runtime_has_one_request_and_only_its_whole_answer_is_a_success() {
    let mut room = half_open(2);
    assert_eq!(room.asks(2), ["2.1 on 1"]);
    assert_eq!(room.asks(3), ["3 waits behind 0"]);
    assert_eq!(room.begins(2, 1), NOTHING, "a first token proves nothing");
    assert_eq!(room.completes(2, 1), ["1 is SlowStart", "3.1 on 1"]);
}

#[test]
fn a_client_that_hangs_up_leaves_the_probe_to_the_next() {
    let mut room = half_open(2);
    assert_eq!(room.asks(2), ["2.1 on 1"]);
    assert_eq!(room.asks(3), ["3 waits behind 0"]);
    assert_eq!(room.hangs_up(2), ["3.1 on 1"]);
}

#[test]
fn what_was_sent_before_a_breaker_opened_does_not_open_it_again() {
    let mut room = Room::new();
    room.holds(1, 2);
    assert_eq!([room.asks(1), room.asks(2)].concat(), ["1.1 on 1", "2.1 on 1"]);
    room.fails(1, 1, Failure::Hang);
    room.hangs_up(1);
    room.wait(7_000);
    passes(&mut room);
    room.asks(3);
    assert_eq!(room.completes(3, 1), ["1 is SlowStart"]);
    let said = room.fails(2, 1, Failure::Reset);
    assert!(!said.iter().any(|said| said.contains("Open")), "{said:?}");
}

#[test]
fn answers_that_come_late_degrade_a_runtime() {
    let mut room = Room::new();
    room.holds(1, 2);
    let said: Vec<String> = (1..=5).flat_map(|request| late(&mut room, request)).collect();
    assert_eq!(said, ["1 is Degraded"]);
}

#[test]
fn lateness_does_not_open_a_runtime_whose_only_replacement_drains() {
    let mut room = Room::new();
    room.holds(1, 2);
    room.holds(2, 2);
    room.drains(2);
    let said: Vec<String> = (1..=15).flat_map(|request| late(&mut room, request)).collect();
    assert_eq!(said, ["1 is Degraded"]);
}

#[test]
fn a_new_leader_trusts_nobody_whom_the_old_one_did_not() {
    let mut old = Room::new();
    old.holds(1, 2);
    old.asks(1);
    let (request, attempt) = (RequestId(1), Attempt(1));
    let hung = Command::Finished {
        request,
        attempt,
        outcome: Outcome::Failed(Failure::Hang),
        usage: Usage::default(),
    };
    let mut effects = Vec::new();
    old.scheduler.apply(old.at, hung, &mut effects);
    let mut new = Room::new();
    for effect in effects {
        if let Effect::Record(fact) = effect {
            new.apply(Command::Recall(fact));
        }
    }
    new.holds(1, 2);
    assert_eq!(new.asks(9), ["9 waits behind 0"]);
    new.holds(2, 2);
    let suspect = worded(1, new.asked(10));
    new.asks(11);
    assert_eq!(new.submits(suspect), ["10 waits behind 0"], "it must run alone");
}

#[test]
fn a_request_that_kills_two_runtimes_alone_is_refused_and_so_is_its_next_submission() {
    let mut room = Room::new();
    (1..=3).for_each(|node| drop(room.holds(node, 2)));
    let poison = worded(7, room.asked(1));
    assert_eq!(room.submits(poison), ["1.1 on 1"]);
    assert_eq!(room.fails(1, 1, Failure::RuntimeExit), ["7 charged: Suspect", "1.2 on 2"]);
    assert_eq!(room.fails(1, 2, Failure::RuntimeExit), ["7 charged: Quarantine", "1 refused: Quarantined"]);
    let again = worded(7, room.asked(2));
    assert_eq!(room.submits(again), ["2 refused: Quarantined"]);
    assert_eq!(room.asks(3), ["3.1 on 1"], "another one runs");
}

#[test]
fn a_request_at_its_second_death_in_company_is_given_up() {
    let mut room = Room::new();
    (1..=3).for_each(|node| drop(room.holds(node, 2)));
    room.asks(1);
    room.fails(1, 1, Failure::RuntimeExit);
    room.begins(1, 2);
    room.drains(1);
    room.drains(3);
    assert_eq!(room.asks(2), ["2.1 on 2"]);
    room.ends(1, 2, Outcome::Failed(Failure::RuntimeExit));
    let again = worded(2, room.asked(3));
    assert_eq!(room.submits(again), ["3 waits behind 0"], "its bystander is a suspect");
}

#[test]
fn a_suspect_waits_for_a_runtime_of_its_own_and_nobody_joins_it_before_its_first_token() {
    let mut room = Room::new();
    room.holds(1, 2);
    room.holds(2, 2);
    assert_eq!([room.asks(1), room.asks(2)].concat(), ["1.1 on 1", "2.1 on 2"]);
    assert_eq!(room.fails(1, 1, Failure::RuntimeExit), ["1 charged: Suspect", "1 waits behind 0"]);
    room.drains(1);
    assert_eq!(room.completes(2, 1), ["1.2 on 2"]);
    assert_eq!(room.asks(3), ["3 waits behind 0"]);
    assert_eq!(room.begins(1, 2), ["3.1 on 2"]);
}

#[test]
fn all_who_were_there_are_charged_with_a_death_and_only_once() {
    let mut room = Room::new();
    room.holds(1, 2);
    room.asks(1);
    room.asks(2);
    let said = room.fails(1, 1, Failure::RuntimeExit);
    assert_eq!(said[..2], ["1 charged: Suspect", "2 charged: Suspect"]);
    let said = room.fails(2, 1, Failure::RuntimeExit);
    assert!(!said.iter().any(|said| said.contains("charged")), "{said:?}");
}

/// Three nodes, and one retry saved up.
fn thrifty(earned_tenths: u32) -> Room {
    let retries = RetryLimits { reserve: 1, earned_tenths, refill_tenth: Span::from_s(1_000) };
    let mut room = Room::with(Limits { retries, ..Limits::default() });
    (1..=3).for_each(|node| drop(room.holds(node, 2)));
    room
}

#[test]
fn when_the_retry_budget_is_used_up_a_failure_is_the_last() {
    let mut room = thrifty(0);
    assert_eq!([room.asks(1), room.asks(2)].concat(), ["1.1 on 1", "2.1 on 2"]);
    assert_eq!(room.fails(1, 1, Failure::Reset), ["1.2 on 3"]);
    assert_eq!(room.fails(2, 1, Failure::Reset), ["2 refused: NodeLost"]);
}

#[test]
fn first_dispatches_earn_retries_and_second_ones_do_not() {
    let mut room = thrifty(5);
    room.asks(1);
    assert_eq!(room.fails(1, 1, Failure::Reset), ["1.2 on 2"]);
    room.asks(2);
    assert_eq!(room.fails(1, 2, Failure::Reset), ["1 refused: NodeLost"], "half a retry was earned");
    room.asks(3);
    let said = room.fails(2, 1, Failure::Reset);
    assert!(said[0].starts_with("2.2 on"), "{said:?}");
}
