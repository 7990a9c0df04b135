//! What is believed of a lane before anything was measured there: its report, and assumptions for what no report tells.
//!
//! Owns the step from reported rates to the parameters of the cost model. Refuses a rate that is not finite or not above
//! zero: it counts as not told.

use super::matrix::Three;
use crate::limits::Limits;
use crate::report::Rates;

#[derive(Clone, Copy, Debug)]
pub(super) struct Assumptions {
    rates: Rates,
    overhead_s: f64,
    /// Attention per token attended to, as a share of a token's linear cost.
    attention: f64,
    /// Reading the KV cache of a token, as a share of a step.
    kv_token: f64,
}

impl Assumptions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            rates: limits.rates,
            overhead_s: limits.prefill_overhead.0 as f64 / 1e6,
            attention: if limits.attention_tokens == 0 {
                0.0
            } else {
                2.0 / f64::from(limits.attention_tokens)
            },
            kv_token: 1.0 / f64::from(limits.rates_learning.kv_tokens.max(1)),
        }
    }

    /// Overhead, per token, per token attended to; and whether the report told the speed.
    pub(super) fn prefill(&self, rates: &Rates) -> (Three, bool) {
        let (tokens_per_s, told) = believed(rates.prefill_tokens_per_s, self.rates.prefill_tokens_per_s);
        ([self.overhead_s, 1.0 / tokens_per_s, self.attention / tokens_per_s], told)
    }

    /// One sequence, each further one, each KV token; and whether the report told the speed.
    pub(super) fn step(&self, rates: &Rates) -> (Three, bool) {
        let (step_ms, told) = believed(rates.step_ms, self.rates.step_ms);
        let (slope, _) = believed(rates.batch_slope, self.rates.batch_slope);
        let t1_s = step_ms / 1e3;
        ([t1_s, t1_s * slope, t1_s * self.kv_token], told)
    }
}

fn believed(told: f32, assumed: f32) -> (f64, bool) {
    let makes_sense = told.is_finite() && told > 0.0;
    (f64::from(if makes_sense { told } else { assumed }), makes_sense)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { prefill_tokens_per_s: 500.0, step_ms: 20.0, batch_slope: 0.25 };

    fn close((left, left_told): (Three, bool), (right, right_told): (Three, bool)) -> bool {
        left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-9) && left_told == right_told
    }

    #[test]
    fn a_report_is_put_into_the_parameters_of_the_cost_model() {
        let assumptions = Assumptions::new(&Limits::default());
        assert!(close(assumptions.prefill(&RATES), ([0.020, 0.002, 0.002 * 2.0 / 40_000.0], true)));
        assert!(close(assumptions.step(&RATES), ([0.020, 0.005, 0.020 / 40_000.0], true)));
    }

    #[test]
    fn a_rate_that_makes_no_sense_is_replaced_by_the_assumed_one() {
        let limits = Limits::default();
        let assumptions = Assumptions::new(&limits);
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let rates = Rates { prefill_tokens_per_s: value, step_ms: value, batch_slope: value };
            assert_eq!(assumptions.prefill(&rates), (assumptions.prefill(&limits.rates).0, false));
            assert_eq!(assumptions.step(&rates), (assumptions.step(&limits.rates).0, false));
        }
        let unknown_slope = Rates { batch_slope: 0.0, ..RATES };
        assert!(close(assumptions.step(&unknown_slope), ([0.020, 0.008, 0.020 / 40_000.0], true)));
    }

    #[test]
    fn attention_is_left_out_when_its_limit_is_zero() {
        let assumptions = Assumptions::new(&Limits { attention_tokens: 0, ..Limits::default() });
        assert!(close(assumptions.prefill(&RATES), ([0.020, 0.002, 0.0], true)));
    }
}
