//! Rates to begin with, before a runtime has measured its own.
//!
//! Owns the formulas: decode reads all weights once a step, prefill computes two operations for each parameter and token.
//! Assumes four bits a weight, as nearly all models on Macs have; a model in 16 bits prefills faster than its seed says and is
//! learned within a few requests. Refuses to seed for chips it does not know: zero is "not measured yet".

use super::chips::{bandwidth_bytes_per_s, prefill_ops_per_s};

/// Part of the memory bandwidth that decode reaches: 0.45 to 0.60 measured at four bits, more at eight and sixteen.
const BANDWIDTH_EFFICIENCY: f64 = 0.52;

/// Four bits, and half a bit of scales: groups of 64 with a scale and a bias of 16 bits each.
const BYTES_PER_PARAMETER: f64 = 4.5 / 8.0;

/// How much longer a step takes for each further row, as a part of the first: 0.24 to 0.43 measured at four bits, 8B to 32B.
const BATCH_SLOPE: f64 = 0.33;

/// Zero: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SeedRates {
    pub(crate) prefill_tokens_per_s: f64,
    pub(crate) step_ms: f64,
    pub(crate) batch_slope: f64,
}

/// What a model with so many bytes of weights may be expected to do. A mixture of experts does better: it reads a part of them.
pub(crate) fn seed_rates(chip: &str, gpu_cores: u32, weights_bytes: u64) -> SeedRates {
    let Some(bandwidth) = bandwidth_bytes_per_s(chip, gpu_cores).filter(|_| weights_bytes > 0) else {
        return SeedRates::default();
    };
    #[expect(clippy::cast_precision_loss, reason = "an estimate of two figures")]
    let bytes = weights_bytes as f64;
    let ops_per_token = 2.0 * bytes / BYTES_PER_PARAMETER;
    SeedRates {
        prefill_tokens_per_s: prefill_ops_per_s(chip, gpu_cores).map_or(0.0, |ops| ops / ops_per_token),
        step_ms: bytes / (bandwidth * BANDWIDTH_EFFICIENCY) * 1e3,
        batch_slope: BATCH_SLOPE,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LLAMA_8B_4BIT: u64 = 4_518_000_000;

    /// Published: M2 Ultra about 90 tokens a second and 1,000 in prefill, M1 about 8 to 10, at 4 bits; a seed may be off by half.
    #[test]
    fn an_8b_model_begins_near_what_is_published() {
        let ultra = seed_rates("Apple M2 Ultra", 76, LLAMA_8B_4BIT);
        assert!((60.0..140.0).contains(&(1e3 / ultra.step_ms)), "{ultra:?}");
        assert!((600.0..1_500.0).contains(&ultra.prefill_tokens_per_s), "{ultra:?}");
        let m1 = seed_rates("Apple M1", 8, LLAMA_8B_4BIT);
        assert!((5.0..15.0).contains(&(1e3 / m1.step_ms)), "{m1:?}");
    }

    #[test]
    fn nothing_is_said_of_unknown_chips_and_models() {
        assert_eq!(seed_rates("AMD EPYC", 0, LLAMA_8B_4BIT), SeedRates::default());
        assert_eq!(seed_rates("Apple M4", 10, 0), SeedRates::default());
        let cores_unknown = seed_rates("Apple M4", 0, LLAMA_8B_4BIT);
        assert!(
            cores_unknown.prefill_tokens_per_s == 0.0 && cores_unknown.step_ms > 0.0,
            "{cores_unknown:?}"
        );
    }

    proptest! {
        #[test]
        fn a_larger_model_is_never_faster(bytes in 1..=u64::MAX, more in any::<u64>(), cores in 0_u32..100) {
            let small = seed_rates("Apple M3 Max", cores, bytes);
            let large = seed_rates("Apple M3 Max", cores, bytes.saturating_add(more));
            prop_assert!(large.step_ms >= small.step_ms && large.prefill_tokens_per_s <= small.prefill_tokens_per_s);
            prop_assert!(small.step_ms.is_finite() && small.prefill_tokens_per_s.is_finite());
        }
    }
}
