//! What the machine learns of nodes and uses: prefixes, speeds, lengths.

use super::rig_tests::{NOTHING, Room, conversation, lane, model};
use crate::command::{Outcome, Usage};
use crate::report::{Measured, ModelReport, StepSample};

fn caching() -> ModelReport {
    ModelReport { prefix_tokens: 1 << 16, ..model(1, 2) }
}

/// Request 1 has left eight blocks in the cache of node 2; then node 1 comes.
fn cached_on_2() -> Room {
    let mut room = Room::new();
    room.reports(2, vec![caching()]);
    let first = conversation(1, 8, room.asked(1));
    assert_eq!(room.submits(first), ["1.1 on 2"]);
    room.begins(1, 1);
    room.completes(1, 1);
    assert_eq!(room.reports(1, vec![caching()]), NOTHING);
    room
}

#[test]
fn a_conversation_goes_on_where_its_prefix_is() {
    let mut room = cached_on_2();
    let next = conversation(1, 8, room.asked(2));
    assert_eq!(room.submits(next), ["2.1 on 2 for its prefix"]);
    let other = conversation(2, 8, room.asked(3));
    assert_eq!(room.submits(other), ["3.1 on 1"]);
}

#[test]
fn a_runtime_that_was_away_comes_back_without_its_prefixes() {
    let mut room = cached_on_2();
    room.reports(2, vec![]);
    room.reports(2, vec![caching()]);
    let next = conversation(1, 8, room.asked(2));
    assert_eq!(room.submits(next), ["2.1 on 1"]);
}

#[test]
fn what_was_really_cached_is_told_to_the_index() {
    let mut room = cached_on_2();
    let next = conversation(1, 8, room.asked(2));
    room.submits(next);
    room.begins(2, 1);
    room.finishes(
        2,
        1,
        Outcome::Completed,
        Usage { generated: 50, cached_tokens: 2_048, ..Usage::default() },
    );
    let totals = room.scheduler.prefixes.totals();
    assert_eq!((totals.believed_tokens, totals.cached_tokens), (2_048, 2_048));
}

#[test]
fn a_wish_for_a_node_ends_with_the_request_that_had_it() {
    let mut room = Room::new();
    room.reports(1, vec![ModelReport { slots: 1, ..caching() }]);
    let first = conversation(1, 8, room.asked(1));
    room.submits(first);
    room.begins(1, 1);
    room.completes(1, 1);
    room.asks(2);
    let wishing = conversation(1, 8, room.asked(3));
    room.submits(wishing);
    assert_eq!(room.scheduler.wishes.all().count(), 1);
    room.hangs_up(3);
    assert_eq!(room.scheduler.wishes.all().count(), 0);
}

#[test]
fn measured_steps_and_lengths_of_answers_are_learned() {
    let mut room = Room::new();
    let sample = StepSample { steps: 100, batch: 1.0, kv_tokens: 0.0, seconds: 4.0 };
    let measured = Measured { steps: vec![sample; 20], load: None };
    room.reports(1, vec![ModelReport { measured, ..model(1, 2) }]);
    let learned = room.scheduler.rates.learned(lane(1));
    assert_eq!(learned.samples_step, 20);
    assert!(learned.t1_s > 0.030, "{learned:?}");
    let before = room.scheduler.answers.mean(crate::ids::TenantId(1), lane(1).1, 1_000);
    room.asks(1);
    room.begins(1, 1);
    room.finishes(1, 1, Outcome::Completed, Usage { generated: 9, ..Usage::default() });
    let after = room.scheduler.answers.mean(crate::ids::TenantId(1), lane(1).1, 1_000);
    assert!(after < before, "{after} after {before}");
}
