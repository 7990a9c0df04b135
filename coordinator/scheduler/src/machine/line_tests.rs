//! Who is before whom and who is turned away, seen through the whole machine: ranks, shares, classes and overload.

use super::rig_tests::{Room, batch, lane, long, model, of_tenant};
use crate::command::{Outcome, Usage};
use crate::overload::Rung;
use crate::report::{ModelReport, Rates};
use crate::time::Span;

/// Tenant 1 has requests 1 and 2 in line, tenant 2 then request 3; one slot opens.
fn two_tenants() -> Room {
    let mut room = Room::new();
    for (request, tenant) in [(1, 1), (2, 1), (3, 2)] {
        let asked = of_tenant(tenant, long(200, room.asked(request)));
        room.submits(asked);
    }
    assert_eq!(room.holds(1, 1), ["1.1 on 1"]);
    room
}

/// Node 1 is at work, and so many answers of 100 s wait for its only slot.
fn crowded(waiting: u64) -> Room {
    let mut room = Room::new();
    room.holds(1, 1);
    for request in 1..=waiting + 1 {
        let asked = long(5_000, room.asked(request));
        room.submits(asked);
    }
    assert_eq!(room.scheduler.queue.waiting() as u64, waiting);
    room
}

#[test]
fn a_rank_is_the_arrival_and_four_times_the_work_up_to_two_minutes() {
    let mut room = Room::new();
    room.holds(1, 1);
    room.wait(10_000);
    let rank = |submission| room.scheduler.assessed(submission).rank.since(room.at);
    assert_eq!(rank(room.asked(1)), Span::from_ms(4 * (50 + 50 * 20)));
    assert_eq!(rank(long(2_000, room.asked(1))), Span::from_s(120), "160 s of handicap");
}

#[test]
fn small_work_overtakes_large_work_that_came_before_it() {
    let mut room = Room::new();
    room.holds(1, 1);
    room.asks(1);
    let large = long(1_000, room.asked(2));
    room.submits(large);
    room.wait(1_000);
    assert_eq!(room.asks(3), ["3 waits behind 0"]);
}

#[test]
fn a_small_request_does_not_overtake_for_ever() {
    let mut room = Room::new();
    room.holds(1, 1);
    room.asks(1);
    let large = long(200, room.asked(2));
    room.submits(large);
    room.wait(15_000);
    assert_eq!(room.asks(3), ["3 waits behind 1"]);
}

#[test]
fn a_tenant_that_was_served_lets_the_others_go_first() {
    let mut room = two_tenants();
    let usage = Usage { generated: 200, ..Usage::default() };
    assert_eq!(room.finishes(1, 1, Outcome::Completed, usage), ["3.1 on 1"]);
}

#[test]
fn a_tenant_that_hung_up_before_a_token_has_not_been_served() {
    let mut room = two_tenants();
    assert_eq!(room.hangs_up(1), ["2.1 on 1"]);
}

#[test]
fn batch_work_that_waited_ten_minutes_stands_with_the_interactive_work() {
    let mut room = Room::new();
    room.holds(1, 1);
    room.asks(1);
    let old = batch(room.asked(2));
    room.submits(old);
    room.wait(1_000);
    assert_eq!(room.asks(3), ["3 waits behind 0"]);
    room.hangs_up(3);
    room.wait(600_000);
    assert_eq!(room.asks(4), ["4 waits behind 1"]);
    assert_eq!(room.completes(1, 1), ["2.1 on 1"]);
}

#[test]
fn new_batch_work_is_refused_when_the_line_is_minutes_long() {
    let mut room = crowded(1);
    let taken = batch(room.asked(8));
    assert_eq!(room.submits(taken), ["8 waits behind 1"]);
    let asked = long(5_000, room.asked(7));
    room.submits(asked);
    let refused = batch(room.asked(9));
    assert_eq!(room.submits(refused), ["9 refused: Shed"]);
}

#[test]
fn in_a_full_line_whoever_has_less_than_a_share_is_taken_in() {
    let mut room = crowded(5);
    let one_more = long(5_000, room.asked(8));
    assert_eq!(room.submits(one_more), ["8 refused: QueueFull"]);
    let other = of_tenant(2, long(5_000, room.asked(9)));
    assert_eq!(room.submits(other), ["9 waits behind 1"]);
}

#[test]
fn held_batch_work_starts_once_the_line_is_short_again() {
    let mut room = Room::new();
    room.holds(1, 1);
    let first = long(5_000, room.asked(1));
    room.submits(first);
    for request in 2..=11 {
        room.asks(request);
    }
    let held = batch(room.asked(12));
    room.submits(held);
    assert_eq!(room.scheduler.overload.rung(lane(1).1), Rung::HoldBatch);
    let mut started = Vec::new();
    for request in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] {
        started.extend(room.completes(request, 1));
    }
    assert_eq!(started.last().map(String::as_str), Some("12.1 on 1"));
}

#[test]
fn batch_work_starts_when_a_client_that_held_it_up_is_gone() {
    let mut room = Room::new();
    room.holds(1, 1);
    let first = long(5_000, room.asked(1));
    room.submits(first);
    let slow = Rates { step_ms: 200.0, ..model(1, 1).rates };
    room.reports(2, vec![ModelReport { rates: slow, ..model(1, 1) }]);
    let patient = long(1_500, room.asked(2));
    assert_eq!(room.submits(patient), ["2 waits behind 0"], "it holds back for the fast node");
    for request in 3..=10 {
        let held = batch(room.asked(request));
        assert_eq!(room.submits(held), [format!("{request} waits behind {}", request - 2)]);
    }
    assert_eq!(room.hangs_up(2), ["3.1 on 2"]);
    assert_eq!(room.scheduler.overload.rung(lane(1).1), Rung::HoldBatch, "the line is long all the same");
}

#[test]
fn batch_work_starts_when_nobody_else_waits_however_much_of_it_there_is() {
    let mut room = Room::new();
    room.holds(1, 1);
    room.asks(1);
    let large = batch(long(2_000, room.asked(2)));
    room.submits(large);
    assert_eq!(room.completes(1, 1), ["2.1 on 1"]);
}
