//! The accounts of keys with bounds, as the leader keeps them.
//!
//! Owns which key a claim is of, and what the registry says of a key's bounds at this moment. Refuses every decision: that is
//! `scheduler::allowance`.

use std::collections::BTreeMap;

use registry::{KeyId, Registry};
use scheduler::allowance::{Account, Bounds, Claim, Month};
use scheduler::{At, RequestId};
use tokio::sync::mpsc;

use super::Order;
use crate::claims::{Asking, Verdict, Word};
use crate::clock::{Clock, unix_ms};

#[derive(Default)]
pub(super) struct Accounts {
    of_keys: BTreeMap<KeyId, Account>,
    claims: BTreeMap<RequestId, KeyId>,
}

/// What the moment is, and what is known in it.
pub(super) struct Moment<'a> {
    pub(super) clock: &'a Clock,
    pub(super) registry: &'a Registry,
    /// Tokens of one answer that is as long as it likes.
    pub(super) expected: &'a mut dyn FnMut(&Asking) -> u32,
}

impl Accounts {
    pub(super) fn hear(&mut self, word: Word, line: &mpsc::Sender<Order>, moment: &mut Moment<'_>) {
        let now = moment.clock.now();
        match word {
            Word::Claim(number, asking) => {
                let verdict = self.decide(now, number, &asking, moment);
                let _ = line.try_send(Order::Verdict(verdict));
            }
            Word::Adopt(number, asking, tokens, since) => {
                self.account(&asking.key).adopt(number, tokens, moment.clock.at(since));
                self.claims.insert(number, asking.key);
            }
            Word::Settled { number, tokens } => {
                let Some(key) = self.claims.remove(&number) else { return };
                let bounds = bounds(moment.registry, &key, unix_ms());
                self.account(&key).settle(now, &bounds, number, tokens);
            }
            Word::Spent { key, requests, tokens } => {
                let bounds = bounds(moment.registry, &key, unix_ms());
                self.account(&key).recall(now, &bounds, requests, tokens);
            }
        }
    }

    /// Whoever held it is gone. Whether it was a claim at all.
    pub(super) fn release(&mut self, number: RequestId) -> bool {
        let Some(key) = self.claims.remove(&number) else { return false };
        self.account(&key).release(number);
        true
    }

    /// Totals may have been written down, and keys may be gone.
    pub(super) fn follow(&mut self, now: At, registry: &Registry) {
        let now_unix_ms = unix_ms();
        self.of_keys.retain(|key, account| {
            let bounds = bounds(registry, key, now_unix_ms);
            account.written(written(registry, key, now_unix_ms));
            !account.is_idle(now, &bounds)
        });
    }

    fn decide(&mut self, now: At, number: RequestId, asking: &Asking, moment: &mut Moment<'_>) -> Verdict {
        let now_unix_ms = unix_ms();
        let bounds = bounds(moment.registry, &asking.key, now_unix_ms);
        let each = if asking.asked { asking.max_tokens } else { (moment.expected)(asking) };
        let answer_tokens = u64::from(each).saturating_mul(asking.answers.into());
        let claim = Claim { number, prompt_tokens: asking.prompt_tokens, answer_tokens };
        let account = self.account(&asking.key);
        account.written(written(moment.registry, &asking.key, now_unix_ms));
        let decided = account.claim(now, &bounds, claim);
        let granted = decided.map(|()| account.claimed(number).unwrap_or_default());
        let standings = account.standings(now, &bounds);
        if granted.is_ok() {
            self.claims.insert(number, asking.key.clone());
        }
        Verdict { granted, standings }
    }

    fn account(&mut self, key: &KeyId) -> &mut Account {
        self.of_keys.entry(key.clone()).or_default()
    }
}

/// A key that is unknown here has no bounds: whether it opens anything is decided elsewhere.
fn bounds(registry: &Registry, key: &KeyId, now_unix_ms: u64) -> Bounds {
    let allowance = registry.key(key).map(|key| key.grant.allowance).unwrap_or_default();
    let used = written(registry, key, now_unix_ms);
    Bounds {
        requests: allowance.requests_per_minute,
        tokens: allowance.tokens_per_minute,
        concurrent: allowance.concurrent_requests,
        month: allowance.tokens_per_month.map(|most| Month { most, used }),
    }
}

/// The month's tokens of a key.
fn written(registry: &Registry, key: &KeyId, now_unix_ms: u64) -> u64 {
    registry.key_usage(key).map_or(0, |usage| usage.month(now_unix_ms).tokens())
}
