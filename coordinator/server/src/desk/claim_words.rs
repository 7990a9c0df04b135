//! What is said of claims at a desk, as it goes over the wire, and back.
//!
//! Owns the translation, for `words`. Refuses what a later version says: a verdict that it cannot read is none.

use std::time::Duration;

use proto::v1::{
    DeskClaim, DeskExcess, DeskSettled, DeskSpent, DeskStanding, DeskVerdict, desk_message::Message,
};
use registry::KeyId;
use scheduler::allowance::{Excess, Standing, Standings};
use scheduler::{RequestId, Span};
use tokio::time::Instant;

use crate::claims::{Asking, Verdict, Word};

pub(super) fn message(word: Word) -> Message {
    match word {
        Word::Claim(number, asking) => Message::Claim(claim(number, asking)),
        Word::Adopt(number, asking, tokens, since) => {
            let age = Instant::now().saturating_duration_since(since).as_micros();
            let granted_us = u64::try_from(age).unwrap_or(u64::MAX);
            Message::Claim(DeskClaim { granted: Some(tokens), granted_us, ..claim(number, asking) })
        }
        Word::Settled { number, tokens } => Message::Settled(DeskSettled { number: number.0, tokens }),
        Word::Spent { key, requests, tokens } => {
            Message::Spent(DeskSpent { key: key.0, requests_us: requests.0, tokens_us: tokens.0 })
        }
    }
}

fn claim(number: RequestId, asking: Asking) -> DeskClaim {
    let Asking { key, model, tenant, prompt_tokens, answers, max_tokens, asked } = asking;
    let (granted, granted_us) = (None, 0);
    DeskClaim {
        number: number.0,
        key: key.0,
        model,
        tenant,
        prompt_tokens,
        answers,
        max_tokens,
        asked,
        granted,
        granted_us,
    }
}

pub(super) fn claimed(claim: DeskClaim) -> Word {
    let DeskClaim { number, key, model, tenant, prompt_tokens, answers, max_tokens, asked, .. } = claim;
    let asking = Asking { key: KeyId(key), model, tenant, prompt_tokens, answers, max_tokens, asked };
    let number = RequestId(number);
    match claim.granted {
        Some(tokens) => {
            let now = Instant::now();
            let since = now.checked_sub(Duration::from_micros(claim.granted_us)).unwrap_or(now);
            Word::Adopt(number, asking, tokens, since)
        }
        None => Word::Claim(number, asking),
    }
}

pub(super) fn settled(settled: DeskSettled) -> Word {
    Word::Settled { number: RequestId(settled.number), tokens: settled.tokens }
}

pub(super) fn spent(spent: DeskSpent) -> Word {
    let DeskSpent { key, requests_us, tokens_us } = spent;
    Word::Spent { key: KeyId(key), requests: Span(requests_us), tokens: Span(tokens_us) }
}

pub(super) fn verdict_on_wire(verdict: Verdict) -> DeskVerdict {
    let (excess, after) = match verdict.granted {
        Ok(_) => (DeskExcess::Unspecified, Span::ZERO),
        Err(Excess::Requests { after }) => (DeskExcess::Requests, after),
        Err(Excess::Tokens { after }) => (DeskExcess::Tokens, after),
        Err(Excess::Never) => (DeskExcess::Never, Span::ZERO),
        Err(Excess::Concurrent) => (DeskExcess::Concurrent, Span::ZERO),
        Err(Excess::Month) => (DeskExcess::Month, Span::ZERO),
    };
    DeskVerdict {
        excess: excess.into(),
        granted: verdict.granted.unwrap_or_default(),
        after_us: after.0,
        requests: verdict.standings.requests.map(standing_on_wire),
        tokens: verdict.standings.tokens.map(standing_on_wire),
    }
}

/// A reason of a later version is a refusal all the same: to be asked again in a moment.
pub(super) fn verdict(verdict: DeskVerdict) -> Verdict {
    let after = Span(verdict.after_us);
    let granted = match DeskExcess::try_from(verdict.excess) {
        Ok(DeskExcess::Unspecified) => Ok(verdict.granted),
        Ok(DeskExcess::Requests) => Err(Excess::Requests { after }),
        Ok(DeskExcess::Tokens) => Err(Excess::Tokens { after }),
        Ok(DeskExcess::Never) => Err(Excess::Never),
        Ok(DeskExcess::Month) => Err(Excess::Month),
        Ok(DeskExcess::Concurrent) | Err(_) => Err(Excess::Concurrent),
    };
    let standings =
        Standings { requests: verdict.requests.map(standing), tokens: verdict.tokens.map(standing) };
    Verdict { granted, standings }
}

fn standing_on_wire(standing: Standing) -> DeskStanding {
    let Standing { limit, remaining, reset } = standing;
    DeskStanding { limit, remaining, reset_us: reset.0 }
}

fn standing(standing: DeskStanding) -> Standing {
    let DeskStanding { limit, remaining, reset_us } = standing;
    Standing { limit, remaining, reset: Span(reset_us) }
}

#[cfg(test)]
mod tests {
    use super::super::{Saying, words};
    use super::*;
    use crate::leader::Order;

    fn asking() -> Asking {
        Asking {
            key: KeyId("0a".to_owned()),
            model: "m".to_owned(),
            tenant: 3,
            prompt_tokens: 40,
            answers: 2,
            max_tokens: 50,
            asked: true,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_of_a_claim_arrives_as_it_was() {
        let number = RequestId(9);
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        for said in [
            Word::Claim(number, asking()),
            Word::Claim(number, Asking { asked: false, ..asking() }),
            Word::Adopt(number, asking(), 0, since),
            Word::Adopt(number, asking(), 140, since),
            Word::Settled { number, tokens: 77 },
            Word::Spent { key: KeyId("0a".to_owned()), requests: Span(5), tokens: Span(6) },
        ] {
            let heard = words::saying(words::message(Saying::Claim(said.clone())));
            let Some(Saying::Claim(heard)) = heard else { panic!("{said:?}") };
            assert_eq!(heard, said);
        }
    }

    #[test]
    fn a_verdict_arrives_as_it_was() {
        let after = Span::from_s(12);
        let standing = Standing { limit: 5, remaining: 2, reset: Span::from_s(36) };
        let standings = Standings { requests: Some(standing), tokens: None };
        for granted in [
            Ok(140),
            Ok(0),
            Err(Excess::Requests { after }),
            Err(Excess::Tokens { after }),
            Err(Excess::Never),
            Err(Excess::Concurrent),
            Err(Excess::Month),
        ] {
            let said = Order::Verdict(Verdict { granted, standings });
            let heard = words::order(words::told(RequestId(9), said.clone()));
            assert_eq!(heard, Some((RequestId(9), said)));
        }
        let later = DeskVerdict { excess: 99, ..DeskVerdict::default() };
        assert_eq!(verdict(later).granted, Err(Excess::Concurrent), "never taken for a grant");
    }
}
