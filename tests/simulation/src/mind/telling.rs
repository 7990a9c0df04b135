//! What an agent would tell the scheduler of its node.
//!
//! Owns the translation of a node's report: beside the models that are there, the agent offers those that would fit, says
//! what memory they take and how fast they should be. Refuses to tell more than [`Knowledge`] allows.

use scheduler::{Measured, ModelId, ModelReport, ModelState, NodeId, NodeReport, Rates, StepSample};

use super::Knowledge;
use super::registry::{budget, bytes};
use crate::fleet::{Fleet, NodeSpec};
use crate::limits::TABLE_SIGMA;
use crate::policy;
use crate::random::{Purpose, Random};

pub(super) struct Telling<'a> {
    fleet: &'a Fleet,
    knowledge: Knowledge,
    /// By node, what its chip table's prefill rates and step times are multiplied by.
    errors: Vec<(f64, f64)>,
}

impl<'a> Telling<'a> {
    pub(super) fn new(fleet: &'a Fleet, knowledge: Knowledge, seed: u64) -> Self {
        let error = |node: &NodeSpec| match knowledge {
            Knowledge::Nothing | Knowledge::Perfect => (1.0, 1.0),
            Knowledge::Table => {
                let mut random = Random::new(seed, Purpose::Table, node.id.0);
                (random.log_normal(1.0, TABLE_SIGMA), random.log_normal(1.0, TABLE_SIGMA))
            }
        };
        Self { fleet, knowledge, errors: fleet.nodes.iter().map(error).collect() }
    }

    pub(super) fn report(&self, node: NodeId, report: &policy::NodeReport) -> NodeReport {
        let spec = self.fleet.node(node);
        let room = self.kv_room(spec, report);
        let models = (0..self.fleet.models.len()).map(|index| ModelId(index as u32));
        let offered = models.filter_map(|model| self.model(spec, model, report, room));
        NodeReport { life: 0, budget_bytes: budget(self.fleet, node), models: offered.collect() }
    }

    /// Bytes that weights and prefix caches leave for each of the models that are there.
    fn kv_room(&self, spec: &NodeSpec, report: &policy::NodeReport) -> f64 {
        let held = report.models.iter().map(|model| bytes(self.fleet, spec.id, model.model) as f64);
        let left = spec.memory_bytes - held.sum::<f64>();
        left / report.models.len().max(1) as f64
    }

    fn model(
        &self,
        spec: &NodeSpec,
        model: ModelId,
        report: &policy::NodeReport,
        room: f64,
    ) -> Option<ModelReport> {
        let there = report.models.iter().find(|there| there.model == model);
        if there.is_none() && !spec.fits(&self.fleet.models, &[], model) {
            return None;
        }
        let state = match there.map(|there| there.state) {
            Some(policy::ModelState::Loading) => ModelState::Loading { left: None },
            Some(policy::ModelState::Ready) => ModelState::Ready,
            Some(policy::ModelState::Leaving) => ModelState::Unloading,
            None if report.failed_loads.contains(&model) => ModelState::Failed,
            None => ModelState::Offered,
        };
        let kv_bytes = self.fleet.model(model).kv_bytes;
        Some(ModelReport {
            model,
            state,
            slots: spec.rows_max,
            kv_tokens: (room / kv_bytes) as u32,
            prefix_tokens: (spec.cache_bytes / kv_bytes) as u32,
            bytes: bytes(self.fleet, spec.id, model),
            rates: self.rates(spec.id, model),
            measured: there.map(measured).unwrap_or_default(),
        })
    }

    fn rates(&self, node: NodeId, model: ModelId) -> Rates {
        let (prefill, step) = self.errors[node.0 as usize];
        match self.knowledge {
            Knowledge::Nothing => Rates::default(),
            Knowledge::Table | Knowledge::Perfect => {
                let speed = self.fleet.speed(node, model);
                Rates {
                    prefill_tokens_per_s: (speed.prefill_tokens_per_s * prefill) as f32,
                    step_ms: (speed.step_s * step * 1e3) as f32,
                    batch_slope: speed.batch_slope as f32,
                }
            }
        }
    }
}

fn measured(there: &policy::ModelReport) -> Measured {
    let steps = there.samples.iter().map(|sample| StepSample {
        steps: u32::try_from(sample.steps).unwrap_or(u32::MAX),
        batch: sample.batch as f32,
        kv_tokens: sample.mean_kv_tokens as f32,
        seconds: sample.seconds as f32,
    });
    Measured { steps: steps.collect(), load: there.loaded_in }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{FleetPlan, alike};

    fn fleet() -> Fleet {
        let plan =
            FleetPlan { placed: Some(1), ..FleetPlan::of(alike("M2 Max", 64.0, 200), &["8b", "14b", "70b"]) };
        plan.build().expect("a fleet")
    }

    fn told(knowledge: Knowledge, node: u64, report: &policy::NodeReport) -> NodeReport {
        Telling::new(&fleet(), knowledge, 1).report(NodeId(node), report)
    }

    #[test]
    fn a_node_offers_what_would_fit_beside_what_it_holds() {
        let held = policy::ModelReport {
            model: ModelId(0),
            state: policy::ModelState::Ready,
            slots: 16,
            samples: vec![],
            loaded_in: None,
        };
        let report = policy::NodeReport { models: vec![held], failed_loads: vec![ModelId(1)] };
        let told = told(Knowledge::Nothing, 0, &report);
        let states: Vec<_> = told.models.iter().map(|model| (model.model.0, model.state)).collect();
        assert_eq!(states, [(0, ModelState::Ready), (1, ModelState::Failed)], "70b is too large");
        let taken: u64 = told.models.iter().map(|model| model.bytes).sum();
        assert!(taken <= told.budget_bytes);
        assert!(told.models[0].kv_tokens > 100_000 && told.models[0].prefix_tokens > 10_000);
    }

    #[test]
    fn speeds_are_told_as_far_as_they_are_known() {
        let (nothing, fleet) = (policy::NodeReport::default(), fleet());
        let step = |knowledge, node| f64::from(told(knowledge, node, &nothing).models[0].rates.step_ms);
        let truth = fleet.speed(NodeId(0), ModelId(0)).step_s * 1e3;
        assert_eq!(step(Knowledge::Nothing, 0), 0.0);
        assert!((step(Knowledge::Perfect, 0) / truth - 1.0).abs() < 1e-6);
        let errors = (0..200).map(|node| (step(Knowledge::Table, node) / truth).ln());
        let variance = errors.map(|error| error * error).sum::<f64>() / 200.0;
        assert!((variance.sqrt() - TABLE_SIGMA).abs() < 0.05, "{variance}");
        assert_eq!(step(Knowledge::Table, 7), step(Knowledge::Table, 7));
    }
}
