//! Whole runs: what must hold of a room whatever the policy, and what is known of policies from elsewhere.
//!
//! Owns the experiments that the tests share. Each is as small as its statement allows.

#![expect(clippy::expect_used, reason = "what a test needs must be there")]

mod bounds;
mod conservation;
mod determinism;
mod evidence;
mod faults;
mod scripted;
mod workloads;

use simulation::experiment::{Experiment, policy_names};
use simulation::fleet::Fleet;
use simulation::presets::preset;
use simulation::request::Workload;

/// A preset, shorter.
fn experiment(name: &str, hours: f64) -> Experiment {
    let mut experiment = preset(name).expect("a preset");
    experiment.workload.hours = hours;
    experiment
}

fn build(experiment: &Experiment, seed: u64) -> (Fleet, Workload) {
    let fleet = experiment.fleet.build().expect("a fleet");
    let work = experiment.workload.build(&fleet, seed).expect("a workload");
    (fleet, work)
}

/// Every policy; the scheduler with one kind of knowledge, since it is slow where every command is checked.
fn policies() -> Vec<&'static str> {
    policy_names().into_iter().filter(|name| !name.starts_with("mlx-serving-")).collect()
}
