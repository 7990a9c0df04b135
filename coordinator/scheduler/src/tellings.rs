//! A model and a node in words: what "explain" says of them.
//!
//! Owns sentences that put together what several rooms know. Refuses names, which it is lent, and decisions about single requests,
//! which `verdict` tells.

use alloc::format;
use alloc::string::{String, ToString};

use crate::breaker::{Breaker, BreakerState};
use crate::ids::{Lane, ModelId, NodeId};
use crate::machine::Scheduler;
use crate::overload::Rung;
use crate::placement::Gate;
use crate::residency::WhyNot;
use crate::time::Span;
use crate::verdict::{Names, gate_words, seconds};

impl Scheduler {
    /// Where the model runs, how well, and why it does not run elsewhere.
    #[must_use]
    pub fn explain_model(&self, model: ModelId, names: &dyn Names) -> String {
        let waiting = self.queue.length(model);
        let delay = self.reference.shared(model, self.queue.work_for(model));
        let mut words = format!("{}: {waiting} waiting", names.model(model));
        if waiting > 0 {
            words.push_str(&format!(", {} of work", seconds(delay)));
        }
        words.push_str(rung_words(self.overload.rung(model)));
        for node in self.fleet.holders(model) {
            words.push_str(&format!("\n  {}: {}", names.node(node), self.lane_words((node, model))));
        }
        if self.fleet.holders(model).next().is_none() {
            words.push_str("\n  no node holds it");
        }
        for (node, phase) in self.residency.phases(model, names) {
            words.push_str(&format!("\n  {}: {phase}", names.node(node)));
        }
        for (node, why) in self.residency.pin_refusals(model) {
            words.push_str(&format!("\n  not pinned to {}: {}", names.node(node), why.words(names)));
        }
        let why = self.residency.refusal(self.now, model);
        // A node that says nothing of its memory runs what it runs.
        let held = self.fleet.holders(model).next().is_some();
        if let Some(why) = why.filter(|why| !held || *why != WhyNot::NotOffered) {
            words.push_str(&format!("\n  no further replica: {}", why.words(names)));
        }
        words
    }

    /// What the node holds, how well it runs, and what shuts it out.
    #[must_use]
    pub fn explain_node(&self, node: NodeId, names: &dyn Names) -> String {
        let mut words = format!("{}: {} in flight", names.node(node), self.ledger.on_node(node));
        let backlog = self.ledger.prefill_backlog(node, self.now);
        if backlog > Span::ZERO {
            words.push_str(&format!(", prompts for {}", seconds(backlog)));
        }
        if let Some(breaker) = self.breaker_words(Breaker::Node(node)) {
            words.push_str(&format!(", {breaker}"));
        }
        for model in self.fleet.ready(node) {
            words.push_str(&format!("\n  {}: {}", names.model(model), self.lane_words((node, model))));
        }
        if self.fleet.ready(node).next().is_none() {
            words.push_str("\n  it runs no model");
        }
        words
    }

    fn lane_words(&self, lane: Lane) -> String {
        let learned = self.rates.learned(lane);
        let gate = self.gate_for_all(lane).filter(|gate| !matches!(gate, Gate::BreakerOpen { .. }));
        let mut words = format!(
            "{} of {} in flight, prefill {} tokens/s, step {} ms, {} % more for each further sequence, {}",
            self.ledger.on_lane(lane),
            self.batcher.limit(lane),
            whole(learned.prefill_tokens_per_s),
            tenths(learned.t1_s * 1e3),
            whole(learned.slope * 100.0),
            match learned.samples_step {
                0 => "not measured yet".to_string(),
                samples => format!("from {samples} samples (± {} %)", whole(learned.uncertainty_t1 * 100.0)),
            }
        );
        if let Some(breaker) = self.breaker_words(Breaker::Lane(lane)) {
            words.push_str(&format!(", {breaker}"));
        }
        if let Some(gate) = gate {
            words.push_str(&format!(", {}", gate_words(gate)));
        }
        words
    }

    fn breaker_words(&self, breaker: Breaker) -> Option<String> {
        let view = self.breakers.explain(breaker).filter(|view| view.state != BreakerState::Closed)?;
        let why = view.why.map_or("no reason is known", |why| why.words());
        let until = view.until.map_or(String::new(), |until| format!(" until {}", seconds(Span(until.0))));
        Some(format!("breaker {}{until}: {why}", view.state.words()))
    }
}

fn rung_words(rung: Rung) -> &'static str {
    match rung {
        Rung::Calm => "",
        Rung::HoldBatch => "; batch work waits for interactive work",
        Rung::RefuseBatch => "; new batch work is refused",
        Rung::ShedBatch => "; batch work is refused, waiting or new",
        Rung::Full => "; the line is full",
    }
}

/// Rounded; the cast saturates and takes NaN for zero.
fn whole(value: f64) -> u64 {
    (value + 0.5) as u64
}

fn tenths(value: f64) -> String {
    let tenths = whole(value * 10.0);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_what_people_read() {
        assert_eq!((whole(1_234.5), whole(-3.0), whole(f64::NAN)), (1_235, 0, 0));
        assert_eq!((tenths(23.04), tenths(0.96)), ("23.0".to_string(), "1.0".to_string()));
    }
}
