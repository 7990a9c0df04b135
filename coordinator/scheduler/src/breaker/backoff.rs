//! How long a breaker stays open: a base that doubles with each opening in a row, capped, spread by a fifth.
//!
//! Owns the arithmetic. Refuses randomness: the spread is a hash of which breaker, which opening and a seed, so two leaders
//! with one seed agree. What reaches the cap is spread below it only; at the cap lanes may come due together, which costs
//! nothing, since they are probed one after another.

use crate::limits::BreakerLimits;
use crate::time::Span;

use super::moves::Breaker;

/// The length of the `opens`-th opening in a row.
pub(super) fn open_for(breaker: Breaker, opens: u32, seed: u64, limits: &BreakerLimits) -> Span {
    let doublings = opens.saturating_sub(1).min(32);
    let length = limits.open_base.times(1 << doublings).min(limits.open_max);
    spread(length, breaker, opens, seed, limits)
}

/// The length of an opening that nobody gains from: the base, however often it opened.
pub(super) fn open_briefly(breaker: Breaker, opens: u32, seed: u64, limits: &BreakerLimits) -> Span {
    spread(limits.open_base, breaker, opens, seed, limits)
}

fn spread(length: Span, breaker: Breaker, opens: u32, seed: u64, limits: &BreakerLimits) -> Span {
    let jitter = limits.open_jitter_permille.min(1_000);
    let permille =
        1_000_u64.saturating_sub(jitter).saturating_add(hash(breaker, opens, seed) % (2 * jitter + 1));
    Span((length.0 / 1_000).saturating_mul(permille)).min(limits.open_max)
}

fn hash(breaker: Breaker, opens: u32, seed: u64) -> u64 {
    let (kind, node, model) = match breaker {
        Breaker::Lane((node, model)) => (0, node, u64::from(model.0)),
        Breaker::Node(node) => (1, node, 0),
    };
    [kind, node.0, model, u64::from(opens)].into_iter().fold(mix(seed), |hash, word| mix(hash ^ word))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): each bit of the input moves half of the output's.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ModelId, NodeId};

    fn lane(node: u64, model: u32) -> Breaker {
        Breaker::Lane((NodeId(node), ModelId(model)))
    }

    fn s(span: Span) -> u64 {
        span.0 / 1_000_000
    }

    #[test]
    fn the_length_doubles_from_five_seconds_and_stays_at_three_hundred() {
        let limits = BreakerLimits { open_jitter_permille: 0, ..BreakerLimits::default() };
        let lengths =
            [1, 2, 3, 4, 5, 6, 7, 8, 40, u32::MAX].map(|opens| s(open_for(lane(1, 1), opens, 0, &limits)));
        assert_eq!(lengths, [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]);
        assert_eq!(s(open_briefly(lane(1, 1), 9, 0, &limits)), 5);
    }

    #[test]
    fn the_spread_is_the_same_every_time_and_differs_between_lanes_openings_and_seeds() {
        let limits = BreakerLimits::default();
        let length = |breaker, opens, seed| open_briefly(breaker, opens, seed, &limits);
        let first = length(lane(1, 1), 1, 7);
        assert_eq!(first, length(lane(1, 1), 1, 7));
        let others = [
            length(lane(2, 1), 1, 7),
            length(lane(1, 2), 1, 7),
            length(lane(1, 1), 2, 7),
            length(lane(1, 1), 1, 8),
            length(Breaker::Node(NodeId(1)), 1, 7),
        ];
        assert!(others.iter().all(|other| *other != first), "{first:?} {others:?}");
    }

    #[test]
    fn the_spread_uses_its_whole_range_evenly() {
        let limits = BreakerLimits::default();
        let ms: Vec<u64> =
            (0..4_000).map(|node| open_briefly(lane(node, 1), 1, 7, &limits).0 / 1_000).collect();
        let share = |from, to| ms.iter().filter(|ms| (from..to).contains(*ms)).count();
        assert_eq!(share(4_000, 6_001), 4_000);
        for quarter in 0..4 {
            let from = 4_000 + quarter * 500;
            assert!(
                (900..1_100).contains(&share(from, from + 500)),
                "quarter {quarter}: {}",
                share(from, from + 500)
            );
        }
    }

    #[test]
    fn the_longest_openings_are_spread_too_but_only_below_three_hundred_seconds() {
        let limits = BreakerLimits::default();
        let lengths: Vec<u64> = (0..1_000).map(|node| s(open_for(lane(node, 1), 40, 7, &limits))).collect();
        assert!(lengths.iter().all(|s| (240..=300).contains(s)));
        let below = lengths.iter().filter(|s| **s < 300).count();
        assert!((400..600).contains(&below), "{below} of a thousand below the cap");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_opening_is_within_a_fifth_of_its_length_and_never_over_three_hundred_seconds(
            node: u64, model: u32, opens in 1_u32..80, seed: u64,
        ) {
            let length = open_for(lane(node, model), opens, seed, &BreakerLimits::default()).0;
            let nominal = 5_000_000_u64.saturating_mul(1 << (opens - 1).min(30)).min(300_000_000);
            prop_assert!(length >= nominal / 10 * 8, "{} of {}", length, nominal);
            prop_assert!(length <= (nominal / 10 * 12).min(300_000_000), "{} of {}", length, nominal);
        }
    }
}
