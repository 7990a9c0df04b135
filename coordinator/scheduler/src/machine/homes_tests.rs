//! How models come to nodes and leave them, seen through the whole machine.

use super::rig_tests::{NOTHING, Room, lane, model};
use crate::command::Command;
use crate::report::{ModelReport, ModelState};
use crate::residency::ReservationId;

const GIB: u64 = 1 << 30;

fn in_state(state: ModelState, gib: u64) -> ModelReport {
    ModelReport { state, bytes: gib * GIB, ..model(1, 2) }
}

fn answer(room: &mut Room, reservation: u64, granted: bool) -> Vec<String> {
    room.apply(Command::Reserved { reservation: ReservationId(reservation), granted })
}

#[test]
fn a_model_that_somebody_waits_for_is_loaded_once_its_memory_is_reserved() {
    let mut room = Room::new();
    room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Offered, 10)]);
    assert_eq!(room.asks(1), ["reserve 1: 1 on 1", "1 waits behind 0"]);
    assert_eq!(answer(&mut room, 1, true), NOTHING);
    assert_eq!(room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Ready, 10)]), ["1.1 on 1"]);
}

#[test]
fn a_reservation_that_was_refused_is_tried_again_after_a_pause() {
    let mut room = Room::new();
    room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Offered, 10)]);
    room.asks(1);
    assert_eq!(answer(&mut room, 1, false), NOTHING);
    assert_eq!(room.wait(4_000), NOTHING);
    assert_eq!(room.wait(2_000), ["reserve 2: 1 on 1"]);
}

#[test]
fn nothing_is_loaded_on_a_node_that_drains() {
    let mut room = Room::new();
    room.drains(1);
    room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Offered, 10)]);
    assert_eq!(room.asks(1), ["1 waits behind 0"]);
    assert_eq!(room.has_budget(2, 20 * GIB, vec![in_state(ModelState::Offered, 10)]), ["reserve 1: 1 on 2"]);
}

#[test]
fn who_asks_for_a_model_that_fits_nowhere_is_told_so_at_once() {
    let mut room = Room::new();
    room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Offered, 30)]);
    assert_eq!(room.asks(1), ["1 refused: NoCapacity"]);
}

#[test]
fn who_waits_for_a_model_is_told_when_it_fits_nowhere_any_more() {
    let mut room = Room::new();
    room.has_budget(1, 40 * GIB, vec![in_state(ModelState::Offered, 30)]);
    room.asks(1);
    answer(&mut room, 1, false);
    assert_eq!(
        room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Offered, 30)]),
        ["1 refused: NoCapacity"]
    );
}

/// Node 1 runs request 1, and its model must go since the budget shrank.
fn leaving() -> Room {
    let mut room = Room::new();
    room.has_budget(1, 20 * GIB, vec![in_state(ModelState::Ready, 10)]);
    assert_eq!(room.asks(1), ["1.1 on 1"]);
    room.begins(1, 1);
    assert_eq!(room.has_budget(1, 5 * GIB, vec![in_state(ModelState::Ready, 10)]), ["evict 1 from 1"]);
    room
}

#[test]
fn nothing_is_sent_to_a_model_that_must_go() {
    let mut room = leaving();
    let said = room.asks(2);
    assert!(!said.contains(&"2.1 on 1".to_owned()), "{said:?}");
}

#[test]
fn memory_is_free_once_the_model_is_gone_and_so_is_the_last_answer_from_it() {
    let mut room = leaving();
    room.has_budget(1, 5 * GIB, vec![in_state(ModelState::Offered, 10)]);
    assert!(room.scheduler.residency.has(lane(1)), "its answer is under way");
    room.completes(1, 1);
    room.has_budget(1, 5 * GIB, vec![in_state(ModelState::Offered, 10)]);
    assert!(!room.scheduler.residency.has(lane(1)));
}
