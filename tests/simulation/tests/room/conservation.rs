//! Nobody is lost, whatever breaks. Owns rooms in which everything does; refuses to ask how long it takes.

use simulation::experiment::run_one;
use simulation::faults::FaultRates;
use simulation::fleet::{FleetPlan, alike, eight_macs};
use simulation::world::{Fate, Stage};

use crate::{build, experiment, policies};

/// Something breaks every other second.
const TERRIBLE: FaultRates = FaultRates {
    crashes: 60.0,
    hangs: 30.0,
    lies: 30.0,
    losses: 30.0,
    slowings: 30.0,
    slow_factor: 8.0,
    load_failures: 30.0,
    silences: 30.0,
    refusals: 30.0,
    lasting_s: 10.0,
};

#[test]
fn every_request_ends_exactly_once_whatever_breaks() {
    let mut experiment = experiment("bad-day", 0.02);
    experiment.faults = TERRIBLE;
    experiment.workload.poison_share = 0.02;
    experiment.workload.load = Some(0.35);
    experiment.workload.deadline_s = 60.0;
    experiment.workload.variations = vec![1.0];
    let (mut broken, mut completed) = (0, 0);
    for seed in 1..=250 {
        let name = policies()[seed as usize % policies().len()];
        experiment.checked = seed % 4 == 0;
        let (fleet, work) = build(&experiment, seed);
        for policy in std::iter::once(name).chain((seed % 3 == 0).then_some("mlx-serving")) {
            let outcome = run_one(&experiment, &fleet, &work, policy, seed).expect("an outcome");
            assert_eq!(outcome.violations, [], "{policy}, seed {seed}");
            let count = |fate| outcome.lives.iter().filter(|life| life.stage == Stage::Over(fate)).count();
            broken += count(Fate::Broken);
            completed += count(Fate::Completed);
            assert_eq!(
                count(Fate::Broken) + count(Fate::Completed) + count(Fate::Refused),
                work.requests.len()
            );
        }
    }
    assert!(broken > 100 && completed > 2_000, "faults bite, and most survive: {broken} {completed}");
}

#[test]
fn every_request_ends_exactly_once_when_models_come_and_go() {
    let mut experiment = experiment("models", 0.2);
    experiment.fleet.placed = Some(0);
    experiment.faults =
        FaultRates { load_failures: 10.0, losses: 5.0, lasting_s: 20.0, ..FaultRates::default() };
    for seed in 1..=10 {
        let (fleet, work) = build(&experiment, seed);
        for policy in ["round-robin", "jsq", "expected-completion"] {
            let outcome = run_one(&experiment, &fleet, &work, policy, seed).expect("an outcome");
            assert_eq!(outcome.violations, [], "{policy}, seed {seed}");
            assert!(outcome.loads > 8, "models were loaded on demand: {}", outcome.loads);
        }
    }
}

#[test]
fn a_completed_answer_has_all_its_tokens_and_a_broken_one_has_some() {
    let mut experiment = experiment("bad-day", 0.5);
    experiment.faults.crashes = 10.0;
    let (fleet, work) = build(&experiment, 3);
    let outcome = run_one(&experiment, &fleet, &work, "mlx-serving", 3).expect("an outcome");
    for (request, life) in work.requests.iter().zip(&outcome.lives) {
        match life.stage {
            Stage::Over(Fate::Completed) => assert_eq!(life.generated, request.output_tokens()),
            Stage::Over(Fate::Broken) => assert!((1..=request.output_tokens()).contains(&life.generated)),
            Stage::Over(Fate::Refused) => assert_eq!(life.generated, 0),
            Stage::Unborn | Stage::Waiting | Stage::Transit | Stage::Running => panic!("{life:?}"),
        }
    }
}

#[test]
fn without_faults_nothing_is_shed_and_nothing_breaks() {
    for macs in [eight_macs(), alike("M1", 16.0, 3)] {
        let mut experiment = experiment("chat", 0.1);
        experiment.fleet = FleetPlan::of(macs, &["8b"]);
        let (fleet, work) = build(&experiment, 1);
        for policy in policies() {
            let outcome = run_one(&experiment, &fleet, &work, policy, 1).expect("an outcome");
            assert!(outcome.lives.iter().all(|life| life.stage == Stage::Over(Fate::Completed)), "{policy}");
            assert_eq!(outcome.violations, [], "{policy}");
        }
    }
}
