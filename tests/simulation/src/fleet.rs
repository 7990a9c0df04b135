//! Which Macs there are and which models they may hold.
//!
//! Owns the description of a fleet and its presets. Refuses state: a fleet is the same before and after a run.

use scheduler::{ModelId, NodeId};
use serde::{Deserialize, Serialize};

use crate::hardware::{Chip, Model, Speed, chip_named, model_named, speed};
use crate::limits::{CACHE_SHARE, CHUNK_TOKENS, GPU_MEMORY_SHARE, KV_FLOOR_SHARE, ROWS_MAX};

/// What a fleet is made of, as an experiment names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetPlan {
    /// The Macs, in the order of their numbers.
    pub macs: Vec<Mac>,
    /// How many times the list is repeated.
    #[serde(default = "once")]
    pub times: usize,
    /// The models, in the order of their numbers.
    pub models: Vec<String>,
    /// How many of the models each node holds at the start: all that fit when it is absent.
    #[serde(default)]
    pub placed: Option<usize>,
    /// Sequences a runtime takes at once.
    #[serde(default = "rows_max")]
    pub rows_max: u32,
}

/// One Mac of a fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mac {
    /// A name of the chip table.
    pub chip: String,
    /// Its memory.
    pub memory_gb: f64,
    /// How fast each model was measured to run there, in the order of the models; by the chip table when it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Speed>,
}

/// A fleet with all its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// The nodes; a node's number is its index.
    pub nodes: Vec<NodeSpec>,
    /// The models; a model's number is its index.
    pub models: Vec<Model>,
    /// By node, then by model.
    speeds: Vec<Vec<Speed>>,
}

/// A node with all its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Its number.
    pub id: NodeId,
    /// Its chip.
    pub chip: Chip,
    /// What its GPU may use.
    pub memory_bytes: f64,
    /// What each runtime's prefix cache may fill.
    pub cache_bytes: f64,
    /// How fast weights come from its disk.
    pub load_bytes_per_s: f64,
    /// Sequences a runtime takes at once.
    pub rows_max: u32,
    /// Prompt tokens between two decode steps.
    pub chunk_tokens: u32,
    /// What it holds at the start.
    pub holds: Vec<ModelId>,
}

fn once() -> usize {
    1
}

fn rows_max() -> u32 {
    ROWS_MAX
}

fn mac(chip: &str, memory_gb: f64) -> Mac {
    Mac { chip: chip.to_string(), memory_gb, measured: Vec::new() }
}

/// Eight Macs as a team collects them: sixteen times between the slowest and the fastest.
#[must_use]
pub fn eight_macs() -> Vec<Mac> {
    vec![
        mac("M1", 16.0),
        mac("M1 Pro", 32.0),
        mac("M1 Max", 64.0),
        mac("M2 Pro", 32.0),
        mac("M3 Max", 64.0),
        mac("M4 Pro", 48.0),
        mac("M2 Ultra", 128.0),
        mac("M3 Ultra", 256.0),
    ]
}

/// Macs of one kind.
#[must_use]
pub fn alike(chip: &str, memory_gb: f64, count: usize) -> Vec<Mac> {
    vec![mac(chip, memory_gb); count]
}

impl FleetPlan {
    /// The Macs with these models, each holding all it can.
    #[must_use]
    pub fn of(macs: Vec<Mac>, models: &[&str]) -> Self {
        let models = models.iter().map(ToString::to_string).collect();
        Self { macs, times: 1, models, placed: None, rows_max: ROWS_MAX }
    }

    /// The fleet with its numbers.
    ///
    /// # Errors
    /// The name that no table has.
    pub fn build(&self) -> Result<Fleet, String> {
        let models: Vec<Model> = self
            .models
            .iter()
            .map(|name| model_named(name).ok_or_else(|| format!("no model is called {name}")))
            .collect::<Result<_, _>>()?;
        let macs = || self.macs.iter().cycle().take(self.macs.len() * self.times);
        let nodes: Vec<NodeSpec> = macs()
            .enumerate()
            .map(|(index, mac)| self.node(index, mac, &models))
            .collect::<Result<_, _>>()?;
        let speeds = nodes.iter().zip(macs()).map(|(node, mac)| speeds(node, mac, &models));
        Ok(Fleet::new(nodes.clone(), models.clone(), speeds.collect::<Result<_, _>>()?))
    }

    fn node(&self, index: usize, mac: &Mac, models: &[Model]) -> Result<NodeSpec, String> {
        let chip = chip_named(&mac.chip).ok_or_else(|| format!("no chip is called {}", mac.chip))?;
        let memory_bytes = mac.memory_gb * 1e9 * GPU_MEMORY_SHARE;
        let mut node = NodeSpec {
            id: NodeId(index as u64),
            chip,
            memory_bytes,
            cache_bytes: memory_bytes * CACHE_SHARE,
            load_bytes_per_s: chip.ssd_gb_per_s * 1e9,
            rows_max: self.rows_max,
            chunk_tokens: CHUNK_TOKENS,
            holds: Vec::new(),
        };
        node.holds = self.first_holds(index, &node, models);
        Ok(node)
    }

