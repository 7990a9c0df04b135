//! How much one account may ask for: requests and tokens in a minute, requests at one time, tokens in a month.
//!
//! Owns what an account has in use at a moment, and when it may come again. `level` is one bucket, `month` what the totals do not
//! show yet. Refuses to know the account's bounds, which come with each question, since an operator may change them at any time;
//! and to keep anything that outlives a leader: the next one is told by the gateways.
//!
//! 1. A request claims before it is submitted: itself, the tokens of its prompt, and those that its answer may take.
//! 2. What it took is settled when it is over, once: a claim that is not open has been settled already. What it had claimed too
//!    much is given back; what it took beyond that is charged.
//! 3. A new leader adopts the claims that are open, and is told how full the buckets were. Whatever is told twice, or of two
//!    gateways, counts as the larger of both, so a change of leaders gives nobody more than one bucket.

mod level;
mod month;

use alloc::collections::BTreeMap;

use self::level::Level;
use self::month::Unseen;
use crate::ids::RequestId;
use crate::limits;
use crate::time::{At, Span};

/// What an account may ask for; what is absent has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Requests in a minute.
    pub requests: Option<u64>,
    /// Tokens in a minute.
    pub tokens: Option<u64>,
    /// Requests at one time.
    pub concurrent: Option<u64>,
    /// Tokens in this month, and how many of them were used as far as is written down.
    pub month: Option<Month>,
}

/// A bound of a calendar month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    /// The most.
    pub most: u64,
    /// Written down.
    pub used: u64,
}

/// What a request claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number, which no other claim has.
    pub number: RequestId,
    /// Tokens that it takes in any case.
    pub prompt_tokens: u64,
    /// Tokens that its answers may take.
    pub answer_tokens: u64,
}

/// How a bucket stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The most in a minute.
    pub limit: u64,
    /// What could be asked for at this moment.
    pub remaining: u64,
    /// Until it is whole again.
    pub reset: Span,
}

/// How an account stands. Buckets without a bound are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    /// Of requests.
    pub requests: Option<Standing>,
    /// Of tokens.
    pub tokens: Option<Standing>,
}

/// Why a claim is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Too many requests in a minute.
    Requests {
        /// When one more may come.
        after: Span,
    },
    /// Too many tokens in a minute.
    Tokens {
        /// When as many may be asked for.
        after: Span,
    },
    /// The prompt has more tokens than a minute allows.
    Never,
    /// Too many requests at one time.
    Concurrent,
    /// The month's tokens are used up.
    Month,
}

/// What one account has in use.
#[derive(Clone, Debug, Default)]
pub struct Account {
    requests: Level,
    tokens: Level,
    open: BTreeMap<RequestId, Open>,
    unseen: Unseen,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    tokens: u64,
    since: At,
}

impl Account {
    /// Decides in this order; only what is granted is charged:
    /// 1. a claim that is open is granted again, and not charged again;
    /// 2. the month's tokens, then requests at one time: waiting for a bucket would not help;
    /// 3. requests in a minute;
    /// 4. tokens in a minute. An answer that may take more than a whole bucket claims a whole one.
    ///
    /// # Errors
    /// Why not.
    pub fn claim(&mut self, now: At, bounds: &Bounds, claim: Claim) -> Result<(), Excess> {
        if self.open.contains_key(&claim.number) {
            return Ok(()); // 1
        }
        if bounds.month.is_some_and(|month| self.unseen.exceeds(now, month, claim.prompt_tokens)) {
            return Err(Excess::Month); // 2
        }
        let open = u64::try_from(self.open.len()).unwrap_or(u64::MAX);
        if bounds.concurrent.is_some_and(|most| open >= most) || self.open.len() >= limits::CLAIMS_MAX {
            return Err(Excess::Concurrent);
        }
        if let Some(after) = self.requests.wait(now, bounds.requests, 1) {
            return Err(Excess::Requests { after }); // 3
        }
        let most = bounds.tokens.unwrap_or(u64::MAX);
        if claim.prompt_tokens > most {
            return Err(Excess::Never); // 4
        }
        let tokens = claim.prompt_tokens.saturating_add(claim.answer_tokens).min(most);
        if let Some(after) = self.tokens.wait(now, bounds.tokens, tokens) {
            return Err(Excess::Tokens { after });
        }
        self.requests.charge(now, bounds.requests, 1);
        self.tokens.charge(now, bounds.tokens, tokens);
        self.open.insert(claim.number, Open { tokens, since: now });
        Ok(())
    }

    /// A claim is over, and this is what it took. Returns whether it was open.
    pub fn settle(&mut self, now: At, bounds: &Bounds, number: RequestId, used: u64) -> bool {
        let Some(open) = self.open.remove(&number) else { return false };
        match used.checked_sub(open.tokens) {
            Some(more) => self.tokens.charge(now, bounds.tokens, more),
            None => self.tokens.give_back(now, bounds.tokens, open.tokens, used, open.since),
        }
        self.unseen.add(now, used);
        true
    }

    /// Whoever held the claim is gone, and with him the word of what it took: it keeps what it claimed.
    pub fn release(&mut self, number: RequestId) -> bool {
        self.open.remove(&number).is_some()
    }

    /// A claim that an earlier leader had granted. It was charged then, which [`Account::recall`] tells.
    pub fn adopt(&mut self, number: RequestId, tokens: u64, since: At) {
        if self.open.len() < limits::CLAIMS_MAX {
            self.open.entry(number).or_insert(Open { tokens, since });
        }
    }

    /// How long the buckets took to be whole again when an earlier leader last said so.
    pub fn recall(&mut self, now: At, bounds: &Bounds, requests: Span, tokens: Span) {
        self.requests.recall(now, bounds.requests, requests);
        self.tokens.recall(now, bounds.tokens, tokens);
    }

    /// The month's total as it is written down, which is news or not.
    pub fn written(&mut self, used: u64) {
        self.unseen.written(used);
    }

    /// How it stands.
    #[must_use]
    pub fn standings(&self, now: At, bounds: &Bounds) -> Standings {
        Standings {
            requests: self.requests.standing(now, bounds.requests),
            tokens: self.tokens.standing(now, bounds.tokens),
        }
    }

    /// What the claim was charged with, while it is open.
    #[must_use]
    pub fn claimed(&self, number: RequestId) -> Option<u64> {
        self.open.get(&number).map(|open| open.tokens)
    }

    /// Nothing is open, and nothing would be lost with it.
    #[must_use]
    pub fn is_idle(&self, now: At, bounds: &Bounds) -> bool {
        let whole = |standing: Option<Standing>| standing.is_none_or(|standing| standing.reset == Span::ZERO);
        let Standings { requests, tokens } = self.standings(now, bounds);
        self.open.is_empty() && whole(requests) && whole(tokens) && self.unseen.is_over(now)
    }
}

#[cfg(test)]
#[path = "allowance/account_tests.rs"]
mod tests;
