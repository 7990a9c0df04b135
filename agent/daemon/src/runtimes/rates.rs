//! How fast a model runs on this Mac, learned from the figures of its steps.
//!
//! Owns three running estimates: prefill tokens per second, milliseconds of a decode step at batch one, and how much longer a
//! step takes for each further row. Refuses figures that cannot be (negative, not finite, too small to divide by). Pure: no
//! clock, the runtime measures.
//!
//! Decode is modelled as `step(batch) = step_ms × (1 + slope × (batch − 1))`. Step times at batch one teach `step_ms`; wider
//! ones teach the slope, once a base is known. Each is an exponentially weighted mean whose samples are clipped to a multiple
//! of the estimate: a single pause (a swap, a compilation) moves it little, a lasting change moves it fully.

use std::time::Duration;

use super::frames::StepStats;
use crate::probes::SeedRates;

/// Weight of a new sample: the mean over roughly the last twenty.
const WEIGHT: f64 = 0.05;
/// The first samples count as a plain mean, so that the estimate does not start at an outlier's mercy.
const WARM_UP: u32 = 20;
/// A sample beyond this multiple of the estimate counts as this multiple.
const CLIP: f64 = 3.0;
/// Prefill pieces below this say more about overhead than about speed.
const PREFILL_TOKENS_MIN: u64 = 16;
/// No step is quicker than this, where a division makes nonsense, nor slower: its runtime would have been killed long before.
const SECONDS_MIN: f64 = 1e-6;
const SECONDS_MAX: f64 = 3_600.0;
/// A second row cannot cost more than itself: the slope's ceiling with room for contention.
const SLOPE_MAX: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    prefill_tokens_per_s: Mean,
    step_ms: Mean,
    slope: Mean,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mean {
    value: f64,
    samples: u32,
}

impl Rates {
    /// What a chip table expects, until the first measurement replaces it.
    pub(crate) fn seed(&mut self, seed: SeedRates) {
        self.prefill_tokens_per_s.seed(seed.prefill_tokens_per_s);
        self.step_ms.seed(seed.step_ms);
        self.slope.seed(seed.batch_slope);
    }

    /// Learns from one step.
    pub(crate) fn learn(&mut self, stats: StepStats) {
        let StepStats(prefill_s, prefill_tokens, decode_s, batch, _) = stats;
        if prefill_tokens >= PREFILL_TOKENS_MIN && usable(prefill_s) {
            // A token count that needs more than 52 bits does not occur.
            #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
            self.prefill_tokens_per_s.learn(prefill_tokens as f64 / prefill_s, f64::INFINITY);
        }
        if batch >= 1 && usable(decode_s) {
            self.learn_decode(decode_s * 1e3, f64::from(batch - 1));
        }
    }

    fn learn_decode(&mut self, step_ms: f64, further_rows: f64) {
        if further_rows == 0.0 {
            self.step_ms.learn(step_ms, CLIP);
        } else if self.step_ms.samples > 0 {
            let slope = (step_ms / self.step_ms.value - 1.0) / further_rows;
            self.slope.learn(slope.clamp(0.0, SLOPE_MAX), f64::INFINITY);
        } else {
            // A model that was never alone: the seeded slope is better than none, and lone steps correct the figure.
            self.step_ms.learn(step_ms / (1.0 + further_rows * self.slope.value), CLIP);
        }
    }

    /// Zero: neither seeded nor measured.
    pub(crate) fn prefill_tokens_per_s(&self) -> f32 {
        narrow(self.prefill_tokens_per_s.value)
    }

    pub(crate) fn step_ms(&self) -> f32 {
        narrow(self.step_ms.value)
    }

    pub(crate) fn batch_slope(&self) -> f32 {
        narrow(self.slope.value)
    }

    /// The most prompt tokens that are computed within `span`, but not fewer than `least`; no bound while nothing is known.
    pub(crate) fn chunk_max(&self, span: Duration, least: u32) -> u32 {
        let tokens = self.prefill_tokens_per_s.value * span.as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        if tokens > 0.0 { (tokens as u32).max(least) } else { u32::MAX }
    }

    /// What the longest ordinary step of `rows` rows and a prefill piece of `chunk` tokens takes, in milliseconds.
    pub(crate) fn expected_step_ms(&self, rows: u32, chunk: u32) -> f64 {
        let further = f64::from(rows.saturating_sub(1));
        let decode = self.step_ms.value * (1.0 + self.slope.value * further);
        let rate = self.prefill_tokens_per_s.value;
        let prefill = if rate > 0.0 { f64::from(chunk) / rate * 1e3 } else { 0.0 };
        decode + prefill
    }
}

impl Mean {
    fn seed(&mut self, value: f64) {
        if self.samples == 0 && value.is_finite() {
            self.value = value.max(0.0);
        }
    }

    fn learn(&mut self, sample: f64, clip: f64) {
        self.samples = self.samples.saturating_add(1);
        if self.samples == 1 {
            self.value = sample;
            return;
        }
        let sample = sample.min(self.value * clip);
        let weight = WEIGHT.max(1.0 / f64::from(self.samples.min(WARM_UP)));
        self.value += (sample - self.value) * weight;
    }
}

/// A span of time that a part of a step can have taken.
pub(super) fn usable(seconds: f64) -> bool {
    (SECONDS_MIN..=SECONDS_MAX).contains(&seconds)
}

#[expect(clippy::cast_possible_truncation, reason = "a report needs seven digits, not sixteen")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
