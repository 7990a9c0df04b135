//! Stories of single lanes: what opens them, how long, and how they come back.

use super::rig_tests::*;
use super::*;
use crate::ids::RequestId;
use crate::time::Span;

const LANE: Breaker = Breaker::Lane(A);

#[test]
fn a_whole_turn_is_told_move_by_move() {
    let mut rig = Rig::new();
    rig.ends(A, &[RESET; 3]);
    rig.prove(A);
    rig.ends(A, &[SUCCESS; 3]);
    let at = |s: u64| At(s * 1_000_000);
    let told = |from, to, s, until: Option<u64>, opens, why| Move {
        breaker: LANE,
        from,
        to,
        generation: Generation(1),
        at: at(s),
        until: until.map(at),
        cause: matches!(to, BreakerState::Open | BreakerState::Probing).then_some(Cause::Hard),
        opens,
        why,
    };
    use BreakerState::{Closed, Open, Probing, SlowStart};
    let expected = [
        told(Closed, Open, 0, Some(5), 1, MoveReason::FailuresInARow(HardKind::Reset)),
        told(Open, Probing, 300, None, 1, MoveReason::TurnCame),
        told(Probing, SlowStart, 300, None, 1, MoveReason::ProbeAnswered),
        told(SlowStart, Closed, 300, None, 0, MoveReason::UpToSpeed),
    ];
    assert_eq!(rig.moves, expected);
}

#[test]
fn each_failed_probe_doubles_the_wait_up_to_three_hundred_seconds_and_a_recovery_forgives() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    let mut lengths = Vec::new();
    for _ in 0..9 {
        lengths.push(rig.open_s(LANE).expect("open"));
        rig.due_in(300).expect("its turn");
        rig.probed(ProbeResult::Failed);
    }
    assert_eq!(lengths, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    rig.prove(A);
    rig.ends(A, &[SUCCESS; 3]);
    rig.end(A, HANG);
    assert_eq!(rig.open_s(LANE), Some(5));
}

#[test]
fn the_wait_is_spread_by_a_fifth_and_no_more() {
    let mut rig = Rig::with(BreakerLimits::default());
    rig.end(A, HANG);
    rig.end(OTHER, HANG);
    let waits = [A, OTHER].map(|lane| {
        let view = rig.view(Breaker::Lane(lane));
        view.until.expect("open").since(view.since).0 / 1_000
    });
    assert_ne!(waits[0], waits[1]);
    assert!(waits.iter().all(|ms| (4_000..=6_000).contains(ms)), "{waits:?}");
}

#[test]
fn a_slow_start_doubles_with_each_answer_up_to_the_width_and_then_it_is_over() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.prove(A);
    let mut gates = Vec::new();
    for _ in 0..4 {
        gates.push(rig.gate(A));
        rig.end(A, SUCCESS);
    }
    let limited = |allowed| Admission::Limited { allowed };
    assert_eq!(gates, [limited(1), limited(2), limited(4), Admission::Free]);
}

#[test]
fn a_lane_of_one_slot_is_up_to_speed_after_one_answer() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.prove(A);
    let generation = rig.breakers.generation(A);
    let request = RequestId(99);
    let ending = Ending { lane: A, generation, request, health: SUCCESS, replicas: 1, width: 1 };
    rig.breakers.observe(rig.at, &ending, &rig.limits, &mut rig.moves);
    assert_eq!(rig.state(A), BreakerState::Closed);
}

#[test]
fn a_failure_in_the_slow_start_opens_for_twice_as_long() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.prove(A);
    rig.ends(A, &[SUCCESS, RESET]);
    assert_eq!(rig.open_s(LANE), Some(10));
    assert_eq!(rig.reasons().last(), Some(&MoveReason::Failure(HardKind::Reset)));
}

#[test]
fn the_death_of_a_full_batch_opens_once() {
    let mut rig = Rig::new();
    let generation = rig.breakers.generation(A);
    for _ in 0..10 {
        rig.end_of(A, Health::Hard(HardKind::RuntimeExit), generation);
    }
    assert_eq!(rig.view(LANE).opens, 1);
    assert_eq!(rig.moves.len(), 1);
}

#[test]
fn a_failure_of_the_old_life_does_not_open_a_recovered_lane() {
    let mut rig = Rig::new();
    let old = rig.breakers.generation(A);
    rig.end(A, HANG);
    rig.prove(A);
    rig.end_of(A, HANG, old);
    assert_eq!(rig.gate(A), Admission::Limited { allowed: 1 });
    rig.ends(A, &[SUCCESS; 3]);
    rig.end_of(A, HANG, old);
    assert_eq!(rig.gate(A), Admission::Free);
}

#[test]
fn a_hang_of_work_begun_before_the_lane_was_degraded_is_news() {
    let mut rig = Rig::new();
    let before = rig.breakers.generation(A);
    rig.ends(A, &[LATE; 5]);
    rig.end_of(A, HANG, before);
    assert_eq!(rig.state(A), BreakerState::Open);
}

#[test]
fn half_of_the_answers_late_degrades_and_five_in_time_in_a_row_end_it() {
    let mut rig = Rig::new();
    rig.ends(A, &[SUCCESS, SUCCESS, LATE, LATE]);
    assert_eq!(rig.gate(A), Admission::Free);
    rig.ends(A, &[SUCCESS, LATE]);
    assert_eq!(rig.gate(A), Admission::Penalised { factor: 3, width_divisor: 2 });
    rig.ends(A, &[SUCCESS, SUCCESS, SUCCESS, SUCCESS, LATE, SUCCESS, SUCCESS, SUCCESS, SUCCESS]);
    assert_eq!(rig.state(A), BreakerState::Degraded);
    rig.end(A, SUCCESS);
    assert_eq!(rig.gate(A), Admission::Free);
    let late = MoveReason::Late(SoftKind::TokensLate);
    assert_eq!(rig.reasons(), [late, MoveReason::InTime]);
}

