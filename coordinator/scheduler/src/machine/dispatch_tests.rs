//! When a request starts and where, seen through the whole machine: patience, room, deadlines.

use super::rig_tests::{NOTHING, Room, long, model};
use crate::command::Submission;
use crate::effect::Why;
use crate::ids::RequestId;
use crate::limits::Limits;
use crate::placement::Gate;
use crate::report::{ModelReport, Rates};
use crate::time::Span;

/// The fast node is at work for 100 s; request 2 would take 30 s there and 300 s on the slow one.
fn torn() -> Room {
    let mut room = Room::new();
    room.holds(1, 1);
    let first = long(5_000, room.asked(1));
    room.submits(first);
    let slow = Rates { step_ms: 200.0, ..model(1, 1).rates };
    room.reports(2, vec![ModelReport { rates: slow, ..model(1, 1) }]);
    let second = long(1_500, room.asked(2));
    assert_eq!(room.submits(second), ["2 waits behind 0"]);
    room
}

/// A node whose KV cache holds two of the usual requests (150 tokens each), and wishes to carry four.
fn narrow() -> Room {
    let mut room = Room::with(Limits { fresh_width: 4, ..Limits::default() });
    room.reports(1, vec![ModelReport { kv_tokens: 350, ..model(1, 4) }]);
    room
}

#[test]
fn a_request_holds_back_for_a_better_node_and_takes_what_is_open_when_its_time_is_over() {
    let mut room = torn();
    let over = room.at + Span::from_s(5);
    let request = RequestId(2);
    assert_eq!(room.scheduler.holding.first(), Some(&(over, request)));
    assert_eq!(room.wait(4_999), NOTHING);
    assert_eq!(room.scheduler.next_deadline(), Some((over, Why::HoldOver { request })));
    assert_eq!(room.wait(1), ["2.1 on 2"]);
    assert!(room.scheduler.holding.is_empty());
}

#[test]
fn a_request_that_holds_back_takes_the_better_node_when_that_is_free() {
    let mut room = torn();
    room.wait(2_000);
    assert_eq!(room.hangs_up(1), ["2.1 on 1"]);
}

#[test]
fn a_request_waits_for_room_in_the_kv_cache_and_a_client_that_hangs_up_gives_its_room_back() {
    let mut room = narrow();
    assert_eq!([room.asks(1), room.asks(2)].concat(), ["1.1 on 1", "2.1 on 1"]);
    room.begins(1, 1);
    room.begins(2, 1);
    assert_eq!(room.asks(3), ["3 waits behind 0"]);
    let verdict = room.scheduler.explain(RequestId(3)).expect("it waits");
    assert_eq!(verdict.candidates[0].gate, Some(Gate::KvFull { needed: 150, free: 50 }));
    assert_eq!(room.hangs_up(1), ["3.1 on 1"]);
}

#[test]
fn a_request_that_fits_no_kv_cache_runs_where_nothing_else_does() {
    let mut room = narrow();
    let large = Submission { prompt_tokens: 600, ..room.asked(1) };
    assert_eq!(room.submits(large), ["1.1 on 1"]);
    room.begins(1, 1);
    assert_eq!(room.asks(2), ["2 waits behind 0"]);
}

#[test]
fn an_answer_that_ends_when_the_next_request_is_due_starts_it_no_more() {
    let mut room = Room::new();
    room.holds(1, 1);
    room.asks(1);
    let due = Submission { deadline: room.at + Span::from_s(5), ..room.asked(2) };
    assert_eq!(room.submits(due), ["2 waits behind 0"]);
    room.at = room.at + Span::from_s(5);
    assert_eq!(room.completes(1, 1), ["2 refused: Expired"]);
}

#[test]
fn what_runs_at_its_deadline_is_stopped() {
    let mut room = Room::new();
    room.holds(1, 1);
    let due = Submission { deadline: room.at + Span::from_s(5), ..room.asked(1) };
    room.submits(due);
    assert_eq!(room.wait(4_999), NOTHING);
    assert_eq!(room.wait(1), ["1 aborted: DeadlineExceeded"]);
}
