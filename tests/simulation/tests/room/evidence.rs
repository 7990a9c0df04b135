//! What is known of these policies from elsewhere shows here too; if it did not, the room would be wrong.

use simulation::experiment::run;
use simulation::metrics::Score;

use crate::experiment;

/// Mean over three seeds, by policy.
fn mean(name: &str, load: f64, policies: &[&str], number: fn(&Score) -> f64) -> Vec<f64> {
    let mut experiment = experiment(name, if policies[0].starts_with("mlx") { 0.2 } else { 0.7 });
    experiment.workload.load = Some(load);
    // Bursts of single tenants make any policy look bad for as long as they last.
    experiment.workload.variations = vec![1.0];
    experiment.policies = policies.iter().map(ToString::to_string).collect();
    experiment.seeds = 3;
    run(&experiment).expect("a report").rows.iter().map(|row| row.mean(number)).collect()
}

fn first_token(score: &Score) -> f64 {
    score.all.first_token.mean
}

#[test]
fn on_unequal_macs_who_knows_their_speed_is_far_ahead_of_who_counts_requests() {
    let policies = ["expected-completion", "jsq-weighted", "jsq", "p2c-ewma", "random"];
    let [expected, weighted, shortest, two, random] = mean("eight-macs", 0.6, &policies, first_token)[..]
    else {
        panic!("five rows")
    };
    assert!(expected < weighted && weighted < shortest, "{expected} {weighted} {shortest}");
    assert!(shortest > 2.0 * expected, "{shortest} {expected}");
    assert!(two > shortest, "{two} {shortest}");
    assert!(random > 20.0 * expected, "{random} {expected}");
}

#[test]
fn cache_aware_routing_at_its_defaults_overloads_slow_macs_and_tuned_does_not() {
    let policies = ["cache-aware", "cache-aware-tuned", "expected-completion"];
    let [defaults, tuned, expected] = mean("eight-macs", 0.6, &policies, first_token)[..] else {
        panic!("three rows")
    };
    assert!(defaults > 2.0 * tuned && tuned > expected, "{defaults} {tuned} {expected}");
}

#[test]
fn on_equal_macs_counting_requests_is_good_enough() {
    let policies = ["jsq", "expected-completion"];
    let [shortest, expected] = mean("alike", 0.5, &policies, |score| score.all.completion.mean)[..] else {
        panic!("two rows")
    };
    assert!(shortest < 1.3 * expected, "{shortest} {expected}");
}

#[test]
fn who_looks_at_caches_has_more_hits() {
    let policies = ["expected-completion", "bounded-hash", "jsq"];
    let [expected, hash, shortest] = mean("eight-macs", 0.6, &policies, |score| score.hit_rate)[..] else {
        panic!("three rows")
    };
    assert!(expected > 1.5 * shortest && hash > 1.5 * shortest, "{expected} {hash} {shortest}");
}

#[test]
fn latency_grows_with_the_load() {
    let at = |load| mean("chat", load, &["expected-completion"], first_token)[0];
    let (low, middle, high) = (at(0.2), at(0.6), at(1.1));
    assert!(low < middle && middle < high, "{low} {middle} {high}");
}

#[test]
fn the_scheduler_that_knows_everything_is_ahead_of_the_one_that_was_told_nothing() {
    let policies = ["mlx-serving-perfect", "mlx-serving"];
    let [perfect, nothing] = mean("chat", 0.7, &policies, |score| score.all.completion.mean)[..] else {
        panic!("two rows")
    };
    assert!(perfect < nothing, "{perfect} {nothing}");
}
