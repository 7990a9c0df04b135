//! What models may take of a machine's memory in all.
//!
//! Owns the estimate made before any runtime ran. On a Mac the honest number is Metal's `recommendedMaxWorkingSetSize`, which
//! follows the wired limit; MLX tells it once a runtime is up. Until then the published rule stands in: two thirds of the
//! memory up to 36 GiB, three quarters above. Measured by others: 10.7 to 11.8 of 16 GB, 17.8 of 24 GB, 107.5 of 128 GB.

const GIB: u64 = 1 << 30;

/// A Mac's GPU. A wired limit (`iogpu.wired_limit_mb`) is the operator's word; zero means that none is set.
pub(super) fn mac(memory_bytes: u64, wired_limit_mb: u64) -> u64 {
    let wired_bytes = wired_limit_mb.saturating_mul(1 << 20);
    if wired_bytes > 0 {
        return wired_bytes.min(memory_bytes);
    }
    if memory_bytes <= 36 * GIB { part(memory_bytes, 2, 3) } else { part(memory_bytes, 3, 4) }
}

/// A machine whose models run on the processor share its memory with everything else: half of it.
pub(super) fn processor(memory_bytes: u64) -> u64 {
    part(memory_bytes, 1, 2)
}

fn part(bytes: u64, numerator: u128, denominator: u128) -> u64 {
    let part = (u128::from(bytes) * numerator).checked_div(denominator).unwrap_or_default();
    u64::try_from(part).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_macs_gpu_gets_two_thirds_and_from_36_gib_on_three_quarters() {
        assert_eq!(mac(24 * GIB, 0), 16 * GIB);
        assert_eq!(mac(36 * GIB, 0), 24 * GIB);
        assert_eq!(mac(64 * GIB, 0), 48 * GIB);
        assert_eq!(mac(512 * GIB, 0), 384 * GIB);
    }

    #[test]
    fn a_wired_limit_is_taken_at_its_word_but_not_beyond_the_memory() {
        assert_eq!(mac(64 * GIB, 57_344), 56 * GIB);
        assert_eq!(mac(16 * GIB, 99_999_999), 16 * GIB);
        assert_eq!(mac(16 * GIB, u64::MAX), 16 * GIB);
    }

    #[test]
    fn a_processor_gets_half() {
        assert_eq!(processor(24 * GIB), 12 * GIB);
    }

    proptest! {
        #[test]
        fn no_budget_exceeds_the_memory(memory in any::<u64>(), wired in any::<u64>()) {
            prop_assert!(mac(memory, wired) <= memory && processor(memory) <= memory);
        }
    }
}
