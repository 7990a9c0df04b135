//! A node speaks, is lost, or is told apart from the others.
//!
//! Owns the routing of a report: residency and room to `fleet`, slots to `batcher`, speeds to `rates`, what could be loaded to
//! `residency`. A report never changes what runs; it takes back only what had not begun on a model that is gone.

use crate::command::Failure;
use crate::effect::AbortReason;
use crate::ids::{Lane, ModelId, NodeId};
use crate::machine::Scheduler;
use crate::report::{ModelReport, ModelState, NodeReport};
use crate::turn::Turn;

impl Scheduler {
    pub(crate) fn node_reported(&mut self, node: NodeId, report: NodeReport, turn: &mut Turn<'_>) {
        let limits = &self.limits;
        let budget_bytes = report.budget_bytes;
        let models = report.believed(limits.models_per_node_max, limits.slots_max, limits.samples_max);
        let ready: alloc::vec::Vec<&ModelReport> =
            models.iter().filter(|model| model.state == ModelState::Ready).collect();
        let Some(gone) = self.fleet.report(node, &ready, limits.nodes_max) else { return };
        for model in &models {
            self.learn_speed((node, model.model), model);
        }
        for model in &ready {
            self.holds((node, model.model), model, turn);
        }
        for model in gone {
            self.left_node((node, model), turn);
        }
        self.homes_reported(node, budget_bytes, &models, turn);
    }

    fn learn_speed(&mut self, lane: Lane, model: &ModelReport) {
        self.rates.seed(lane, model.rates);
        for sample in &model.measured.steps {
            self.rates.steps(lane, self.now, *sample);
        }
        if let Some(load) = model.measured.load {
            self.rates.loaded(lane, model.bytes, load.0 as f64 / 1e6);
        }
    }

    fn holds(&mut self, lane: Lane, model: &ModelReport, turn: &mut Turn<'_>) {
        self.batcher.report(lane, model.slots);
        self.bend(lane);
        self.prefixes.capacity(lane, model.prefix_tokens);
        self.trust(lane);
        self.measure_pace(lane.1);
        turn.due.insert(lane.1);
    }

    /// A runtime carries as many as pay: up to the knee, and few while nobody knows how it takes company.
    fn bend(&mut self, lane: Lane) {
        let limits = &self.limits;
        let slots = self.batcher.slots(lane);
        let speed = self.rates.speed(lane);
        // A chip that is slow by itself is not made to serve one at a time.
        let target_s = (limits.inter_token_target.0 as f64 / 1e6).max(2.0 * speed.step_s(1, 0));
        let each = self.ledger.kv_tokens(lane).checked_div(self.ledger.on_lane(lane)).unwrap_or(0);
        let knee = speed.knee(target_s, each, slots, limits.rates_learning.gain_min);
        let knee = if self.rates.pays_at_two(lane) == Some(false) { 1 } else { knee };
        self.batcher.bend(lane, if self.rates.is_fresh(lane) { knee.min(limits.fresh_width) } else { knee });
    }

    pub(crate) fn measure_pace(&mut self, model: ModelId) {
        let usual = self.limits.usual_width.max(1);
        let (rates, batcher, prompt) = (&self.rates, &self.batcher, self.limits.prefill_chunk_max.max(1));
        let paces = self.fleet.holders(model).map(|node| {
            let speed = rates.speed((node, model));
            let width = batcher.limit((node, model)).clamp(1, usual);
            (speed.prefill_s(prompt, 0) / f64::from(prompt), speed.step_s(width, 0) / f64::from(width))
        });
        self.reference.measured(model, paces);
    }

    /// The model is not there any more. Attempts that have begun may yet end well; their streams will say.
    fn left_node(&mut self, lane: Lane, turn: &mut Turn<'_>) {
        self.batcher.forget(lane);
        self.prefixes.forget(lane);
        self.untrust(lane, turn);
        self.measure_pace(lane.1);
        turn.due.insert(lane.1);
        for request in self.ledger.requests_on_lane(lane) {
            if self.requests.get(request).is_some_and(|record| record.run.is_some() && !record.began()) {
                self.retry(request, turn);
            }
        }
    }

    pub(crate) fn node_lost(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        let held = self.fleet.lose(node);
        let ran = self.ledger.requests_on_node(node);
        self.node_died(node, &held, &ran, turn);
        for model in held {
            self.batcher.forget((node, model));
            self.prefixes.forget((node, model));
            self.measure_pace(model);
            turn.due.insert(model);
        }
        for request in ran {
            match self.requests.get(request).map(|record| (record.run.is_some(), record.began())) {
                Some((true, true)) => self.abort(request, AbortReason::NodeLost, turn),
                Some((true, false)) => self.retry(request, turn),
                Some((false, _)) | None => {}
            }
        }
        self.homes_lost(node, turn);
    }
}

/// Whether the runtime itself ended, and everything that ran in it with it.
pub(crate) fn is_death(failure: Failure) -> bool {
    match failure {
        Failure::RuntimeExit | Failure::Hang => true,
        Failure::Reset | Failure::Corrupt | Failure::Internal => false,
    }
}
