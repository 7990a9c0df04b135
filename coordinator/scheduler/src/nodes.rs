//! A node speaks, is lost, or is told apart from the others.
//!
//! Owns the routing of a report: residency and room to `fleet`, slots to `batcher`, speeds to `rates`, what could be loaded to
//! `residency`. A report never changes what runs; it takes back only what had not begun on a model that is gone.

use crate::blame::Lost;
use crate::command::{Failure, Usage};
use crate::ids::{Lane, ModelId, NodeId};
use crate::machine::Scheduler;
use crate::rates::Speed;
use crate::reference::Typical;
use crate::report::{ModelReport, ModelState, NodeReport};
use crate::time::Span;
use crate::turn::Turn;

impl Scheduler {
    pub(crate) fn node_reported(&mut self, node: NodeId, report: NodeReport, turn: &mut Turn<'_>) {
        let limits = &self.limits;
        let (budget_bytes, back) = (report.budget_bytes, Lost { node, life: report.life });
        let was_away = self.fleet.life(node).is_none();
        let models = report.believed(limits.models_per_node_max, limits.slots_max, limits.samples_max);
        let ready: alloc::vec::Vec<&ModelReport> =
            models.iter().filter(|model| model.state == ModelState::Ready).collect();
        let Some(gone) = self.fleet.report(node, &ready, limits.nodes_max) else { return };
        self.fleet.lives(node, back.life);
        if was_away {
            self.node_returned(back, turn);
        }
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
        self.batcher.report(lane, model.slots, self.ledger.on_lane(lane));
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
        let line = self.gap(lane.1).times(self.queue.length(lane.1) as u64);
        let (target, gain_min) = if line > limits.line_borne && !self.is_flooded(lane.1) {
            (limits.inter_token_most, limits.rates_learning.gain_min_in_line)
        } else {
            (limits.inter_token_target, limits.rates_learning.gain_min)
        };
        let target_s = (target.0 as f64 / 1e6).max(2.0 * speed.step_s(1, 0));
        let each = self.ledger.kv_tokens(lane).checked_div(self.ledger.on_lane(lane)).unwrap_or(0);
        let knee = match self.reference.typical(lane.1) {
            Some(typical) => {
                width_that_pays(&speed, typical, each, speed.knee(target_s, each, slots, 0.0), gain_min)
            }
            None => speed.knee(target_s, each, slots, gain_min),
        };
        let knee = if self.rates.pays_at_two(lane) == Some(false) { 1 } else { knee };
        self.batcher.bend(lane, if self.rates.is_fresh(lane) { knee.min(limits.fresh_width) } else { knee });
    }

    /// One tenant's flood is most of what waits, and others ask as well: longer steps would be theirs too, and its line is long
    /// either way.
    fn is_flooded(&self, model: ModelId) -> bool {
        let most = self.queue.majority().map_or(Span::ZERO, |tenant| self.queue.work_of(tenant));
        self.reference.shared(model, most) > self.limits.flood && self.fairness.active() > 1
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
                self.retry(request, Usage::default(), turn);
            }
        }
    }

    pub(crate) fn node_lost(&mut self, node: NodeId, turn: &mut Turn<'_>) {
        let lost = Lost { node, life: self.fleet.life(node).unwrap_or_default() };
        let held = self.fleet.lose(node);
        let ran = self.ledger.requests_on_node(node);
        self.node_died(lost, &held, &ran, turn);
        for model in held {
            self.batcher.forget((node, model));
            self.prefixes.forget((node, model));
            self.measure_pace(model);
            turn.due.insert(model);
        }
        for request in ran {
            self.retry(request, Usage::default(), turn);
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

/// The widest batch whose last sequence still shortens the node time of a typical request, prefill and share of its steps
/// together, by `gain_min`. Where prompts are long and answers short there is little to share.
fn width_that_pays(
    speed: &Speed,
    typical: Typical,
    kv_tokens_each: u32,
    width_max: u32,
    gain_min: f64,
) -> u32 {
    // The casts saturate: means of token counts.
    let (uncached, generated) = (typical.uncached as u32, typical.generated);
    let prefill_s = speed.prefill_s(uncached, 0);
    let time_s = |width: u32| {
        let step_s = speed.step_s(width, kv_tokens_each.saturating_mul(width));
        prefill_s + generated * step_s / f64::from(width)
    };
    let mut width = 1;
    while width < width_max && time_s(width.saturating_add(1)) <= (1.0 - gain_min) * time_s(width) {
        width = width.saturating_add(1);
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 tokens a second, 20 ms a step, a quarter more for each further sequence.
    const SPEED: Speed = Speed {
        overhead_s: 0.0,
        token_s: 0.001,
        attention_s: 0.0,
        t1_s: 0.02,
        sequence_s: 0.005,
        kv_token_s: 0.0,
    };

    fn width(uncached: f64, generated: f64, gain_min: f64) -> u32 {
        width_that_pays(&SPEED, Typical { uncached, generated }, 0, 16, gain_min)
    }

    #[test]
    fn long_answers_pay_for_a_wide_batch_and_long_prompts_do_not() {
        assert_eq!(width(0.0, 500.0, 0.03), 9);
        assert_eq!(width(1_000.0, 200.0, 0.03), 6);
        assert_eq!(width(8_000.0, 50.0, 0.03), 2);
        assert_eq!(width(100_000.0, 1.0, 0.03), 1);
    }

    #[test]
    fn a_batch_is_no_wider_than_it_may_be() {
        assert_eq!(width(0.0, 500.0, 0.0), 16);
        assert_eq!(width_that_pays(&SPEED, Typical { uncached: 0.0, generated: 9.0 }, 0, 0, 0.0), 1);
    }

    #[test]
    fn only_the_end_of_a_runtime_is_a_death() {
        let deaths = [Failure::RuntimeExit, Failure::Hang].map(is_death);
        let others = [Failure::Reset, Failure::Corrupt, Failure::Internal].map(is_death);
        assert_eq!((deaths, others), ([true; 2], [false; 3]));
    }
}