#[test]
fn a_lane_that_stays_late_in_its_slow_start_is_degraded_not_stuck() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.prove(A);
    rig.ends(A, &[LATE; 3]);
    assert_eq!(rig.gate(A), Admission::Limited { allowed: 1 });
    rig.end(A, LATE);
    assert_eq!(rig.state(A), BreakerState::Degraded);
}

#[test]
fn lateness_opens_half_of_the_replicas_and_no_more() {
    let mut rig = Rig::new();
    let lanes: Vec<Lane> = (1..=5).map(|node| (NodeId(node), ModelId(1))).collect();
    lanes.iter().for_each(|lane| rig.report(*lane));
    let mut open = Vec::new();
    for (opened, lane) in lanes.iter().enumerate() {
        rig.replicas = lanes.len() - opened.min(2);
        rig.ends(*lane, &[LATE; 10]);
        open.push(rig.state(*lane) == BreakerState::Open);
    }
    assert_eq!(open, [true, true, false, false, false]);
}

#[test]
fn lateness_never_opens_the_last_usable_replica() {
    let mut rig = Rig::new();
    rig.replicas = 1;
    rig.ends(A, &[LATE; 50]);
    assert_eq!(rig.state(A), BreakerState::Degraded);
    rig.replicas = 2;
    rig.end(A, LATE);
    assert_eq!(rig.state(A), BreakerState::Open);
    assert_eq!(rig.moves.last().map(|fact| fact.cause), Some(Some(Cause::Soft)));
    rig.replicas = 1;
    rig.ends(OTHER, &[LATE; 50]);
    assert_eq!(rig.state(OTHER), BreakerState::Degraded);
}

#[test]
fn failures_open_even_the_last_replica() {
    let mut rig = Rig::new();
    rig.replicas = 1;
    rig.ends(A, &[RESET; 3]);
    assert_eq!(rig.state(A), BreakerState::Open);
}

#[test]
fn a_crash_loop_does_not_start_anew_with_each_runtime() {
    let mut rig = Rig::new();
    let crash = Health::Hard(HardKind::RuntimeExit);
    for _ in 0..2 {
        rig.end(A, crash);
        rig.forget(A);
        rig.report(A);
    }
    assert_eq!(rig.state(A), BreakerState::Closed);
    rig.end(A, crash);
    assert_eq!(rig.state(A), BreakerState::Open);
    for opens in 2..5 {
        rig.due_in(300).expect("its turn");
        rig.forget(A);
        rig.report(A);
        assert_eq!(rig.view(LANE).opens, opens);
    }
    assert_eq!(rig.reasons().last(), Some(&MoveReason::Vanished));
}

#[test]
fn an_open_lane_without_its_model_is_probed_when_it_has_it_again() {
    let mut rig = Rig::new();
    rig.end(A, HANG);
    rig.forget(A);
    assert_eq!(rig.due_in(600), None);
    assert_eq!(rig.breakers.next_deadline(), None);
    rig.report(A);
    assert_eq!(rig.breakers.next_deadline(), Some((At(5_000_000), LANE)));
    assert_eq!(rig.due_in(0).map(|order| order.lane), Some(A));
}

#[test]
fn a_lane_that_was_forgotten_comes_back_in_a_new_life() {
    let mut rig = Rig::new();
    let old = rig.breakers.generation(A);
    rig.forget(A);
    assert_eq!(rig.breakers.explain(LANE), None);
    rig.end_of(A, HANG, old);
    rig.report(A);
    rig.end_of(A, HANG, old);
    assert_eq!(rig.state(A), BreakerState::Closed);
    rig.end(A, HANG);
    assert_eq!(rig.state(A), BreakerState::Open);
}

#[test]
fn a_lane_beyond_the_bound_is_served_without_a_breaker() {
    let mut rig = Rig::with(BreakerLimits { lanes_max: 2, ..BreakerLimits::default() });
    assert_eq!(rig.breakers.explain(Breaker::Lane(OTHER)), None);
    rig.end(OTHER, HANG);
    assert_eq!(rig.gate(OTHER), Admission::Free);
    rig.end(B, HANG);
    rig.forget(A);
    rig.report(OTHER);
    rig.end(OTHER, HANG);
    assert_eq!(rig.state(OTHER), BreakerState::Open);
}

#[test]
fn a_view_shows_what_a_breaker_goes_by() {
    let mut rig = Rig::new();
    rig.ends(A, &[SUCCESS, LATE, RESET, RESET]);
    rig.wait(Span::from_s(3));
    let fresh = BreakerView {
        state: BreakerState::Closed,
        since: At(0),
        until: None,
        allowed: None,
        generation: Generation(0),
        opens: 0,
        why: None,
        last_hard: Some(HardKind::Reset),
        last_soft: Some(SoftKind::TokensLate),
        tally: Tally { outcomes: 4, hard: 2, soft: 1, hard_in_a_row: 2 },
    };
    assert_eq!(rig.view(LANE), fresh);
    rig.end(A, HANG);
    let open = BreakerView {
        state: BreakerState::Open,
        since: At(3_000_000),
        until: Some(At(8_000_000)),
        generation: Generation(1),
        opens: 1,
        why: Some(MoveReason::Failure(HardKind::Hang)),
        last_hard: Some(HardKind::Hang),
        tally: Tally::default(),
        ..fresh
    };
    assert_eq!(rig.view(LANE), open);
    assert_eq!(rig.breakers.explain(Breaker::Node(NODE)), None);
}
