//! How long work takes on one lane: the cost model with its constants filled in.
//!
//! Owns the formulas. A speed is copied out of the book once per candidate and asked as often as needed. Refuses to learn.
//!
//! ```text
//! prefill(u, c)  overhead + u * per token + u * (c + u/2) * attention     u uncached tokens behind c cached ones
//! step(b, K)     t1 + (b-1) * per sequence + K * per KV token             b sequences with K tokens in their KV caches
//! ```

use super::matrix::Three;

/// The constants of a lane, all in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed {
    pub(crate) overhead_s: f64,
    pub(crate) token_s: f64,
    pub(crate) attention_s: f64,
    pub(crate) t1_s: f64,
    pub(crate) sequence_s: f64,
    pub(crate) kv_token_s: f64,
}

impl Speed {
    pub(super) fn new(prefill: Three, step: Three) -> Self {
        let ([overhead_s, token_s, attention_s], [t1_s, sequence_s, kv_token_s]) = (prefill, step);
        Self { overhead_s, token_s, attention_s, t1_s, sequence_s, kv_token_s }
    }

    /// The prefill of `uncached` tokens behind `cached` ones, with nothing else running.
    pub(crate) fn prefill_s(&self, uncached: u32, cached: u32) -> f64 {
        let [_, tokens, attended] = prefill_features(uncached, cached);
        self.overhead_s + tokens * self.token_s + attended * self.attention_s
    }

    /// One decode step of `batch` sequences that hold `kv_tokens` together. At least one sequence.
    pub(crate) fn step_s(&self, batch: u32, kv_tokens: u32) -> f64 {
        let [_, further, kv] = step_features(f64::from(batch.max(1)), f64::from(kv_tokens));
        self.t1_s + further * self.sequence_s + kv * self.kv_token_s
    }

    /// The largest width up to `width_max` whose last sequence still adds `gain_min` to the throughput and whose step stays
    /// within `itl_max_s`, when each sequence holds `kv_tokens_each`. At least 1.
    ///
    /// With `A = t1 - per sequence` and `B = per sequence + kv_tokens_each * per KV token`, a step of b takes `A + b*B`, and
    /// the sequence after b adds `A / (b * (A + (b+1)*B))` to the throughput. Both conditions hold up to some width and not
    /// beyond it, so that halving finds it.
    pub(crate) fn knee(&self, itl_max_s: f64, kv_tokens_each: u32, width_max: u32, gain_min: f64) -> u32 {
        let fixed_s = self.t1_s - self.sequence_s;
        let each_s = self.sequence_s + f64::from(kv_tokens_each) * self.kv_token_s;
        let worth = |width: u32| {
            let step_s = fixed_s + f64::from(width) * each_s;
            step_s <= itl_max_s && fixed_s >= gain_min * f64::from(width.saturating_sub(1)) * step_s
        };
        let (mut good, mut bad) = (1_u32, width_max.saturating_add(1));
        while bad > good.saturating_add(1) {
            let width = good.midpoint(bad);
            if worth(width) { good = width } else { bad = width }
        }
        good
    }
}

pub(super) fn prefill_features(uncached: u32, cached: u32) -> Three {
    let (uncached, cached) = (f64::from(uncached), f64::from(cached));
    [1.0, uncached, uncached * (cached + uncached / 2.0)]
}

