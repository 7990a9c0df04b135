//! No policy beats a bound. Owns the proof on small rooms; refuses to say how near a policy comes.

use simulation::bounds::{bounds, capacity, isolation, knee, offered_load};
use simulation::experiment::run_one;
use simulation::fleet::{FleetPlan, alike};
use simulation::hardware::Speed;
use simulation::world::{Fate, Stage};

use crate::{build, experiment, policies};

#[test]
fn no_request_is_faster_than_alone_on_the_fastest_node() {
    for (name, hours) in [("eight-macs", 0.1), ("chat", 0.03), ("models", 0.1)] {
        let experiment = experiment(name, hours);
        let (fleet, work) = build(&experiment, 2);
        let alone = isolation(&fleet, &work, 2);
        for policy in policies() {
            let outcome = run_one(&experiment, &fleet, &work, policy, 2).expect("an outcome");
            let mut luckier = 0;
            for ((request, life), alone) in work.requests.iter().zip(&outcome.lives).zip(&alone) {
                // Whoever is served after one that came later may find more in the cache than was known when it came.
                if life.cached > alone.cached_tokens {
                    luckier += 1;
                    continue;
                }
                let since = |at: Option<u64>| (at.expect("it ended") - request.arrived.0) as f64 / 1e6;
                let (first, last) = (since(life.first_token_us), since(life.ended_us));
                assert!(first >= alone.first_token_s - 1e-4, "{policy} {request:?}: {first} {alone:?}");
                assert!(last >= alone.completion_s - 1e-4, "{policy} {request:?}: {last} {alone:?}");
            }
            assert!(luckier * 10 < work.requests.len(), "{policy}: {luckier}");
        }
    }
}

#[test]
fn no_policy_has_done_all_work_before_the_pooled_fluid() {
    for load in [0.7, 3.0] {
        let mut experiment = experiment("eight-macs", 0.05);
        experiment.workload.load = Some(load);
        let (fleet, work) = build(&experiment, 1);
        let drained_at_s = bounds(&fleet, &work, 1).drained_at_s;
        for policy in policies() {
            let outcome = run_one(&experiment, &fleet, &work, policy, 1).expect("an outcome");
            if outcome.lives.iter().any(|life| life.stage != Stage::Over(Fate::Completed)) {
                continue;
            }
            // The noise of single requests is not in the fluid.
            assert!(outcome.ended_us as f64 / 1e6 > drained_at_s * 0.98, "{policy} at {load}");
        }
    }
}

#[test]
fn a_batch_is_as_wide_as_one_more_row_pays() {
    let speed = |batch_slope, kv_token_s| Speed {
        step_s: 0.02,
        batch_slope,
        kv_token_s,
        prefill_tokens_per_s: 1_000.0,
        attention_pair_s: 0.0,
        overhead_s: 0.0,
        load_s: None,
    };
    assert_eq!(knee(&speed(0.0, 0.0), 1_000.0, 16), 16, "rows for nothing");
    assert_eq!(knee(&speed(1.0, 0.0), 1_000.0, 16), 1, "rows for their full price");
    // 1, 1.54, 1.875, 2.105, 2.273, 2.4, 2.5, 2.58: the sixth adds 5.6 %, the seventh 4.2 %.
    assert_eq!(knee(&speed(0.3, 0.0), 1_000.0, 16), 6);
    assert!(knee(&speed(0.3, 1e-5), 1_000.0, 16) < 6, "a long context makes rows dearer");
}

#[test]
fn capacity_grows_with_the_number_of_nodes_and_load_is_a_share_of_it() {
    let mut experiment = experiment("chat", 0.3);
    experiment.fleet = FleetPlan::of(alike("M2 Max", 64.0, 2), &["8b"]);
    let (two, work) = build(&experiment, 1);
    experiment.fleet.times = 3;
    let six = experiment.fleet.build().expect("a fleet");
    assert!((capacity(&six, &work) / capacity(&two, &work) - 3.0).abs() < 1e-9);
    assert!((offered_load(&two, &work) - 0.7).abs() < 1e-3);
}

/// One Mac: the fluid is the Mac, which reads and writes by turns.
#[test]
fn the_capacity_of_one_node_is_one_request_for_its_prefill_and_its_part_of_a_batch() {
    let mut experiment = experiment("chat", 2.0);
    experiment.fleet = FleetPlan::of(alike("M1 Max", 64.0, 1), &["8b"]);
    let (fleet, work) = build(&experiment, 1);
    let speed = fleet.speed(fleet.nodes[0].id, fleet.nodes[0].holds[0]);
    let seconds = work.requests.iter().map(|request| {
        let (prompt, output) = (f64::from(request.prompt_tokens), f64::from(request.output_tokens()));
        let kv_tokens = prompt + output / 2.0;
        let rows = f64::from(knee(&speed, kv_tokens, 16));
        speed.prefill_s(prompt, 0.0) + output * speed.step_s(rows, rows * kv_tokens) / rows
    });
    let mean = seconds.sum::<f64>() / work.requests.len() as f64;
    assert!((capacity(&fleet, &work) * mean - 1.0).abs() < 0.02);
}
