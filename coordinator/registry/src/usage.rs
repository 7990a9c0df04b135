//! What each key has used, by day and by month of UTC.
//!
//! Owns the totals, and that nothing is counted twice: a gateway numbers what it tells, and a number counts once. Refuses to be
//! a ledger of requests: single ones are never here, and older totals are forgotten.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::KeyId;
use crate::field::Field;
use crate::key_field::KeyField;
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Requests that were taken on.
    pub requests: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub answer_tokens: u64,
}

impl Used {
    /// Tokens of both kinds.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.answer_tokens)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            answer_tokens: self.answer_tokens.saturating_add(other.answer_tokens),
        }
    }
}

/// The totals of one key. Days are like 20261126, months like 202611, so that they are read by people and sort by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    /// By day, the latest [`limits::USAGE_DAYS_MAX`].
    #[serde(default)]
    pub days: BTreeMap<u32, Used>,
    /// By month, the latest [`limits::USAGE_MONTHS_MAX`].
    #[serde(default)]
    pub months: BTreeMap<u32, Used>,
}

impl KeyUsage {
    /// What was used on the day of this moment.
    #[must_use]
    pub fn day(&self, at_unix_ms: u64) -> Used {
        self.days.get(&Date::of(at_unix_ms).day()).copied().unwrap_or_default()
    }

    /// What was used in the month of this moment.
    #[must_use]
    pub fn month(&self, at_unix_ms: u64) -> Used {
        self.months.get(&Date::of(at_unix_ms).month()).copied().unwrap_or_default()
    }

    fn add(&mut self, date: Date, used: Used) {
        add(&mut self.days, date.day(), used, limits::USAGE_DAYS_MAX);
        add(&mut self.months, date.month(), used, limits::USAGE_MONTHS_MAX);
    }
}

fn add(totals: &mut BTreeMap<u32, Used>, when: u32, used: Used, most: usize) {
    let total = totals.entry(when).or_default();
    *total = total.plus(used);
    while totals.len() > most {
        totals.pop_first();
    }
}

/// The last report of one gateway that was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageMark {
    /// The life of the gateway's process; a later one has a higher number.
    pub life: u64,
    /// The report's number in that life; the first is 1.
    pub sequence: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    #[serde(default)]
    of_keys: BTreeMap<KeyId, KeyUsage>,
    /// By the replica whose gateway it is.
    #[serde(default)]
    gateways: BTreeMap<u64, UsageMark>,
}

impl Usage {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn forget(&mut self, key: &KeyId) {
        self.of_keys.remove(key);
    }
}

impl Registry {
    /// Decides in this order:
    /// 1. what was counted is not counted again;
    /// 2. a number counts if it is the next of its life, or the first of a later life;
    /// 3. what belongs to a key that is forgotten is dropped: nobody could look at it.
    pub(crate) fn count_usage(
        &mut self,
        gateway: u64,
        told: UsageMark,
        at_unix_ms: u64,
        used: &BTreeMap<KeyId, Used>,
    ) -> Result<Reply, Refusal> {
        if told.sequence == 0 || used.is_empty() || used.len() > limits::USAGE_KEYS_MAX {
            return Err(Refusal::Malformed { what: Field::Key(KeyField::Usage) });
        }
        let known = self.usage_mark(gateway);
        if told.life == known.life && told.sequence <= known.sequence {
            return Ok(Reply::AlreadySo); // 1
        }
        let next = told.life == known.life && told.sequence == known.sequence.saturating_add(1);
        let first = told.life > known.life && told.sequence == 1;
        if !(next || first) {
            return Err(Refusal::UsageOutOfTurn { gateway, told, known }); // 2
        }
        self.usage.gateways.insert(gateway, told);
        self.forget_oldest_gateway();
        let date = Date::of(at_unix_ms);
        for (key, used) in used {
            // 3
            if self.keys.contains_key(key) {
                self.usage.of_keys.entry(key.clone()).or_default().add(date, *used);
            }
        }
        Ok(Reply::Done)
    }

