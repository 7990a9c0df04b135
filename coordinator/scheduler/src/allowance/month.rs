//! What was used this month and is not written down yet.
//!
//! Owns the difference between what the leader has heard and the total that outlives it. Refuses to be exact at the month's very
//! end, and to hold on to what was never written down, because the gateway that would have is gone.

use crate::allowance::Month;
use crate::limits;
use crate::time::At;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unseen {
    tokens: u64,
    /// When the last of them came.
    at: At,
    written: u64,
}

impl Unseen {
    /// Whether no request with so long a prompt may come any more.
    pub(super) fn exceeds(&self, now: At, month: Month, prompt_tokens: u64) -> bool {
        let unseen = if self.is_over(now) { 0 } else { self.tokens };
        month.used.saturating_add(unseen).saturating_add(prompt_tokens) > month.most
    }

    pub(super) fn add(&mut self, now: At, tokens: u64) {
        if self.is_over(now) {
            self.tokens = 0;
        }
        self.tokens = self.tokens.saturating_add(tokens);
        self.at = now;
    }

    /// A total that is smaller than before is that of another month.
    pub(super) fn written(&mut self, total: u64) {
        self.tokens = self.tokens.saturating_sub(total.saturating_sub(self.written));
        self.written = total;
    }

    /// Whatever was not written down by now will not be.
    pub(super) fn is_over(&self, now: At) -> bool {
        self.tokens == 0 || now.since(self.at) > limits::UNSEEN_USAGE
    }
}
