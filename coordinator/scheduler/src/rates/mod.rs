//! How fast each lane is: a book per (node, model) of what was measured there, seeded from the chip.
//!
//! Owns the speeds that every prediction uses, and how sure they are. Speed is a property of node and model, so a book
//! outlives the unloading of the model; the books observed longest ago make room for new ones. Where nothing was measured the
//! seed stands, corrected by how far the seeds of the node's other models proved wrong. Refuses a sample that makes no sense,
//! and to decide anything: whoever reads a speed may ask how sure it is.

mod change;
mod fit;
mod matrix;
mod pair;
mod seed;
mod speed;

use core::ops::RangeInclusive;

use self::fit::{Fit, Law, Sample};
use self::pair::Pair;
use self::seed::Assumptions;
pub(crate) use self::speed::Speed;
use self::speed::{prefill_features, step_features};
use crate::ids::{Lane, ModelId, NodeId};
use crate::limits::{Limits, RateLimits};
use crate::recent::Recent;
use crate::report::{Rates, StepSample};
use crate::time::At;

#[derive(Debug)]
pub(crate) struct RateBook {
    lanes: Recent<Lane, Book>,
    /// The book of a lane that nobody has told anything about.
    blank: Book,
    assumptions: Assumptions,
    prefill: Law,
    step: Law,
    limits: RateLimits,
}

/// What is known of a lane, for those who show it and for those who decide how far to trust it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Learned {
    pub(crate) prefill_tokens_per_s: f64,
    pub(crate) overhead_s: f64,
    pub(crate) attention_s_per_token2: f64,
    pub(crate) t1_s: f64,
    /// What each further sequence adds to a step, as a share of `t1_s` (beta).
    pub(crate) slope: f64,
    pub(crate) kappa_s_per_token: f64,
    /// Of the size loaded last, when a load was seen.
    pub(crate) load_s: Option<f64>,
    pub(crate) samples_prefill: u32,
    pub(crate) samples_step: u32,
    /// Relative half-width of the prefill rate: 0 is sure, 1 a guess. The next two likewise.
    pub(crate) uncertainty_prefill: f64,
    pub(crate) uncertainty_t1: f64,
    pub(crate) uncertainty_slope: f64,
    /// When the latest sample ended. A lane believed slow gets no work and so no sample that could clear it.
    pub(crate) observed: Option<At>,
}

#[derive(Clone, Copy, Debug)]
struct Book {
    prefill: Fit,
    step: Fit,
    pair: Pair,
    load: Option<Load>,
    observed: Option<At>,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    bytes: f64,
    byte_s: f64,
}

impl RateBook {
    pub(crate) fn new(limits: &Limits) -> Self {
        let assumptions = Assumptions::new(limits);
        let (prefill, step) = (Law::prefill(&limits.rates_learning), Law::step(&limits.rates_learning));
        let blank = Book {
            prefill: Fit::new(&prefill, assumptions.prefill(&limits.rates).0),
            step: Fit::new(&step, assumptions.step(&limits.rates).0),
            pair: Pair::default(),
            load: None,
            observed: None,
        };
        Self { lanes: Recent::default(), blank, assumptions, prefill, step, limits: limits.rates_learning }
    }

    /// What the agent reports, from a chip table. Never overrides what was measured.
    pub(crate) fn seed(&mut self, lane: Lane, rates: Rates) {
        let Some(book) = self.lanes.get_or_touch(lane, self.limits.lanes_max, || self.blank) else { return };
        let (prefill, told) = self.assumptions.prefill(&rates);
        book.prefill.seed(prefill, told);
        let (step, told) = self.assumptions.step(&rates);
        book.step.seed(step, told);
        self.correct_seeds(lane.0);
    }

    /// The prefill of one request took `seconds` of its own and ended `at`.
    pub(crate) fn prefill(&mut self, lane: Lane, at: At, uncached: u32, cached: u32, seconds: f64) {
        let Some(span) = self.span(at, seconds).filter(|_| uncached > 0) else { return };
        let sample = Sample { features: prefill_features(uncached, cached), seconds, weight: 1.0, span };
        let Some(book) = self.lanes.touch(lane, self.limits.lanes_max, || self.blank) else { return };
        book.prefill.observe(&self.prefill, &sample);
        book.observed = Some(at);
        self.correct_seeds(lane.0);
    }

