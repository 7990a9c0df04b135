//! How much each model is asked for, the past fading.
//!
//! Owns a count of arrivals and a sum of their work per model, both halving with each `demand_half_life`: the frequency of
//! GreedyDual-Size-Frequency, and the work to expect next. Refuses to know who waits or where anything runs.

use alloc::collections::BTreeMap;

use crate::ids::ModelId;
use crate::limits::ResidencyLimits;
use crate::time::{At, Span};

#[derive(Debug, Default)]
pub(crate) struct Demand {
    models: BTreeMap<ModelId, Fading>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Fading {
    arrivals: f64,
    work_s: f64,
    /// The latest arrival, for which both sums hold.
    at: At,
}

impl Demand {
    pub(crate) fn arrived(&mut self, at: At, model: ModelId, work: Span, limits: &ResidencyLimits) {
        if !self.models.contains_key(&model) && self.models.len() >= limits.models_max {
            return;
        }
        let demand = self.models.entry(model).or_default();
        let left = left(at.since(demand.at), limits.demand_half_life);
        demand.arrivals = demand.arrivals * left + 1.0;
        demand.work_s = demand.work_s * left + work.0 as f64 / 1e6;
        demand.at = demand.at.max(at);
    }

    /// Arrivals that still count.
    pub(crate) fn arrivals(&self, at: At, model: ModelId, limits: &ResidencyLimits) -> f64 {
        self.models
            .get(&model)
            .map_or(0.0, |demand| demand.arrivals * left(at.since(demand.at), limits.demand_half_life))
    }

    /// The work that will arrive within `horizon` if all goes on as before.
    pub(crate) fn expected_work(
        &self,
        at: At,
        model: ModelId,
        horizon: Span,
        limits: &ResidencyLimits,
    ) -> Span {
        let Some(demand) = self.models.get(&model) else { return Span::ZERO };
        let half_life_s = (limits.demand_half_life.0.max(1)) as f64 / 1e6;
        let work_s = demand.work_s * left(at.since(demand.at), limits.demand_half_life);
        Span((work_s * LN_2 / half_life_s * horizon.0 as f64) as u64)
    }

    pub(crate) fn latest(&self, model: ModelId) -> Option<At> {
        self.models.get(&model).map(|demand| demand.at)
    }
}

/// A steady stream of `r` per second sums up to `r * half_life / ln 2`.
const LN_2: f64 = core::f64::consts::LN_2;

/// Eight terms are exact to a millionth, so that many small steps fade as much as one large one.
const SERIES_TERMS: u32 = 8;

/// What is left of one after `age`: halved for each whole half-life, and the exponential series for the part of one.
fn left(age: Span, half_life: Span) -> f64 {
    let half_life = half_life.0.max(1);
    let halvings = (age.0 / half_life).min(63);
    let part = (age.0 % half_life) as f64 / half_life as f64;
    let (mut sum, mut term) = (1.0, 1.0);
    for power in 1..=SERIES_TERMS {
        term *= -part * LN_2 / f64::from(power);
        sum += term;
    }
    sum / (1_u64 << halvings) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelId = ModelId(1);

    fn limits() -> ResidencyLimits {
        ResidencyLimits { demand_half_life: Span::from_s(100), models_max: 2, ..ResidencyLimits::default() }
    }

    fn at(seconds: u64) -> At {
        At(0) + Span::from_s(seconds)
    }

    fn asked(arrivals: &[u64]) -> Demand {
        let mut demand = Demand::default();
        for second in arrivals {
            demand.arrived(at(*second), MODEL, Span::from_s(2), &limits());
        }
        demand
    }

    #[test]
    fn an_arrival_counts_half_after_each_half_life() {
        let demand = asked(&[0]);
        let counts =
            [0, 50, 100, 150, 200, 1_000_000].map(|second| demand.arrivals(at(second), MODEL, &limits()));
        for (count, expected) in
            counts.into_iter().zip([1.0, 0.5_f64.sqrt(), 0.5, 0.125_f64.sqrt(), 0.25, 0.0])
        {
            assert!((count - expected).abs() < 1e-6, "{count} is not {expected}");
        }
    }

    #[test]
    fn arrivals_add_up() {
        assert_eq!(asked(&[0, 0, 100]).arrivals(at(100), MODEL, &limits()), 2.0);
        assert_eq!(asked(&[0, 0, 100]).latest(MODEL), Some(at(100)));
        assert_eq!(asked(&[]).latest(MODEL), None);
    }

    #[test]
    fn an_arrival_told_late_counts_as_of_the_latest() {
        assert_eq!(asked(&[100, 0]).arrivals(at(100), MODEL, &limits()), 2.0);
    }

    #[test]
    fn a_steady_stream_is_expected_to_go_on() {
        let steady: Vec<u64> = (0..2_000).collect();
        let expected = asked(&steady).expected_work(at(2_000), MODEL, Span::from_s(30), &limits());
        // 2 node-seconds arrive each second; the latest second has faded already.
        assert!((59.5..60.5).contains(&(expected.0 as f64 / 1e6)), "{expected:?}");
        assert_eq!(asked(&[]).expected_work(at(9), MODEL, Span::from_s(30), &limits()), Span::ZERO);
    }

    #[test]
    fn models_beyond_the_bound_have_no_past() {
        let mut demand = asked(&[0]);
        demand.arrived(at(0), ModelId(2), Span::from_s(1), &limits());
        demand.arrived(at(0), ModelId(3), Span::from_s(1), &limits());
        demand.arrived(at(0), MODEL, Span::from_s(1), &limits());
        let counts = [1, 2, 3].map(|model| demand.arrivals(at(0), ModelId(model), &limits()));
        assert_eq!(counts, [2.0, 1.0, 0.0]);
    }
}
