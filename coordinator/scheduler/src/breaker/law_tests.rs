//! Laws over random histories of a small cluster (`world_tests`), which notices what is broken on the way.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::rig_tests::{HANG, LATE, RESET, SUCCESS};
use super::world_tests::{End, MODELS, NODES, Step, World};
use super::{Breaker, Health, Move, ProbeResult};
use crate::time::Span;

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![4 => Just(RESET), 1 => Just(HANG), 16 => Just(LATE), 16 => Just(SUCCESS)]
}

fn steps() -> impl Strategy<Value = Step> {
    let lane = || (1..=NODES, 1..=MODELS);
    let end = prop_oneof![9 => health().prop_map(End::Told), 1 => Just(End::Neutral)];
    let result = prop_oneof![
        8 => Just(ProbeResult::Passed),
        1 => Just(ProbeResult::Failed),
        1 => Just(ProbeResult::Mismatch),
    ];
    prop_oneof![
        8 => lane().prop_map(|(node, model)| Step::Report(node, model)),
        2 => lane().prop_map(|(node, model)| Step::Forget(node, model)),
        30 => lane().prop_map(|(node, model)| Step::Dispatch(node, model)),
        30 => (any::<usize>(), end).prop_map(|(index, end)| Step::End(index, end)),
        40 => (lane(), health(), 1_usize..12).prop_map(|((node, model), health, times)| Step::Serve(node, model, health, times)),
        20 => result.prop_map(Step::Probed),
        2 => Just(Step::StaleProbe),
        12 => (0_u64..8_000).prop_map(Step::Wait),
        2 => (0_u64..400_000).prop_map(Step::Wait),
        1 => (1..=NODES).prop_map(Step::Lose),
        6 => (1..=MODELS).prop_map(Step::Relieve),
        1 => Just(Step::HandOver),
    ]
}

/// Every way from one state to another that there is, but for those only a matrix meets.
const WAYS: &str = "
    lane Closed Degraded Late
    lane Closed Open Failure
    lane Closed Open FailuresInARow
    lane Degraded Closed InTime
    lane Degraded Open Failure
    lane Degraded Open FailuresInARow
    lane Degraded Open StillLate
    lane Open Degraded LastResort
    lane Open Probing TurnCame
    lane Probing Open CanaryFailed
    lane Probing Open Failure
    lane Probing Open LanesOpen
    lane Probing Open Vanished
    lane Probing SlowStart ProbeAnswered
    lane Probing SlowStart ProbeTimeOver
    lane SlowStart Closed UpToSpeed
    lane SlowStart Degraded Late
    lane SlowStart Open Failure
    node Closed Open Flapping
    node Closed Open LanesOpen
    node Open Probing TurnCame
    node Probing Open CanaryFailed
    node Probing Open Failure
    node Probing SlowStart ProbeAnswered
    node Probing SlowStart ProbeTimeOver
    node SlowStart Closed UpToSpeed
    node SlowStart Open Failure
";

fn way(fact: &Move) -> String {
    let kind = if matches!(fact.breaker, Breaker::Lane(_)) { "lane" } else { "node" };
    let why = format!("{:?}", fact.why);
    format!("{kind} {:?} {:?} {}", fact.from, fact.to, why.split('(').next().expect("a name"))
}

/// Else the law below would be about less than it says.
#[test]
fn the_histories_take_every_way() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = proptest::collection::vec(steps(), 250);
    let mut taken = BTreeSet::new();
    for _ in 0..100 {
        let mut world = World::new();
        let steps = histories.new_tree(&mut runner).expect("a history").current();
        steps.into_iter().for_each(|step| world.step(step));
        taken.extend(world.facts.iter().map(way));
    }
    let ways = WAYS.lines().map(str::trim).filter(|way| !way.is_empty());
    let missed: Vec<&str> = ways.filter(|way| !taken.contains(*way)).collect();
    assert_eq!(missed, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_over_every_history_and_a_cluster_that_is_well_is_trusted_again(
        steps in proptest::collection::vec(steps(), 1..250),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        let took = world.recover();
        prop_assert!(took <= Span::from_s(400), "trusted after {:?} only", took);
    }
}