    /// Decode steps, the last of which ended `at`.
    pub(crate) fn steps(&mut self, lane: Lane, at: At, sample: StepSample) {
        let [batch, kv_tokens, seconds] = [sample.batch, sample.kv_tokens, sample.seconds].map(f64::from);
        let plausible = sample.steps > 0
            && (1.0..=self.limits.batch_max).contains(&batch)
            && (0.0..=self.limits.kv_tokens_max).contains(&kv_tokens);
        let Some(span) = self.span(at, seconds).filter(|_| plausible) else { return };
        let steps = f64::from(sample.steps);
        let step_s = seconds / steps;
        let weight = (steps / f64::from(self.limits.steps_whole.max(1))).min(1.0);
        let sample = Sample { features: step_features(batch, kv_tokens), seconds: step_s, weight, span };
        let Some(book) = self.lanes.touch(lane, self.limits.lanes_max, || self.blank) else { return };
        book.step.observe(&self.step, &sample);
        book.pair.observe(batch, step_s, &self.limits);
        book.observed = Some(at);
        self.correct_seeds(lane.0);
    }

    /// The model was loaded.
    pub(crate) fn loaded(&mut self, lane: Lane, bytes: u64, seconds: f64) {
        if bytes == 0 || self.span(At(0), seconds).is_none() {
            return;
        }
        let Some(book) = self.lanes.touch(lane, self.limits.lanes_max, || self.blank) else { return };
        let bytes = bytes as f64;
        let seen = seconds / bytes;
        let byte_s =
            book.load.map_or(seen, |load| load.byte_s + self.limits.load_share * (seen - load.byte_s));
        book.load = Some(Load { bytes, byte_s });
    }

    /// What to predict with.
    pub(crate) fn speed(&self, lane: Lane) -> Speed {
        let book = self.book(lane);
        Speed::new(book.prefill.parameters(), book.step.parameters())
    }

    pub(crate) fn learned(&self, lane: Lane) -> Learned {
        let (book, speed) = (self.book(lane), self.speed(lane));
        Learned {
            prefill_tokens_per_s: 1.0 / speed.token_s,
            overhead_s: speed.overhead_s,
            attention_s_per_token2: speed.attention_s,
            t1_s: speed.t1_s,
            slope: speed.sequence_s / speed.t1_s,
            kappa_s_per_token: speed.kv_token_s,
            load_s: book.load.map(|load| load.bytes * load.byte_s),
            samples_prefill: book.prefill.samples(),
            samples_step: book.step.samples(),
            uncertainty_prefill: book.prefill.uncertainty(&self.prefill),
            uncertainty_t1: book.step.uncertainty(&self.step),
            uncertainty_slope: book.step.slope_uncertainty(&self.step),
            observed: book.observed,
        }
    }

    /// Nothing was told of its speed, and nothing measured.
    pub(crate) fn is_unknown(&self, lane: Lane) -> bool {
        self.lanes.get(&lane).is_none_or(|book| book.prefill.is_assumed())
    }

    /// Too few decode samples to trust a wide batch to.
    pub(crate) fn is_fresh(&self, lane: Lane) -> bool {
        self.book(lane).step.samples() < self.limits.fresh_samples
    }

    /// Whether two sequences were seen to take less time together than one after the other; `None` until both were seen.
    pub(crate) fn pays_at_two(&self, lane: Lane) -> Option<bool> {
        self.book(lane).pair.pays()
    }

    /// How long a model of `bytes` takes to load: as it did, else as the node's other models did.
    pub(crate) fn load_s(&self, lane: Lane, bytes: u64) -> Option<f64> {
        let own = self.book(lane).load.map(|load| load.byte_s);
        let byte_s = own.or_else(|| {
            mean(self.lanes.range(models_on(lane.0)).filter_map(|book| book.load).map(|load| load.byte_s))
        });
        Some(bytes as f64 * byte_s?)
    }

    fn book(&self, lane: Lane) -> &Book {
        self.lanes.get(&lane).unwrap_or(&self.blank)
    }

    /// When a measurement of this length began and ended, if there can be such a one.
    fn span(&self, ended: At, seconds: f64) -> Option<(At, At)> {
        let plausible = seconds > 0.0 && seconds <= self.limits.sample_s_max;
        plausible.then(|| (At(ended.0.saturating_sub((seconds * 1e6) as u64)), ended))
    }

    /// A node that turned out slower than its seeds for one model will be so for its next one too.
    fn correct_seeds(&mut self, node: NodeId) {
        let slower = |proved: Option<f64>| {
            let most = self.limits.sibling_max;
            proved.map_or(1.0, |slower| slower.max(1.0 / most).min(most))
        };
        let books = || self.lanes.range(models_on(node));
        let prefill = slower(mean(books().filter_map(|book| book.prefill.proved(&self.prefill))));
        let step = slower(mean(books().filter_map(|book| book.step.proved(&self.step))));
        for book in self.lanes.range_mut(models_on(node)) {
            book.prefill.assume(&self.prefill, prefill);
            book.step.assume(&self.step, step);
        }
    }
}

fn models_on(node: NodeId) -> RangeInclusive<Lane> {
    (node, ModelId(0))..=(node, ModelId(u32::MAX))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod book_tests;
#[cfg(test)]
mod fit_tests;
