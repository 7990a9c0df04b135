//! How much a key may ask for.
//!
//! Owns the four bounds an operator can set on a key, and their rules. Refuses to count: what is in use at a moment is live work,
//! and what was used is in `usage`.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::field::Field;
use crate::key_field::KeyField;
use crate::limits;
use crate::reply::Refusal;

/// The bounds of one key; what is absent has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, of prompts and of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Requests at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u64>,
    /// Tokens in a month of UTC, of prompts and of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<u64>,
}

impl Allowance {
    /// There is no bound, so nobody has to be asked.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// None at all is what a revoked key has.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let Self { requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_month } = self;
        let bounds = [requests_per_minute, tokens_per_minute, concurrent_requests, tokens_per_month];
        let fine = |bound: &u64| (1..=limits::ALLOWANCE_MAX).contains(bound);
        if bounds.into_iter().flatten().all(fine) {
            Ok(())
        } else {
            Err(Refusal::Malformed { what: Field::Key(KeyField::Allowance) })
        }
    }
}

/// For the audit trail, with a comma before each bound.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bound, what) in [
            (self.requests_per_minute, "requests a minute"),
            (self.tokens_per_minute, "tokens a minute"),
            (self.concurrent_requests, "requests at once"),
            (self.tokens_per_month, "tokens a month"),
        ] {
            if let Some(bound) = bound {
                write!(f, ", {bound} {what}")?;
            }
        }
        Ok(())
    }
}
