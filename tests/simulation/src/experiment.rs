//! An experiment: a fleet, a workload, faults, the policies to compare, the seeds to try.
//!
//! Owns its description as data and the run of it. Refuses the clock of the wall: what comes out depends on what goes in and
//! on nothing else.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use scheduler::Limits;
use serde::{Deserialize, Serialize};

use crate::bounds::{self, Bounds};
use crate::faults::FaultRates;
use crate::fleet::{Fleet, FleetPlan};
use crate::metrics::{Score, score};
use crate::mind::{Knowledge, Mind};
use crate::policy::Bound;
use crate::policy::rules::{CACHE_AWARE_DEFAULT, CACHE_AWARE_TUNED, Rule};
use crate::report::{Report, Row};
use crate::request::Workload;
use crate::workload::WorkloadPlan;
use crate::world::{Outcome, Violation, World};

/// Everything that decides what comes out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// What it is called in reports.
    pub name: String,
    /// Which Macs and models.
    pub fleet: FleetPlan,
    /// Who asks for what.
    #[serde(default)]
    pub workload: WorkloadPlan,
    /// What breaks.
    #[serde(default)]
    pub faults: FaultRates,
    /// Which policies, by name.
    pub policies: Vec<String>,
    /// How many seeds.
    #[serde(default = "one")]
    pub seeds: u64,
    /// The first of them.
    #[serde(default = "one")]
    pub first_seed: u64,
    /// Whether the scheduler's laws are tried after every event.
    #[serde(default)]
    pub checked: bool,
    /// Whether the tenants' shares are watched.
    #[serde(default)]
    pub watched: bool,
}

fn one() -> u64 {
    1
}

/// The real scheduler, told what a chip table says, nothing, or everything.
const MINDS: [(&str, Knowledge); 3] = [
    ("mlx-serving", Knowledge::Table),
    ("mlx-serving-blind", Knowledge::Nothing),
    ("mlx-serving-perfect", Knowledge::Perfect),
];

/// What it is compared with.
const RULES: [(&str, Rule); 12] = [
    ("round-robin", Rule::RoundRobin),
    ("random", Rule::Random),
    ("jsq", Rule::ShortestQueue),
    ("jsq-weighted", Rule::WeightedQueue),
    ("p2c", Rule::TwoChoices),
    ("p2c-ewma", Rule::TwoChoicesEwma),
    ("bounded-hash", Rule::BoundedHash),
    ("cache-aware", Rule::CacheAware(CACHE_AWARE_DEFAULT)),
    ("cache-aware-tuned", Rule::CacheAware(CACHE_AWARE_TUNED)),
    ("least-load", Rule::LeastLoad),
    ("min-ttft", Rule::EarliestFirstToken),
    ("expected-completion", Rule::ExpectedCompletion),
];

/// The names of all policies.
#[must_use]
pub fn policy_names() -> Vec<&'static str> {
    MINDS.iter().map(|(name, _)| *name).chain(RULES.iter().map(|(name, _)| *name)).collect()
}

/// Runs every policy on every seed.
///
/// # Errors
/// What the experiment names that does not exist.
pub fn run(experiment: &Experiment) -> Result<Report, String> {
    let fleet = experiment.fleet.build()?;
    let mut rows: Vec<Row> = experiment.policies.iter().map(|name| Row::new(name)).collect();
    let mut bounds = Vec::new();
    for seed in (experiment.first_seed..).take(experiment.seeds as usize) {
        let work = experiment.workload.build(&fleet, seed)?;
        bounds.push(bounds::bounds(&fleet, &work, seed));
        for (row, score) in rows.iter_mut().zip(run_all(experiment, &fleet, &work, seed)) {
            row.add(seed, score?);
        }
    }
    Ok(Report::new(experiment, fleet.nodes.len(), Bounds::mean(&bounds), rows))
}

/// Every policy on one seed, as many at once as there are cores: runs know nothing of one another.
fn run_all(experiment: &Experiment, fleet: &Fleet, work: &Workload, seed: u64) -> Vec<Result<Score, String>> {
    let next = AtomicUsize::new(0);
    let work_off = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(policy) = experiment.policies.get(index) else { return done };
            let outcome = run_one(experiment, fleet, work, policy, seed);
            done.push((index, outcome.map(|outcome| score(work, &outcome))));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut done: Vec<(usize, Result<Score, String>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work_off)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, score)| score).collect()
}

/// One policy on one seed.
///
/// # Errors
/// The policy's name if there is none of that name.
pub fn run_one(
    experiment: &Experiment,
    fleet: &Fleet,
    work: &Workload,
    policy: &str,
    seed: u64,
) -> Result<Outcome, String> {
    let faults = experiment.faults.draw(fleet, work.span_s(), seed);
    let mut world = World::new(work, fleet, &faults, seed);
    if experiment.watched {
        world = world.watched();
    }
    if let Some((_, knowledge)) = MINDS.iter().find(|(name, _)| *name == policy) {
        let mut mind = Mind::new(fleet, work, *knowledge, Limits::default(), seed);
        if experiment.checked {
            mind = mind.checked();
        }
        let mut outcome = world.run(&mut mind);
        outcome.violations.extend(mind.broken().map(|law| Violation::Scheduler(law.to_string())));
        return Ok(outcome);
    }
    let (_, rule) = RULES.iter().find(|(name, _)| *name == policy).ok_or_else(|| unknown(policy))?;
    Ok(world.run(&mut Bound::new(*rule, fleet, work, seed)))
}

fn unknown(policy: &str) -> String {
    format!("no policy is called {policy}; there are {}", policy_names().join(", "))
}