pub(super) fn step_features(batch: f64, kv_tokens: f64) -> Three {
    [1.0, batch - 1.0, kv_tokens]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An 8B model: 1,000 tokens a second, 20 ms a step, a quarter more per sequence, twice as long at 40,000 KV tokens.
    const SPEED: Speed = Speed {
        overhead_s: 0.02,
        token_s: 0.001,
        attention_s: 5e-8,
        t1_s: 0.02,
        sequence_s: 0.005,
        kv_token_s: 5e-7,
    };

    fn close(seconds: f64, expected: f64) -> bool {
        (seconds - expected).abs() < 1e-12
    }

    #[test]
    fn a_prefill_is_overhead_tokens_and_attention() {
        assert!(close(SPEED.prefill_s(2_000, 0), 0.02 + 2.0 + 0.1));
        assert!(close(SPEED.prefill_s(1_000, 9_500), 0.02 + 1.0 + 0.5));
        assert!(close(SPEED.prefill_s(0, 9_500), 0.02));
    }

    #[test]
    fn a_step_grows_with_the_batch_and_with_its_caches() {
        assert!(close(SPEED.step_s(1, 0), 0.02));
        assert!(close(SPEED.step_s(5, 40_000), 0.02 + 0.02 + 0.02));
        assert!(close(SPEED.step_s(0, 0), 0.02));
    }

    fn knee(speed: Speed, itl_max_s: f64, kv_tokens_each: u32, width_max: u32) -> u32 {
        speed.knee(itl_max_s, kv_tokens_each, width_max, 0.03)
    }

    #[test]
    fn the_batch_ends_where_a_further_sequence_adds_too_little() {
        // From 8 to 9 the gain is 15 / (8 * 60) = 3.1 %, from 9 to 10 it is 15 / (9 * 65) = 2.6 %.
        assert_eq!(knee(SPEED, 1.0, 0, 64), 9);
        // Each step reads 4,000 tokens more per sequence: 15 / (7 * 71) = 3.02 %, then 15 / (8 * 78) = 2.4 %.
        assert_eq!(knee(SPEED, 1.0, 4_000, 64), 8);
    }

    #[test]
    fn the_batch_ends_at_the_inter_token_target() {
        assert_eq!(knee(SPEED, 0.036, 0, 64), 4);
        assert_eq!(knee(SPEED, 0.001, 0, 64), 1);
        assert_eq!(knee(SPEED, f64::NAN, 0, 64), 1);
    }

    #[test]
    fn the_batch_ends_at_the_width_of_the_runtime() {
        assert_eq!(knee(SPEED, 1.0, 0, 6), 6);
        assert_eq!(knee(SPEED, 1.0, 0, 0), 1);
        assert_eq!(knee(Speed { sequence_s: 0.0, ..SPEED }, 1.0, 0, u32::MAX), 34);
    }

    /// Slopes measured at 4 bit on 8B to 32B models: nodes beside are worth more than wider batches.
    #[test]
    fn published_slopes_have_their_knees_between_six_and_nine() {
        let knees = [0.24, 0.3, 0.36, 0.43]
            .map(|slope| knee(Speed { sequence_s: 0.02 * slope, ..SPEED }, 1.0, 0, 64));
        assert_eq!(knees, [9, 8, 7, 6]);
    }

    #[test]
    fn where_a_sequence_costs_a_whole_step_there_is_no_batch() {
        assert_eq!(knee(Speed { sequence_s: 0.02, ..SPEED }, 1.0, 0, 64), 1);
        assert_eq!(knee(Speed { sequence_s: 0.03, ..SPEED }, 1.0, 0, 64), 1);
    }

    fn speeds() -> impl Strategy<Value = Speed> {
        let parts = (0.0_f64..10.0, 1e-6_f64..1.0, 0.0_f64..1e-5, 1e-4_f64..1.0, 0.0_f64..1.0, 0.0_f64..1e-5);
        parts.prop_map(|(overhead_s, token_s, attention_s, t1_s, sequence_s, kv_token_s)| Speed {
            overhead_s,
            token_s,
            attention_s,
            t1_s,
            sequence_s,
            kv_token_s,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn more_work_never_takes_less_time(speed in speeds(), a in any::<u32>(), b in any::<u32>(), other in any::<u32>()) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(speed.prefill_s(less, other) <= speed.prefill_s(more, other));
            prop_assert!(speed.prefill_s(other, less) <= speed.prefill_s(other, more));
            prop_assert!(speed.step_s(less, other) <= speed.step_s(more, other));
            prop_assert!(speed.step_s(other, less) <= speed.step_s(other, more));
        }

        #[test]
        fn the_knee_is_the_last_of_the_widths_that_pay(
            speed in speeds(), itl_max_s in 0.0_f64..4.0, kv_tokens_each in 0_u32..100_000, width_max in 1_u32..64,
        ) {
            let step_s = |width: u32| speed.step_s(width, width * kv_tokens_each);
            let throughput = |width: u32| f64::from(width) / step_s(width);
            let pays = |width: u32| throughput(width) >= 1.03 * throughput(width - 1) && step_s(width) <= itl_max_s;
            let walked = (2..=width_max).take_while(|width| pays(*width)).last().unwrap_or(1);
            let halved = knee(speed, itl_max_s, kv_tokens_each, width_max);
            let edge = throughput(walked.max(halved)) / throughput(walked.max(halved) - 1).max(1e-9);
            prop_assert!(walked == halved || (edge - 1.03).abs() < 1e-9, "{walked} {halved}");
        }
    }
}
