//! One bucket: how much of what a minute allows is taken at a moment.
//!
//! Owns the arithmetic, which is exact: a level is counted in microseconds of the bound, so that nothing is lost in rounding,
//! however often it drains. Refuses to be full at the start only: it is empty, so whoever comes first may take a whole minute's
//! worth at once, and over any minute nobody takes more than twice that.

use crate::allowance::Standing;
use crate::time::{At, Span};

const MINUTE: u128 = 60_000_000;

/// A leaky bucket of one minute's worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    /// Units taken, each `MINUTE` high, which drain by the bound in each microsecond.
    height: u128,
    at: At,
    /// What of it earlier leaders told: until then it would have drained.
    told_until: At,
}

impl Level {
    /// How long until `count` more fit; `None`: they do.
    pub(super) fn wait(&self, now: At, limit: Option<u64>, count: u64) -> Option<Span> {
        let limit = u128::from(limit?.max(1));
        let needed = self.drained(now, limit).saturating_add(raised(count));
        let over = needed.saturating_sub(limit * MINUTE);
        (over > 0).then(|| span(over.div_ceil(limit)))
    }

    pub(super) fn charge(&mut self, now: At, limit: Option<u64>, count: u64) {
        self.drain(now, limit);
        self.height = self.height.saturating_add(raised(count));
    }

    /// Of `claimed`, which was charged at `since`, only `used` were taken. What of it has drained meanwhile made room for others
    /// and is not given back: so the level is never below what it would be, had only `used` been charged.
    pub(super) fn give_back(&mut self, now: At, limit: Option<u64>, claimed: u64, used: u64, since: At) {
        self.drain(now, limit);
        let rate = u128::from(limit.unwrap_or(0));
        let left = raised(claimed).saturating_sub(rate.saturating_mul(now.since(since).0.into()));
        self.height = self.height.saturating_sub(left.min(raised(claimed.saturating_sub(used))));
    }

    /// What was told before is in the level already.
    pub(super) fn recall(&mut self, now: At, limit: Option<u64>, reset: Span) {
        self.drain(now, limit);
        let until = now + reset;
        let news = until.since(now.max(self.told_until));
        self.told_until = self.told_until.max(until);
        let told = u128::from(limit.unwrap_or(0)).saturating_mul(news.0.into());
        self.height = self.height.saturating_add(told);
    }

    pub(super) fn standing(&self, now: At, limit: Option<u64>) -> Option<Standing> {
        let limit = limit?;
        let rate = u128::from(limit.max(1));
        let height = self.drained(now, rate);
        let free = (rate * MINUTE).saturating_sub(height) / MINUTE;
        let remaining = u64::try_from(free).unwrap_or(u64::MAX);
        Some(Standing { limit, remaining, reset: span(height.div_ceil(rate)) })
    }

    fn drain(&mut self, now: At, limit: Option<u64>) {
        // Without a bound nothing is kept: a bound that comes later begins with an empty bucket.
        self.height = limit.map_or(0, |limit| self.drained(now, limit.into()));
        self.at = now;
    }

    fn drained(&self, now: At, rate: u128) -> u128 {
        self.height.saturating_sub(rate.saturating_mul(now.since(self.at).0.into()))
    }
}

fn raised(count: u64) -> u128 {
    u128::from(count) * MINUTE
}

fn span(micros: u128) -> Span {
    Span(u64::try_from(micros).unwrap_or(u64::MAX))
}