    /// What a key has used.
    #[must_use]
    pub fn key_usage(&self, key: &KeyId) -> Option<&KeyUsage> {
        self.usage.of_keys.get(key)
    }

    /// The last report that was counted of the gateway of this replica.
    #[must_use]
    pub fn usage_mark(&self, gateway: u64) -> UsageMark {
        self.usage.gateways.get(&gateway).copied().unwrap_or_default()
    }

    /// The one whose process began first is the one that is gone.
    fn forget_oldest_gateway(&mut self) {
        let gateways = &mut self.usage.gateways;
        if gateways.len() > limits::USAGE_GATEWAYS_MAX
            && let Some((oldest, _)) = gateways.iter().min_by_key(|(gateway, mark)| (mark.life, **gateway))
        {
            let oldest = *oldest;
            gateways.remove(&oldest);
        }
    }
}

/// A day of the proleptic Gregorian calendar, UTC.
#[derive(Clone, Copy)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
}

const DAY_MS: u64 = 24 * 3_600 * 1_000;
/// The year 9999 ends; whoever says a later time has no clock.
const LAST_DAY: u64 = 2_932_896;

impl Date {
    /// `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>, for days since 1970.
    fn of(at_unix_ms: u64) -> Self {
        let days = u32::try_from((at_unix_ms / DAY_MS).min(LAST_DAY)).unwrap_or_default() + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let years = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * years + years / 4 - years / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + years + u32::from(month <= 2);
        Self { year, month, day }
    }

    fn day(self) -> u32 {
        self.month() * 100 + self.day
    }

    fn month(self) -> u32 {
        self.year * 100 + self.month
    }
}

/// Milliseconds until the month of this moment is over.
#[must_use]
pub fn rest_of_month_ms(at_unix_ms: u64) -> u64 {
    let month = Date::of(at_unix_ms).month();
    let midnight = at_unix_ms / DAY_MS * DAY_MS;
    let days = (1..=31).find(|days| Date::of(midnight.saturating_add(days * DAY_MS)).month() != month);
    midnight.saturating_add(days.unwrap_or(31) * DAY_MS).saturating_sub(at_unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_its_day_and_its_month() {
        for (at_unix_ms, day) in [
            (0, 19_700_101),
            (DAY_MS - 1, 19_700_101),
            (951_782_399_999, 20_000_228),
            (951_782_400_000, 20_000_229),
            (951_868_800_000, 20_000_301),
            (1_709_164_800_000, 20_240_229),
            (1_772_323_199_999, 20_260_228),
            (1_772_323_200_000, 20_260_301),
            (1_798_761_599_999, 20_261_231),
            (1_798_761_600_000, 20_270_101),
            (4_107_542_400_000, 21_000_301),
            (u64::MAX, 99_991_231),
        ] {
            let date = Date::of(at_unix_ms);
            assert_eq!((date.day(), date.month()), (day, day / 100), "{at_unix_ms}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = Date::of(0);
        for days in 1..80_000 {
            let date = Date::of(days * DAY_MS);
            let same_month = date.month() == before.month() && date.day == before.day + 1;
            let next_month =
                date.month() > before.month() && date.day == 1 && (28..=31).contains(&before.day);
            assert!(same_month || next_month, "{days}");
            before = date;
        }
    }

    #[test]
    fn a_month_is_over_when_the_next_one_begins() {
        for at_unix_ms in [0, 1, DAY_MS, 951_782_399_999, 1_772_323_199_999, 1_798_700_000_000] {
            let rest = rest_of_month_ms(at_unix_ms);
            assert!(rest > 0);
            let (last, next) = (Date::of(at_unix_ms + rest - 1), Date::of(at_unix_ms + rest));
            assert_eq!(last.month(), Date::of(at_unix_ms).month());
            assert!(next.day == 1 && next.month() > last.month());
        }
        assert!(rest_of_month_ms(u64::MAX) <= 31 * DAY_MS);
    }
}
