//! Each fault takes its course, and the policy hears of it no sooner than it could.

use scheduler::{Attempt, RequestId};
use simulation::faults::{Fault, FaultRates};
use simulation::fleet::{FleetPlan, alike};
use simulation::policy::{Canary, Event, FailureKind, ModelState, Order};
use simulation::world::{Fate, Outcome, Stage};

use crate::scripted::{MODEL, NODE, OTHER, first_then_other, play, requests, states};

/// One long request to the first node, and what breaks there in the third second.
fn broken(fault: Fault) -> (Vec<(u64, Event)>, Outcome) {
    play(&requests(&[(0.0, 400)]), &[(3.0, fault)], &[], first_then_other)
}

fn failures(heard: &[(u64, Event)]) -> Vec<(u64, FailureKind)> {
    let failure = |(at, event): &(u64, Event)| {
        if let Event::Failed { kind, .. } = event { Some((*at, *kind)) } else { None }
    };
    heard.iter().filter_map(failure).collect()
}

const LOAD_US: u64 = ((4.52 / 5.5 + 1.0) * 1e6) as u64;

#[test]
fn a_crash_is_noticed_at_once_and_the_runtime_comes_back() {
    let (heard, outcome) = broken(Fault::Crash(NODE, MODEL));
    assert_eq!(failures(&heard), [(3_000_000, FailureKind::Crashed)]);
    let [_, loading, ready] = states(&heard, NODE)[..] else { panic!("three states") };
    assert_eq!((loading.1, ready.1), (Some(ModelState::Loading), Some(ModelState::Ready)));
    assert_eq!(ready.0, 3_000_000 + LOAD_US);
    assert_eq!(outcome.lives[0].node, Some(OTHER));
    assert_eq!((outcome.lives[0].stage, outcome.lives[0].generated), (Stage::Over(Fate::Completed), 400));
}

#[test]
fn a_lost_node_is_silent_until_its_session_counts_as_lost() {
    let work = requests(&[(0.0, 400), (30.0, 10)]);
    let (heard, outcome) = play(&work, &[(3.0, Fault::NodeLost(NODE, 20.0))], &[], first_then_other);
    assert_eq!(failures(&heard), [(6_000_000, FailureKind::NodeLost)]);
    let lost = heard.iter().find(|(_, event)| *event == Event::NodeLost { node: NODE }).expect("the loss");
    assert_eq!(lost.0, 6_000_000);
    let back = states(&heard, NODE)[1..].to_vec();
    let expected = [(23_000_000, Some(ModelState::Loading)), (23_000_000 + LOAD_US, Some(ModelState::Ready))];
    assert_eq!(back, expected);
    let nodes: Vec<_> = outcome.lives.iter().map(|life| life.node).collect();
    assert_eq!(nodes, [Some(OTHER), Some(NODE)], "it serves again");
}

#[test]
fn what_is_sent_to_a_dead_node_fails_when_the_node_counts_as_lost() {
    let work = requests(&[(4.0, 10), (10.0, 10)]);
    let (heard, outcome) = play(&work, &[(3.0, Fault::NodeLost(NODE, 60.0))], &[], first_then_other);
    let expected = [(6_000_000, FailureKind::NodeLost), (10_002_000, FailureKind::NodeLost)];
    assert_eq!(failures(&heard), expected);
    assert!(outcome.lives.iter().all(|life| life.stage == Stage::Over(Fate::Completed)));
}

#[test]
fn a_hung_runtime_is_killed_after_fifteen_seconds_and_started_again() {
    let (heard, outcome) = broken(Fault::Hang(NODE, MODEL));
    assert_eq!(failures(&heard), [(18_000_000, FailureKind::Hung)]);
    assert_eq!(states(&heard, NODE)[1].1, Some(ModelState::Loading));
    assert_eq!(outcome.lives[0].stage, Stage::Over(Fate::Completed));
}

#[test]
fn a_slow_node_takes_longer_by_its_factor_for_a_while() {
    let ended = |faults: &[_]| {
        play(&requests(&[(0.0, 400)]), faults, &[], first_then_other).1.lives[0].ended_us.expect("an end")
    };
    let late = ended(&[(3.0, Fault::Slow(NODE, 4.0, 8.0))]) - ended(&[]);
    // Eight slow seconds do the work of two.
    assert!((5_900_000..6_100_000).contains(&late), "{late}");
}

