//! Experiments by name.
//!
//! Owns a list of situations that matter: rooms of one kind and of many, even and bursty streams, more than enough work, one
//! tenant that floods, more models than room, a bad day. Refuses to be a benchmark suite; each is a start to change from.

use crate::experiment::{Experiment, policy_names};
use crate::faults::FaultRates;
use crate::fleet::{FleetPlan, alike, eight_macs};
use crate::workload::{Source, WorkloadPlan};

/// Name and meaning of each preset.
pub const PRESETS: [(&str, &str); 10] = [
    ("eight-macs", "eight unequal Macs, conversations with shared prefixes"),
    ("chat", "eight unequal Macs, single prompts in an even stream"),
    ("code", "eight unequal Macs, long prompts and short answers in bursts"),
    ("alike", "eight equal Macs, conversations"),
    ("room", "thirty-two unequal Macs, conversations"),
    ("hall", "a thousand unequal Macs, single prompts"),
    ("models", "eight models with room for three on each of four Macs"),
    ("saturation", "six tenants, each of whom wants more than its share"),
    ("flood", "one more tenant asks for twice what there is, for a third of the time"),
    ("bad-day", "eight unequal Macs on which everything breaks now and then"),
];

/// The experiment of that name, with every policy and one seed.
#[must_use]
pub fn preset(name: &str) -> Option<Experiment> {
    let (name, _) = PRESETS.into_iter().find(|(known, _)| *known == name)?;
    Some(Experiment {
        name: name.to_string(),
        fleet: fleet(name),
        workload: workload(name),
        faults: if name == "bad-day" { FaultRates::bad_day() } else { FaultRates::default() },
        policies: policy_names().into_iter().map(str::to_string).collect(),
        seeds: 1,
        first_seed: 1,
        checked: false,
        watched: matches!(name, "saturation" | "flood"),
    })
}

fn fleet(name: &str) -> FleetPlan {
    let unequal = FleetPlan::of(eight_macs(), &["8b"]);
    match name {
        "alike" => FleetPlan::of(alike("M2 Max", 64.0, 8), &["8b"]),
        "room" => FleetPlan { times: 4, ..unequal },
        "hall" => FleetPlan { times: 125, ..unequal },
        "models" => {
            let models = ["8b", "14b", "8b", "14b", "8b", "14b", "8b", "14b"];
            FleetPlan::of(alike("M2 Max", 64.0, 4), &models)
        }
        _ => unequal,
    }
}

fn workload(name: &str) -> WorkloadPlan {
    let conversations = WorkloadPlan::default();
    let chat = WorkloadPlan { source: Source::AzureChat, length_scale: 1.0, ..conversations.clone() };
    match name {
        "chat" => chat,
        "code" => WorkloadPlan { source: Source::AzureCode, length_scale: 1.0, ..conversations },
        "hall" => WorkloadPlan { hours: 0.1, ..chat },
        "models" => WorkloadPlan { load: Some(0.5), ..chat },
        "saturation" => {
            WorkloadPlan { tenants: 6, tenant_zipf: 0.5, load: Some(3.0), hours: 0.5, ..conversations }
        }
        "flood" => WorkloadPlan { load: Some(0.4), flood: 2.0, tenants: 10, ..conversations },
        "bad-day" => WorkloadPlan { load: Some(0.5), poison_share: 1e-4, hours: 8.0, ..conversations },
        _ => conversations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_makes_a_fleet_that_holds_all_its_models() {
        for (name, _) in PRESETS {
            let experiment = preset(name).expect("a preset");
            let fleet = experiment.fleet.build().expect("a fleet");
            for index in 0..fleet.models.len() {
                let held = |node: &crate::fleet::NodeSpec| node.holds.iter().any(|m| m.0 as usize == index);
                assert!(fleet.nodes.iter().any(held), "{name}: nobody holds model {index}");
            }
        }
        assert_eq!(preset("nothing"), None);
    }

    #[test]
    fn there_is_room_for_three_of_eight_models() {
        let fleet = preset("models").expect("a preset").fleet.build().expect("a fleet");
        assert!(fleet.nodes.iter().all(|node| node.holds.len() == 3));
    }

    #[test]
    fn an_experiment_survives_its_own_json() {
        for (name, _) in PRESETS {
            let experiment = preset(name).expect("a preset");
            let json = serde_json::to_string(&experiment).expect("json");
            assert_eq!(serde_json::from_str::<Experiment>(&json).expect("an experiment"), experiment);
        }
    }
}
