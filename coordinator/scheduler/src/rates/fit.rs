//! One straight law through what was measured: three features times three parameters make seconds.
//!
//! Owns the parameters and how sure they are: recursive least squares with exponential forgetting, in information form. Each
//! sample is taken relative to its prediction, so each feature counts by its share of the predicted time; a parameter no
//! sample speaks of keeps its value, and what is forgotten about it is replaced by the doubt of a fresh seed, no more
//! (regularised exponential forgetting, Kulhavy 1987). Refuses to follow an accident: a surprise is clipped (Huber 1964)
//! unless it lasts.

use super::change::Change;
use super::matrix::{Symmetric, Three, dot, plus, product, root};
use crate::limits::RateLimits;
use crate::time::At;

/// What one kind of law knows before any sample: which parameter stands for the speed of the chip, which others go with it,
/// how far a seed may be wrong, and what is plausible at all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Law {
    main: Three,
    with_main: Three,
    /// The information in a seed, in samples.
    fresh: Symmetric,
    range: [(f64, f64); 3],
    limits: RateLimits,
}

/// A measurement of the law.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) features: Three,
    pub(super) seconds: f64,
    /// 1 for a whole sample, less for a poor one.
    pub(super) weight: f64,
    /// When what was measured began and ended.
    pub(super) span: (At, At),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    seed: Three,
    /// Whether the seed is more than an assumption.
    known: bool,
    /// What the factors are relative to: the seed at the speed of this chip.
    basis: Three,
    factors: Three,
    information: Symmetric,
    /// The mean size of a surprise, told from the differences between them, in which a lasting error does not show.
    deviation: f64,
    latest: f64,
    change: Change,
    samples: u32,
}

impl Law {
    /// Overhead, seconds per uncached token, seconds per token and token attended to.
    pub(super) fn prefill(limits: &RateLimits) -> Self {
        let own = [limits.overhead_error, 0.0, limits.attention_error];
        Self::new([0.0, 1.0, 0.0], [0.0, 1.0, 1.0], own, limits.prefill_range, limits)
    }

    /// Seconds of a step with one sequence, per further sequence, per token in the KV cache.
    pub(super) fn step(limits: &RateLimits) -> Self {
        let own = [0.0, limits.slope_error, limits.kv_error];
        Self::new([1.0, 0.0, 0.0], [1.0, 1.0, 1.0], own, limits.step_range, limits)
    }

    /// A seed errs in the speed of the chip, which moves all that go with the main parameter alike, and in each of the others
    /// (`own`) by itself. So a sample that speaks of the main one alone leaves the proportions as they were.
    fn new(main: Three, with_main: Three, own: Three, range: [(f64, f64); 3], limits: &RateLimits) -> Self {
        let noise = limits.noise * limits.noise;
        let errors = Symmetric::diagonal(product(own, own));
        let errors = errors.plus_outer(with_main, limits.seed_error * limits.seed_error);
        let fresh = errors.scaled(1.0 / noise).inverse().unwrap_or(Symmetric::diagonal([1.0; 3]));
        Self { main, with_main, fresh, range, limits: *limits }
    }
}

impl Fit {
    /// On an assumption.
    pub(super) fn new(law: &Law, seed: Three) -> Self {
        Self {
            seed,
            known: false,
            basis: seed,
            factors: [1.0; 3],
            information: law.fresh,
            deviation: law.limits.noise,
            latest: 0.0,
            change: Change::default(),
            samples: 0,
        }
    }

    /// Another seed. What was measured stands against it.
    pub(super) fn seed(&mut self, seed: Three, known: bool) {
        (self.seed, self.known) = (seed, known);
        self.start_at(seed);
    }

    /// How much slower than its seed a lane has proved to be, if it had a seed and enough samples.
    pub(super) fn proved(&self, law: &Law) -> Option<f64> {
        let enough = self.known && self.samples >= law.limits.fresh_samples;
        enough.then(|| dot(law.main, self.parameters()) / dot(law.main, self.seed))
    }

    /// The chip is this much slower than the seed says, judging by other models on it. Means nothing once this one is measured.
    pub(super) fn assume(&mut self, law: &Law, slower: f64) {
        if self.known {
            self.start_at(product(self.seed, plus([1.0; 3], law.with_main, slower - 1.0)));
        }
    }

    pub(super) fn observe(&mut self, law: &Law, sample: &Sample) {
        let before = *self;
        let predicted = dot(sample.features, self.parameters());
        let surprise = sample.seconds / predicted - 1.0;
        if !surprise.is_finite() {
            return;
        }
        let shares = product(sample.features, self.basis).map(|share| share / predicted);
        self.samples = self.samples.saturating_add(1);
        let usual = self.clipped(law, surprise, sample.weight);
        let lasting = self.change.observe(surprise, self.deviation, sample, &law.limits);
        match lasting {
            Some(least) => {
                self.information = law.fresh;
                self.absorb(law, shares, least, 1.0, 1.0);
            }
            None => {
                // As if the noise had been as large as the surprise.
                let trust = if usual == surprise { 1.0 } else { usual / surprise };
                self.absorb(law, shares, usual, sample.weight, trust * trust);
            }
        }
        self.keep_plausible(law);
        self.rebase(law);
        if lasting.is_some() {
            self.information = law.fresh;
        }
        if !self.is_finite() {
            *self = before;
        }
    }