    /// Models in turn, from a different one on each node, so that all of them are somewhere if there is room.
    fn first_holds(&self, index: usize, node: &NodeSpec, models: &[Model]) -> Vec<ModelId> {
        let mut holds = Vec::new();
        let (count, nodes) = (models.len(), self.macs.len() * self.times);
        for step in 0..count {
            let model = ModelId(((index * count / nodes + step) % count) as u32);
            let full = self.placed.is_some_and(|placed| holds.len() >= placed);
            if !full && node.fits(models, &holds, model) {
                holds.push(model);
            }
        }
        holds
    }
}

/// How fast each model runs on the node: as it was measured, else as its chip lets expect.
fn speeds(node: &NodeSpec, mac: &Mac, models: &[Model]) -> Result<Vec<Speed>, String> {
    let (measured, count) = (mac.measured.len(), models.len());
    match measured {
        0 => Ok(models.iter().map(|model| speed(&node.chip, model)).collect()),
        _ if measured == count => Ok(mac.measured.clone()),
        _ => Err(format!("{measured} speeds were measured on a Mac, and there are {count} models")),
    }
}

impl NodeSpec {
    /// Whether the model fits beside those held.
    #[must_use]
    pub fn fits(&self, models: &[Model], held: &[ModelId], model: ModelId) -> bool {
        let all = held.iter().chain([&model]);
        let bytes: f64 = all.map(|model| models[model.0 as usize].weights_bytes + self.cache_bytes).sum();
        bytes <= self.weights_room()
    }

    /// What weights and prefix caches may take.
    #[must_use]
    pub fn weights_room(&self) -> f64 {
        self.memory_bytes * (1.0 - KV_FLOOR_SHARE)
    }
}

impl Fleet {
    /// A fleet of given numbers: each node's speed for each model, by node and then by model.
    #[must_use]
    pub fn new(nodes: Vec<NodeSpec>, models: Vec<Model>, speeds: Vec<Vec<Speed>>) -> Self {
        Self { nodes, models, speeds }
    }

    /// The model of that number.
    #[must_use]
    pub fn model(&self, model: ModelId) -> &Model {
        &self.models[model.0 as usize]
    }

    /// The node of that number.
    #[must_use]
    pub fn node(&self, node: NodeId) -> &NodeSpec {
        &self.nodes[node.0 as usize]
    }

    /// How fast the model runs on the node, in truth.
    #[must_use]
    pub fn speed(&self, node: NodeId, model: ModelId) -> Speed {
        self.speeds(node)[model.0 as usize]
    }

    /// The same of every model.
    #[must_use]
    pub fn speeds(&self, node: NodeId) -> &[Speed] {
        &self.speeds[node.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(fleet: &Fleet) -> Vec<Vec<u32>> {
        fleet.nodes.iter().map(|node| node.holds.iter().map(|model| model.0).collect()).collect()
    }

    #[test]
    fn a_list_of_macs_may_be_repeated() {
        let fleet = FleetPlan { times: 3, ..FleetPlan::of(eight_macs(), &["8b"]) }.build().expect("a fleet");
        assert_eq!(fleet.nodes.len(), 24);
        assert_eq!(fleet.nodes[9].id, NodeId(9));
        assert_eq!(fleet.nodes[9].chip.name, "M1 Pro");
        assert_eq!(fleet.speed(NodeId(1), ModelId(0)), fleet.speed(NodeId(17), ModelId(0)));
    }

    #[test]
    fn models_are_spread_over_the_nodes_as_far_as_memory_goes() {
        let plan = FleetPlan::of(alike("M2 Max", 64.0, 4), &["8b"; 8]);
        assert_eq!(holds(&plan.build().expect("a fleet")), [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 0]]);
        let plan = FleetPlan { placed: Some(1), ..plan };
        assert_eq!(holds(&plan.build().expect("a fleet")), [[0], [2], [4], [6]]);
        let plan = FleetPlan { placed: Some(0), ..plan };
        assert_eq!(holds(&plan.build().expect("a fleet")), [[0_u32; 0]; 4]);
    }

    #[test]
    fn a_model_that_is_too_large_is_not_held() {
        let fleet = FleetPlan::of(alike("M1", 16.0, 1), &["32b", "8b"]).build().expect("a fleet");
        assert_eq!(holds(&fleet), [[1]]);
    }

    #[test]
    fn a_mac_that_was_measured_runs_as_measured_and_its_chip_does_not_matter() {
        let speed = speed(&chip_named("M1").expect("a chip"), &model_named("8b").expect("a model"));
        let measured = vec![Speed { load_s: Some(3.0), ..speed }, Speed { step_s: 0.5, ..speed }];
        let macs = vec![Mac { measured: measured.clone(), ..mac("M4 Max", 64.0) }, mac("M1", 64.0)];
        let fleet = FleetPlan::of(macs.clone(), &["8b", "8b"]).build().expect("a fleet");
        let speeds = |node| [0, 1].map(|model| fleet.speed(NodeId(node), ModelId(model)));
        assert_eq!(speeds(0).as_slice(), measured);
        assert_eq!(speeds(1), [speed, speed]);
        let error = FleetPlan::of(macs, &["8b"]).build().expect_err("an error");
        assert_eq!(error, "2 speeds were measured on a Mac, and there are 1 models");
    }

    #[test]
    fn names_that_nobody_knows_are_errors() {
        let error = |macs, models: &[&str]| FleetPlan::of(macs, models).build().expect_err("an error");
        assert_eq!(error(alike("M0", 16.0, 1), &["8b"]), "no chip is called M0");
        assert_eq!(error(alike("M1", 16.0, 1), &["9b"]), "no model is called 9b");
    }
}
