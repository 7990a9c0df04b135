//! The three steps of a plan, one after another: swaps from the decision to the load, and what happens in between.

use super::stage_tests::{Stage, lane, s};
use super::*;

const NOTHING: [&str; 0] = [];

/// Model 4 is to take the place of model 1; decided at second 140.
fn swap() -> Stage {
    let mut stage = Stage::full(0);
    stage.waits(4, 1, 1, 100);
    assert_eq!(stage.plan(140), ["evict 1 from 1 for 4"]);
    stage
}

#[test]
fn a_swap_asks_for_memory_only_when_it_is_free() {
    let mut stage = swap();
    assert!(!stage.planner.is_open(NodeId(1), ModelId(1)), "nothing more is sent to the one that leaves");
    stage.uses(1, 1, 2, 5, 139);
    assert_eq!(stage.plan(141), NOTHING, "its answers still run");
    stage.planner.resident(s(145), NodeId(1), ModelId(1), ResidentState::Unloading);
    assert_eq!(stage.plan(146), NOTHING, "the registry still holds it");
    stage.release(147, 1, 1);
    assert_eq!(stage.planner.next_deadline(), Some(s(147)));
    assert_eq!(stage.plan(147), ["load 4 on 1: Waiting"]);
    stage.answer(147, 1, true);
    stage.ready(149, 1, 4);
    assert!(stage.planner.is_open(NodeId(1), ModelId(4)));
    assert_eq!(stage.on(1), ["2 ready", "3 ready", "4 ready"]);
}

#[test]
fn nobody_else_takes_the_room_that_a_swap_makes() {
    let mut stage = swap();
    stage.waits(5, 9, 900, 0);
    assert_eq!(stage.plan(141), NOTHING);
    stage.release(142, 1, 1);
    assert_eq!(stage.plan(142), ["load 4 on 1: Waiting"]);
}

#[test]
fn a_swap_that_nobody_wants_any_more_is_dropped_and_its_room_is_free() {
    let mut stage = swap();
    stage.waiting.clear();
    stage.waits(5, 1, 1, 141);
    assert_eq!(stage.plan(141), NOTHING, "5 waits for the room, too");
    assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready", "5 intended"]);
    stage.release(142, 1, 1);
    assert_eq!(stage.plan(142), ["load 5 on 1: Waiting"]);
}

#[test]
fn a_swap_on_a_node_that_drops_out_is_made_elsewhere() {
    let mut stage = swap();
    stage.node(2, 10);
    stage.offer(2, 4, 10, 2);
    stage.unusable(1, 30);
    assert_eq!(stage.plan(141), ["load 4 on 2: Waiting"]);
    assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready"]);
}

#[test]
fn a_swap_is_not_needed_when_the_model_came_another_way() {
    let mut stage = swap();
    stage.node(2, 10);
    stage.offer(2, 4, 10, 2);
    stage.ready(141, 2, 4);
    assert_eq!(stage.plan(141), NOTHING);
    assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready"]);
}

#[test]
fn a_pin_or_a_minimum_that_is_taken_back_ends_its_swap() {
    for policy in [
        ModelPolicy { pinned: [NodeId(1)].into(), ..ModelPolicy::default() },
        ModelPolicy { replicas_min: 1, ..ModelPolicy::default() },
    ] {
        let mut stage = Stage::full(0);
        stage.policy(4, policy);
        assert_eq!(stage.plan(140), ["evict 1 from 1 for 4"]);
        stage.plan(141);
        assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready", "4 intended"]);
        stage.policy(4, ModelPolicy::default());
        assert_eq!(stage.plan(142), NOTHING);
        assert_eq!(stage.on(1), ["1 leaving", "2 ready", "3 ready"]);
    }
}

#[test]
fn a_large_newcomer_waits_for_all_who_make_room() {
    let mut stage = Stage::full(0);
    stage.offer(1, 4, 25, 2);
    stage.waits(4, 1, 1, 100);
    assert_eq!(stage.plan(140).len(), 3);
    stage.release(141, 1, 1);
    assert_eq!(stage.plan(141), NOTHING);
    stage.release(142, 1, 2);
    stage.release(143, 1, 3);
    assert_eq!(stage.plan(143), ["load 4 on 1: Waiting"]);
}

#[test]
fn what_is_outstanding_can_be_repeated() {
    let mut stage = swap();
    let mut repeated = Vec::new();
    stage.planner.resume(&mut repeated);
    let why = EvictReason::Displaced { by: ModelId(4) };
    assert_eq!(repeated, [Action::Evict { node: NodeId(1), model: ModelId(1), why }]);
    stage.release(142, 1, 1);
    let asked = stage.actions(s(142));
    let mut repeated = Vec::new();
    stage.planner.resume(&mut repeated);
    assert_eq!(repeated, asked);
    stage.answer(143, 1, true);
    let mut repeated = Vec::new();
    stage.planner.resume(&mut repeated);
    assert_eq!(repeated, []);
}

#[test]
fn every_proposal_has_a_number_of_its_own() {
    let mut stage = Stage::new(ResidencyLimits::default());
    stage.node(1, 10);
    stage.offer(1, 1, 10, 2);
    stage.waits(1, 1, 1, 0);
    let mut numbers = Vec::new();
    for (at, number) in [(0, 1), (100, 2), (200, 3)] {
        numbers.extend(stage.actions(s(at)).into_iter().filter_map(|action| match action {
            Action::Reserve { number, .. } => Some(number.0),
            Action::Evict { .. } => None,
        }));
        stage.answer(at, number, false);
    }
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn planning_twice_changes_nothing() {
    let mut stage = swap();
    assert_eq!((stage.plan(140), stage.plan(140)), (vec![], vec![]));
}

#[test]
fn a_request_for_a_cold_model_in_an_empty_room_is_served_after_one_load() {
    let mut stage = Stage::new(ResidencyLimits::default());
    stage.node(1, 10);
    stage.offer(1, 1, 10, 2);
    stage.plan(0);
    stage.asked(1, 1, 1);
    stage.waits(1, 1, 1, 1);
    assert_eq!(stage.planner.next_deadline(), Some(s(1)));
    assert_eq!(stage.planner.eta(s(1), ModelId(1)), Some(crate::time::Span::from_s(2)));
    assert_eq!(stage.plan(1), ["load 1 on 1: Waiting"]);
    assert_eq!(
        stage.planner.memory.get(lane(1, 1)).map(Replica::is_taken),
        Some(true),
        "from the proposal on"
    );
}

#[test]
fn who_waits_is_told_a_time_or_a_reason() {
    let mut stage = swap();
    let told = |stage: &Stage, model| {
        (stage.planner.eta(s(140), ModelId(model)).is_some(), stage.planner.refusal(s(140), ModelId(model)))
    };
    assert_eq!(told(&stage, 4), (true, None));
    stage.planner.withdrawn(NodeId(1), ModelId(5));
    assert_eq!(told(&stage, 5), (false, Some(WhyNot::NotOffered)));
}