    /// Neither told nor measured.
    pub(super) fn is_assumed(&self) -> bool {
        !self.known && self.samples == 0
    }

    pub(super) fn parameters(&self) -> Three {
        product(self.basis, self.factors)
    }

    pub(super) fn samples(&self) -> u32 {
        self.samples
    }

    /// The half-width (two standard deviations) of the main parameter, relative to it.
    pub(super) fn uncertainty(&self, law: &Law) -> f64 {
        self.half_width(law, law.main.map(|part| part / dot(law.main, self.factors)))
    }

    /// The half-width of the second parameter as a share of the first.
    pub(super) fn slope_uncertainty(&self, law: &Law) -> f64 {
        let [first, second, _] = self.factors;
        self.half_width(law, [-1.0 / first, 1.0 / second, 0.0])
    }

    fn start_at(&mut self, basis: Three) {
        if self.samples == 0 {
            self.basis = basis;
        }
    }

    /// What counts of a surprise, given how large they usually are.
    fn clipped(&mut self, law: &Law, surprise: f64, weight: f64) -> f64 {
        let limits = &law.limits;
        let most = limits.surprise * self.deviation;
        let usual = surprise.max(-most).min(most);
        let difference = (usual - self.latest).abs() * core::f64::consts::FRAC_1_SQRT_2;
        let deviation = self.deviation + weight * limits.deviation_share * (difference - self.deviation);
        self.deviation = deviation.max(limits.deviation_min).min(limits.deviation_max);
        self.latest = usual;
        usual
    }

    /// Moves the parameters by a sample of this weight, and keeps as much of what it says about them as it can be trusted.
    fn absorb(&mut self, law: &Law, shares: Three, surprise: f64, weight: f64, trust: f64) {
        let kept = law.limits.kept;
        self.information = self.information.scaled(kept).plus(&law.fresh, 1.0 - kept);
        let direction = self.covariance(law).times(shares);
        let gain = weight / (1.0 + weight * dot(shares, direction));
        self.factors = plus(self.factors, direction, gain * surprise);
        self.information = self.information.plus_outer(shares, weight * trust);
    }

    /// Makes the speed learned the basis. The other factors stay relative to the proportions of the seed, so that one that has
    /// come down to nothing may grow again, and a seed's doubt is one about the present speed.
    fn rebase(&mut self, law: &Law) {
        let by = plus([1.0; 3], law.with_main, dot(law.main, self.factors) - 1.0);
        self.basis = product(self.basis, by);
        self.factors = product(self.factors, by.map(|by| 1.0 / by));
        self.information = self.information.rescaled(by);
    }

    /// A parameter that left its range is put back on its edge, and the others make up for it as far as they go together.
    fn keep_plausible(&mut self, law: &Law) {
        for (axis, range) in AXES.into_iter().zip(law.range) {
            let (factor, unit) = (dot(axis, self.factors), dot(axis, self.basis));
            let back = plausible(factor, unit, range) - factor;
            if back != 0.0 {
                let together = self.covariance(law).times(axis);
                self.factors = plus(self.factors, together, back / dot(axis, together));
            }
        }
        let ([a, b, c], [u, v, w], [x, y, z]) = (self.factors, self.basis, law.range);
        self.factors = [plausible(a, u, x), plausible(b, v, y), plausible(c, w, z)];
    }

    fn is_finite(&self) -> bool {
        let numbers = [self.basis, self.factors, self.information.diagonal, self.information.beside];
        numbers.as_flattened().iter().all(|number| number.is_finite()) && self.deviation.is_finite()
    }

    fn covariance(&self, law: &Law) -> Symmetric {
        let inverse = self.information.inverse().or_else(|| law.fresh.inverse());
        inverse.unwrap_or(Symmetric::diagonal([0.0; 3]))
    }

    fn half_width(&self, law: &Law, direction: Three) -> f64 {
        let variance = dot(direction, self.covariance(law).times(direction));
        let half_width = 2.0 * law.limits.noise * root(variance);
        if variance.is_finite() { half_width.clamp(0.0, 1.0) } else { 1.0 }
    }
}

/// A factor whose parameter, so many units each, is in its range. One without a unit is left out of the law.
fn plausible(factor: f64, unit: f64, (least, most): (f64, f64)) -> f64 {
    let value = factor * unit;
    if unit > 0.0 && !(least..=most).contains(&value) { value.max(least).min(most) / unit } else { factor }
}

const AXES: [Three; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
