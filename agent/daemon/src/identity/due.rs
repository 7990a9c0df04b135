//! When a certificate is to be renewed.
//!
//! Owns this rule: at two thirds of its life, a little earlier by chance, so that the Macs of a room that joined together do not
//! renew together; a third of the life is left to reach a coordinator. Pure: time and dice are handed in.

use std::time::Duration;

use proto::identity::{BACKDATED, Validity};

use crate::limits::LEAF_LIFE_MAX;

/// The moment, in milliseconds since 1970.
pub(crate) fn due(validity: Validity, dice: u32) -> u64 {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let issued = validity.from_unix_ms.saturating_add(millis(BACKDATED)).min(validity.until_unix_ms);
    let life = (validity.until_unix_ms - issued).min(millis(LEAF_LIFE_MAX));
    let early = u64::from(dice) * (life / 10) / u64::from(u32::MAX);
    issued.saturating_add(life / 3 * 2).saturating_sub(early)
}

/// Nobody takes it any more.
pub(crate) fn is_over(validity: Validity, now_unix_ms: u64) -> bool {
    now_unix_ms >= validity.until_unix_ms
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;

    /// Signed at this moment, good for so long.
    fn signed(at: u64, life: u64) -> Validity {
        Validity { from_unix_ms: at - HOUR, until_unix_ms: at + life }
    }

    #[test]
    fn a_week_is_renewed_on_its_fifth_day() {
        let week = signed(100 * DAY, 7 * DAY);
        assert_eq!(due(week, 0), 100 * DAY + 7 * DAY / 3 * 2);
        assert_eq!(due(week, u32::MAX), 100 * DAY + 7 * DAY / 3 * 2 - 7 * DAY / 10);
    }

    #[test]
    fn a_year_that_an_earlier_release_gave_counts_as_a_week() {
        assert_eq!(due(signed(100 * DAY, 365 * DAY), 0), due(signed(100 * DAY, 7 * DAY), 0));
    }

    #[test]
    fn one_is_over_from_its_last_moment_on() {
        let week = signed(100 * DAY, 7 * DAY);
        assert!(!is_over(week, 107 * DAY - 1));
        assert!(is_over(week, 107 * DAY));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_last_third_is_always_left_and_more_than_half_is_used(
            at in HOUR..u64::MAX / 4, life in 1_000..8 * DAY, dice: u32,
        ) {
            let life = life.min(7 * DAY);
            let due = due(signed(at, life), dice);
            prop_assert!(due <= at + life - life / 3 && due >= at + life / 2, "{} of {}", due - at, life);
        }

        #[test]
        fn no_certificate_however_odd_breaks_the_rule(from: u64, until: u64, dice: u32) {
            let odd = Validity { from_unix_ms: from, until_unix_ms: until };
            prop_assert!(due(odd, dice) <= until);
        }
    }
}
