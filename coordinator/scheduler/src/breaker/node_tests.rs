//! Stories of nodes: what shuts all lanes of a Mac at once, and how they come back.

use super::rig_tests::*;
use super::*;
use crate::time::Span;

const OF_NODE: Breaker = Breaker::Node(NODE);
const C: Lane = (NODE, ModelId(3));

/// Node 1 with three lanes, of which A and B failed.
fn sick_node() -> Rig {
    let mut rig = Rig::new();
    rig.report(C);
    rig.end(A, HANG);
    rig.wait(Span::from_s(1));
    rig.end(B, HANG);
    rig
}

fn states(rig: &Rig) -> [BreakerState; 4] {
    [OF_NODE, Breaker::Lane(A), Breaker::Lane(B), Breaker::Lane(C)].map(|breaker| rig.view(breaker).state)
}

#[test]
fn two_lanes_that_fail_at_once_shut_their_whole_node_and_no_other() {
    let mut rig = sick_node();
    assert_eq!(rig.gate(C), Admission::Shut { until: At(6_000_000) });
    assert_eq!(rig.gate(OTHER), Admission::Free);
    assert_eq!(rig.reasons().last(), Some(&MoveReason::LanesOpen));
}

#[test]
fn lanes_that_are_open_for_lateness_do_not_shut_their_node() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.ends(B, &[LATE; 10]);
    assert_eq!(rig.state(B), BreakerState::Open);
    assert_eq!(rig.breakers.explain(OF_NODE), None);
}

#[test]
fn a_lane_that_is_gone_counts_for_its_node_no_longer_than_it_would_be_open() {
    for (s, shut) in [(4, true), (5, false)] {
        let mut rig = Rig::new();
        rig.end(A, HANG);
        rig.forget(A);
        rig.wait(Span::from_s(s));
        rig.end(B, HANG);
        assert_eq!(rig.breakers.explain(OF_NODE).is_some(), shut, "after {s} s");
    }
}

#[test]
fn a_node_is_proved_by_its_first_lane_that_is_not_open_itself() {
    let mut rig = sick_node();
    let order = rig.due_in(5).expect("the node's turn");
    assert_eq!(order.lane, C);
    assert_eq!(rig.breakers.next_deadline(), Some((At(16_000_000), OF_NODE)));
    rig.probed(ProbeResult::Passed);
    assert_eq!(rig.gate(C), Admission::OneProbeRequest { taken: false });
    assert_eq!(rig.gate(A), Admission::Shut { until: At(16_000_000) });
    rig.breakers.dispatched(C);
    rig.end(C, SUCCESS);
    use BreakerState::{Closed, Open, SlowStart};
    assert_eq!(states(&rig), [SlowStart, Open, Open, Closed]);
    assert_eq!(rig.gate(C), Admission::Limited { allowed: 1 });
}

#[test]
fn an_open_lane_that_stands_for_its_node_is_probed_for_itself_too() {
    let mut rig = sick_node();
    rig.forget(C);
    assert_eq!(rig.due_in(5).map(|order| order.lane), Some(A));
    rig.probed(ProbeResult::Passed);
    rig.breakers.dispatched(A);
    rig.end(A, SUCCESS);
    assert_eq!(rig.state(A), BreakerState::SlowStart);
    assert_eq!(rig.view(OF_NODE).state, BreakerState::SlowStart);
    assert_eq!(rig.due_in(0).map(|order| order.lane), Some(B), "its own turn, now that the node is not shut");
}

#[test]
fn a_lane_under_its_own_probe_neither_shuts_its_node_again_nor_speeds_it_up() {
    for trusted in [false, true] {
        let mut rig = sick_node();
        rig.prove(C);
        if trusted {
            rig.ends(C, &[SUCCESS; 3]);
        }
        let before = rig.view(OF_NODE);
        assert_eq!(rig.due_in(0).map(|order| order.lane), Some(A));
        rig.probed(ProbeResult::Passed);
        rig.breakers.dispatched(A);
        rig.end(A, RESET);
        assert_eq!((rig.state(A), rig.view(OF_NODE)), (BreakerState::Open, before));
        rig.prove(B);
        assert_eq!((rig.state(B), rig.view(OF_NODE)), (BreakerState::SlowStart, before));
    }
}

