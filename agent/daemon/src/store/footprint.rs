//! What a loaded model is reserved for in a Mac's memory.
//!
//! Owns the formula: weights + KV cache of an agreed number of sequences of an agreed length + what a runtime takes besides.
//! It is a reservation, made before loading; refuses to be a limit, since the runtime reports what it really uses.

use super::facts::{Known, ModelFacts};
use super::limits::{
    PROCESS_BYTES, RESERVED_TOKENS, RESERVED_WIDTH, STEP_BYTES_MAX, STEP_BYTES_MIN, STEP_WEIGHTS_DIVISOR,
    UNKNOWN_KV_WEIGHTS_DIVISOR,
};

pub(super) fn bytes(known: &Known) -> u64 {
    let facts = &known.facts;
    let sequence = sequence_bytes(facts).saturating_add(known.kv_bytes_per_sequence);
    let kv = sequence.saturating_mul(RESERVED_WIDTH);
    let step = facts
        .weights_bytes
        .checked_div(STEP_WEIGHTS_DIVISOR)
        .unwrap_or_default()
        .clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
    facts.weights_bytes.saturating_add(kv).saturating_add(step).saturating_add(PROCESS_BYTES)
}

/// KV of one sequence of the reserved length, without what it takes once.
fn sequence_bytes(facts: &ModelFacts) -> u64 {
    if facts.kv_bytes_per_token == 0 {
        return facts.weights_bytes.checked_div(UNKNOWN_KV_WEIGHTS_DIVISOR).unwrap_or_default();
    }
    let tokens =
        if facts.context_length == 0 { RESERVED_TOKENS } else { facts.context_length.min(RESERVED_TOKENS) };
    facts.kv_bytes_per_token.saturating_mul(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn reserved(facts: ModelFacts) -> u64 {
        bytes(&Known { facts, kv_bytes_per_sequence: 0 })
    }

    #[test]
    fn an_8b_model_in_four_bits_reserves_its_weights_its_cache_and_its_buffers() {
        let facts = ModelFacts {
            weights_bytes: 4 * GIB + GIB / 2,
            kv_bytes_per_token: 128 << 10,
            context_length: 131_072,
            ..ModelFacts::default()
        };
        assert_eq!(reserved(facts.clone()), facts.weights_bytes + 4 * GIB + (512 << 20) + (160 << 20));
    }

    #[test]
    fn a_short_context_reserves_no_more_than_it_can_fill() {
        let facts = ModelFacts {
            weights_bytes: 0,
            kv_bytes_per_token: 1_000,
            context_length: 2_048,
            ..ModelFacts::default()
        };
        assert_eq!(reserved(facts), 4 * 2_048 * 1_000 + (128 << 20) + (160 << 20));
    }

    #[test]
    fn an_unknown_cache_reserves_as_much_as_the_weights() {
        let facts = ModelFacts { weights_bytes: 8 * GIB, ..ModelFacts::default() };
        assert_eq!(reserved(facts), 16 * GIB + (512 << 20) + (160 << 20));
    }

    #[test]
    fn windows_are_reserved_once_for_each_sequence() {
        let facts = ModelFacts { kv_bytes_per_token: 1, context_length: 1, ..ModelFacts::default() };
        let windows = Known { facts: facts.clone(), kv_bytes_per_sequence: 1_000 };
        assert_eq!(bytes(&windows), reserved(facts) + 4 * 1_000);
    }

    proptest! {
        #[test]
        fn a_footprint_holds_at_least_the_weights_and_grows_with_them(
            weights in any::<u64>(), more in any::<u64>(), kv in any::<u64>(), context in any::<u64>(),
        ) {
            let of = |weights_bytes| reserved(ModelFacts {
                weights_bytes, kv_bytes_per_token: kv, context_length: context, ..ModelFacts::default()
            });
            prop_assert!(of(weights) >= weights);
            prop_assert!(of(weights.saturating_add(more)) >= of(weights));
        }
    }
}
