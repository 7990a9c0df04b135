//! What a loaded model is reserved for in a Mac's memory.
//!
//! Owns the formula: weights + KV cache of an agreed number of sequences of an agreed length + prefix cache + what a runtime
//! takes besides; and what the two caches hold in tokens. It is a reservation, made before loading; refuses to be a limit, since
//! the runtime reports what it really uses.

use super::facts::{Known, ModelFacts};
use super::limits::{
    PREFIX_BYTES_MAX, PREFIX_BYTES_MIN, PROCESS_BYTES, RESERVED_TOKENS, RESERVED_WIDTH, STEP_BYTES_MAX,
    STEP_BYTES_MIN, STEP_WEIGHTS_DIVISOR, UNKNOWN_KV_WEIGHTS_DIVISOR,
};

/// A reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// All of it.
    pub(crate) bytes: u64,
    /// Tokens that its KV cache is for, over all sequences. Zero: nobody knows what a token takes.
    pub(crate) kv_tokens: u64,
    /// The part of the prefix cache. Zero: nobody knows what a token takes, so there is none.
    pub(crate) prefix_bytes: u64,
    /// What that part can hold.
    pub(crate) prefix_tokens: u64,
}

impl Footprint {
    pub(super) fn of(known: &Known) -> Self {
        let facts = &known.facts;
        let sequence = sequence_bytes(facts).saturating_add(known.kv_bytes_per_sequence);
        let kv = sequence.saturating_mul(RESERVED_WIDTH);
        let step = facts
            .weights_bytes
            .checked_div(STEP_WEIGHTS_DIVISOR)
            .unwrap_or_default()
            .clamp(STEP_BYTES_MIN, STEP_BYTES_MAX);
        let parts = [facts.weights_bytes, kv, step, PROCESS_BYTES];
        let bytes = parts.into_iter().fold(0, u64::saturating_add);
        if facts.kv_bytes_per_token == 0 {
            return Self { bytes, ..Self::default() };
        }
        let prefix_bytes = sequence.clamp(PREFIX_BYTES_MIN, PREFIX_BYTES_MAX);
        Self {
            bytes: bytes.saturating_add(prefix_bytes),
            kv_tokens: sequence_tokens(facts).saturating_mul(RESERVED_WIDTH),
            prefix_bytes,
            prefix_tokens: prefix_bytes.checked_div(facts.kv_bytes_per_token).unwrap_or_default(),
        }
    }
}

/// KV of one sequence of the reserved length, without what it takes once.
fn sequence_bytes(facts: &ModelFacts) -> u64 {
    if facts.kv_bytes_per_token == 0 {
        return facts.weights_bytes.checked_div(UNKNOWN_KV_WEIGHTS_DIVISOR).unwrap_or_default();
    }
    facts.kv_bytes_per_token.saturating_mul(sequence_tokens(facts))
}

fn sequence_tokens(facts: &ModelFacts) -> u64 {
    if facts.context_length == 0 { RESERVED_TOKENS } else { facts.context_length.min(RESERVED_TOKENS) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn reserved(facts: ModelFacts) -> Footprint {
        Footprint::of(&Known { facts, kv_bytes_per_sequence: 0 })
    }

    #[test]
    fn an_8b_model_in_four_bits_reserves_its_weights_its_caches_and_its_buffers() {
        let facts = ModelFacts {
            weights_bytes: 4 * GIB + GIB / 2,
            kv_bytes_per_token: 128 << 10,
            context_length: 131_072,
            ..ModelFacts::default()
        };
        let footprint = Footprint {
            bytes: facts.weights_bytes + 4 * GIB + GIB + 512 * MIB + 160 * MIB,
            kv_tokens: 4 * 8_192,
            prefix_bytes: GIB,
            prefix_tokens: 8_192,
        };
        assert_eq!(reserved(facts), footprint);
    }

    #[test]
    fn a_short_context_reserves_no_more_than_it_can_fill() {
        let facts = ModelFacts {
            weights_bytes: 0,
            kv_bytes_per_token: 100_000,
            context_length: 2_048,
            ..ModelFacts::default()
        };
        let sequence = 2_048 * 100_000;
        let footprint = Footprint {
            bytes: 4 * sequence + sequence + 128 * MIB + 160 * MIB,
            kv_tokens: 4 * 2_048,
            prefix_bytes: sequence,
            prefix_tokens: 2_048,
        };
        assert_eq!(reserved(facts), footprint);
    }

    #[test]
    fn an_unknown_cache_reserves_as_much_as_the_weights_and_promises_no_tokens() {
        let facts = ModelFacts { weights_bytes: 8 * GIB, ..ModelFacts::default() };
        let bytes = 16 * GIB + 512 * MIB + 160 * MIB;
        assert_eq!(reserved(facts), Footprint { bytes, ..Footprint::default() });
    }

    #[test]
    fn windows_are_reserved_once_for_each_sequence_and_for_the_prefixes() {
        let facts = ModelFacts { kv_bytes_per_token: 1 << 20, context_length: 64, ..ModelFacts::default() };
        let windows = Footprint::of(&Known { facts: facts.clone(), kv_bytes_per_sequence: 1_000 });
        assert_eq!(windows.bytes, reserved(facts).bytes + 5 * 1_000);
        assert_eq!(windows.prefix_bytes, 64 * MIB + 1_000);
    }

    #[test]
    fn a_prefix_cache_is_neither_too_small_to_help_nor_as_large_as_a_model() {
        let facts = |kv_bytes_per_token| ModelFacts { kv_bytes_per_token, ..ModelFacts::default() };
        let small = reserved(facts(2_048));
        assert_eq!((small.prefix_bytes, small.prefix_tokens), (64 * MIB, 32_768));
        let large = reserved(facts(1 << 20));
        assert_eq!((large.prefix_bytes, large.prefix_tokens), (4 * GIB, 4_096));
    }

    proptest! {
        #[test]
        fn a_footprint_holds_at_least_the_weights_and_the_prefixes_and_grows_with_the_weights(
            weights in any::<u64>(), more in any::<u64>(), kv in any::<u64>(), context in any::<u64>(),
        ) {
            let of = |weights_bytes| reserved(ModelFacts {
                weights_bytes, kv_bytes_per_token: kv, context_length: context, ..ModelFacts::default()
            });
            let footprint = of(weights);
            prop_assert!(footprint.bytes >= weights.saturating_add(footprint.prefix_bytes));
            prop_assert!(of(weights.saturating_add(more)).bytes >= footprint.bytes);
            prop_assert!(u128::from(footprint.prefix_tokens) * u128::from(kv) <= u128::from(footprint.prefix_bytes));
        }
    }
}