#[test]
fn a_wrong_canary_opens_the_lane_that_stood_for_its_node() {
    let mut rig = sick_node();
    rig.due_in(5).expect("the node's turn");
    rig.probed(ProbeResult::Mismatch);
    use BreakerState::Open;
    assert_eq!(states(&rig), [Open; 4]);
    assert_eq!(rig.open_s(OF_NODE), Some(10));
    assert_eq!(rig.open_s(Breaker::Lane(C)), Some(5));
}

#[test]
fn a_node_on_trial_limits_all_its_lanes_and_their_answers_speed_it_up() {
    let mut rig = sick_node();
    rig.prove(C);
    rig.end(C, SUCCESS);
    rig.prove(A);
    assert_eq!([A, C].map(|lane| rig.gate(lane)), [1, 2].map(|allowed| Admission::Limited { allowed }));
    rig.ends(C, &[SUCCESS; 2]);
    assert_eq!([A, C].map(|lane| rig.gate(lane)), [Admission::Limited { allowed: 1 }, Admission::Free]);
}

#[test]
fn a_node_on_trial_is_shut_by_the_first_failure_of_any_lane() {
    let mut rig = sick_node();
    rig.prove(C);
    rig.end(C, RESET);
    assert_eq!(rig.view(OF_NODE).state, BreakerState::Open);
    assert_eq!(
        rig.view(Breaker::Lane(C)).state,
        BreakerState::Closed,
        "one failure is not enough for the lane"
    );
    assert_eq!(rig.view(OF_NODE).opens, 2);
}

#[test]
fn what_ran_on_a_node_when_it_was_shut_is_not_heard_when_it_is_probed() {
    let mut rig = Rig::new();
    let old = rig.breakers.generation(A);
    rig.lose(NODE);
    rig.lose(NODE);
    rig.due_in(5).expect("the node's turn");
    rig.probed(ProbeResult::Passed);
    rig.breakers.dispatched(A);
    rig.end_of(A, SUCCESS, old);
    assert_eq!(rig.gate(A), Admission::OneProbeRequest { taken: true });
    rig.end_of(A, HANG, old);
    assert_eq!(rig.gate(A), Admission::OneProbeRequest { taken: true });
}

#[test]
fn a_node_that_shuts_ends_the_probe_of_its_lane() {
    let mut rig = Rig::new();
    rig.report(C);
    rig.end(A, HANG);
    rig.due_in(5).expect("the lane's turn");
    rig.probed(ProbeResult::Passed);
    assert_eq!(rig.gate(A), Admission::OneProbeRequest { taken: false });
    rig.end(B, HANG);
    use BreakerState::{Closed, Open};
    assert_eq!(states(&rig), [Open, Open, Open, Closed]);
    assert_eq!(rig.gate(A), Admission::Shut { until: rig.at + Span::from_s(10) });
    assert_eq!(rig.due_in(5).map(|order| order.lane), Some(C), "the probe is free again");
}

#[test]
fn two_losses_within_ten_minutes_shut_a_node_and_losses_further_apart_do_not() {
    for (s, shut) in [(600, true), (601, false)] {
        let mut rig = Rig::new();
        rig.lose(NODE);
        rig.wait(Span::from_s(s));
        rig.lose(NODE);
        assert_eq!(rig.view(OF_NODE).state == BreakerState::Open, shut, "{s} s apart");
        assert!(rig.moves.iter().all(|fact| fact.why == MoveReason::Flapping));
    }
}

#[test]
fn a_node_that_was_lost_again_is_probed_once_it_holds_a_model_again() {
    let mut rig = Rig::new();
    rig.lose(NODE);
    rig.lose(NODE);
    [A, B].into_iter().for_each(|lane| rig.forget(lane));
    assert_eq!(rig.due_in(600), None);
    rig.report(B);
    assert_eq!(rig.gate(A), Admission::Shut { until: At(5_000_000) }, "though it was forgotten itself");
    assert_eq!(rig.due_in(0).map(|order| order.lane), Some(B));
}

#[test]
fn nodes_beyond_the_bound_are_not_watched() {
    let mut rig = Rig::with(BreakerLimits { lanes_max: 3, ..BreakerLimits::default() });
    for node in 1..=4 {
        rig.lose(NodeId(node));
        rig.lose(NodeId(node));
    }
    let watched = (1..=4).map(|node| rig.breakers.explain(Breaker::Node(NodeId(node))).is_some());
    assert_eq!(watched.collect::<Vec<_>>(), [true, true, true, false]);
}