#[test]
fn a_poison_request_kills_every_runtime_that_reads_it_and_those_beside_it() {
    let mut work = requests(&[(0.0, 400), (1.0, 10)]);
    work.requests[1].truth.poison = true;
    let (heard, outcome) = play(&work, &[], &[], |at, event, orders| {
        if let Event::Failed { request: RequestId(1), attempt: Attempt(2), .. } = event {
            orders.push(Order::Refuse { request: RequestId(1) });
        } else {
            first_then_other(at, event, orders);
        }
    });
    let kinds: Vec<_> = failures(&heard).into_iter().map(|(_, kind)| kind).collect();
    assert!(kinds.len() >= 3 && kinds.iter().all(|kind| *kind == FailureKind::Crashed), "{kinds:?}");
    assert_eq!(outcome.lives[0].stage, Stage::Over(Fate::Completed));
    assert_eq!(outcome.lives[1].stage, Stage::Over(Fate::Refused));
    assert!(outcome.lives[0].attempt.0 >= 2);
}

#[test]
fn a_lying_runtime_answers_garbage_and_only_a_canary_tells() {
    let work = requests(&[(0.0, 10), (5.0, 10), (20.0, 10)]);
    let faults = [(3.0, Fault::Lie(NODE, MODEL)), (15.0, Fault::Crash(NODE, MODEL))];
    let (heard, outcome) = play(&work, &faults, &[10.0], |at, event, orders| {
        first_then_other(at, event, orders);
        if *event == Event::Wake {
            orders.push(Order::Probe { node: NODE, model: MODEL });
        }
    });
    let garbage: Vec<bool> = outcome.lives.iter().map(|life| life.garbage).collect();
    assert_eq!(garbage, [false, true, false], "a restart makes it honest");
    assert!(heard.iter().any(|(_, event)| matches!(event, Event::ProbeDone { answer: Canary::Wrong, .. })));
    assert_eq!(failures(&heard), []);
}

#[test]
fn a_failed_load_is_reported_and_leaves_nothing_behind() {
    let work = requests(&[(0.0, 10), (30.0, 10)]);
    let faults = [(1.0, Fault::Crash(OTHER, MODEL)), (1.5, Fault::LoadsFail(OTHER, 60.0))];
    let (heard, _) = play(&work, &faults, &[], first_then_other);
    let told = heard.into_iter().find_map(|(at, event)| {
        let Event::NodeReport { node: OTHER, report } = event else { return None };
        (!report.failed_loads.is_empty()).then_some((at, report))
    });
    let (at, report) = told.expect("a report of it");
    assert_eq!(at, 1_000_000 + LOAD_US);
    assert_eq!((report.failed_loads, report.models), (vec![MODEL], vec![]));
}

#[test]
fn a_mute_node_works_and_reports_when_it_can() {
    let (heard, outcome) = broken(Fault::Mute(NODE, 4.0));
    let reports: Vec<u64> = heard
        .iter()
        .filter_map(|(at, event)| matches!(event, Event::NodeReport { node: NODE, .. }).then_some(*at))
        .collect();
    assert!(reports.iter().all(|at| !(3_000_001..7_000_000).contains(at)), "{reports:?}");
    assert!(reports.contains(&7_000_000), "{reports:?}");
    assert_eq!(outcome.lives[0].node, Some(NODE));
}

#[test]
fn a_busy_runtime_refuses_what_comes_and_ends_what_it_has() {
    let work = requests(&[(0.0, 400), (4.0, 10)]);
    let (heard, outcome) = play(&work, &[(3.0, Fault::Busy(NODE, 5.0))], &[], first_then_other);
    assert_eq!(failures(&heard), [(4_002_000, FailureKind::Busy)]);
    let nodes: Vec<_> = outcome.lives.iter().map(|life| life.node).collect();
    assert_eq!(nodes, [Some(NODE), Some(OTHER)]);
}

#[test]
fn faults_come_as_often_as_they_should_and_the_same_each_time() {
    let fleet = FleetPlan::of(alike("M1", 16.0, 10), &["8b"]).build().expect("a fleet");
    let rates = FaultRates { crashes: 2.0, hangs: 0.5, lasting_s: 10.0, ..FaultRates::default() };
    let faults = rates.draw(&fleet, 100.0 * 3_600.0, 1);
    let crashes = faults.iter().filter(|(_, fault)| matches!(fault, Fault::Crash(..))).count();
    assert!((1_850..2_150).contains(&crashes), "{crashes}");
    assert!((430..570).contains(&(faults.len() - crashes)), "nothing but hangs beside them");
    assert_eq!(faults, rates.draw(&fleet, 100.0 * 3_600.0, 1));
    assert_ne!(faults, rates.draw(&fleet, 100.0 * 3_600.0, 2));
    let calm = FaultRates { hangs: 0.0, ..rates }.draw(&fleet, 100.0 * 3_600.0, 1);
    assert_eq!(calm.len(), crashes, "one kind less leaves the others as they were");
    assert_eq!(FaultRates::default().draw(&fleet, 1e9, 1), []);
}
