//! Many small rooms, each of another seed, in which things break: the scheduler's laws hold after every event.
//!
//! Owns the campaign. `SEEDS=100000 cargo nextest run -p simulation campaign` runs a long one; a seed that breaks a law is named, and
//! `FIRST=<seed> SEEDS=1` runs it alone.

use simulation::experiment::run_one;
use simulation::faults::FaultRates;

use crate::{build, experiment};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn the_laws_hold_after_every_event_of_every_seed() {
    let (first, seeds) = (number("FIRST", 1), number("SEEDS", 2_000));
    let presets = ["bad-day", "models", "flood", "eight-macs"];
    for seed in first..first + seeds {
        let mut experiment = experiment(presets[seed as usize % presets.len()], 0.002);
        experiment.workload.poison_share = 0.01;
        experiment.workload.deadline_s = 40.0;
        experiment.faults =
            FaultRates { crashes: 40.0, losses: 20.0, hangs: 10.0, lasting_s: 8.0, ..FaultRates::bad_day() };
        experiment.checked = true;
        let (fleet, work) = build(&experiment, seed);
        let outcome = run_one(&experiment, &fleet, &work, "mlx-serving", seed).expect("an outcome");
        assert_eq!(outcome.violations, [], "seed {seed}");
    }
}
