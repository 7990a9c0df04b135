//! The gateway's own list of its claims, and of how full each key's buckets were when a leader last said so.
//!
//! Owns what a new leader must hear of both, so that a change of leaders fills no bucket. Refuses to decide, and to tell a leader
//! what he said himself: he would count it twice.

use std::collections::BTreeMap;
use std::time::Duration;

use registry::KeyId;
use scheduler::allowance::{Standing, Standings};
use scheduler::{RequestId, Span};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::claims::{Asking, Verdict, Word};
use crate::leader::Order;

#[derive(Default)]
pub(super) struct Claims {
    open: BTreeMap<RequestId, Open>,
    levels: BTreeMap<KeyId, Level>,
}

struct Open {
    asking: Asking,
    line: mpsc::Sender<Order>,
    /// So many tokens, and when.
    granted: Option<(u64, Instant)>,
}

/// When the buckets of a key are whole again, by the last word of the leader of that term.
struct Level {
    term: u64,
    requests: Instant,
    tokens: Instant,
}

impl Claims {
    pub(super) fn open(&mut self, number: RequestId, asking: Asking, line: mpsc::Sender<Order>) {
        self.open.insert(number, Open { asking, line, granted: None });
    }

    pub(super) fn settled(&mut self, number: RequestId) {
        self.open.remove(&number);
    }

    pub(super) fn heard(&mut self, number: RequestId, verdict: Verdict, term: u64) {
        let Some(open) = self.open.get_mut(&number) else { return };
        let now = Instant::now();
        let Standings { requests, tokens } = verdict.standings;
        let whole = |standing: Option<Standing>| {
            let reset = standing.map_or(Duration::ZERO, |standing| Duration::from_micros(standing.reset.0));
            now.checked_add(reset).unwrap_or(now)
        };
        let level = Level { term, requests: whole(requests), tokens: whole(tokens) };
        self.levels.insert(open.asking.key.clone(), level);
        // A line that is closed belongs to a client that is gone, and so is the claim in a moment.
        let _ = open.line.try_send(Order::Verdict(verdict));
        match verdict.granted {
            Ok(tokens) => open.granted = Some((tokens, now)),
            Err(_) => self.settled(number),
        }
    }

    /// All that the leader of this term must hear, the levels first: what is claimed anew comes on top of them.
    pub(super) fn words(&mut self, term: u64) -> Vec<Word> {
        let now = Instant::now();
        let left = |until: Instant| {
            let left = until.saturating_duration_since(now).as_micros();
            Span(u64::try_from(left).unwrap_or(u64::MAX))
        };
        self.levels.retain(|_, level| left(level.requests.max(level.tokens)) > Span::ZERO);
        let earlier = self.levels.iter().filter(|(_, level)| level.term != term);
        let spent = earlier.map(|(key, level)| Word::Spent {
            key: key.clone(),
            requests: left(level.requests),
            tokens: left(level.tokens),
        });
        let claims = self.open.iter().map(|(number, open)| match open.granted {
            Some((tokens, at)) => Word::Adopt(*number, open.asking.clone(), tokens, at),
            None => Word::Claim(*number, open.asking.clone()),
        });
        spent.chain(claims).collect()
    }
}

#[cfg(test)]
mod tests {
    use scheduler::allowance::Excess;

    use super::*;

    fn asking(key: &str) -> Asking {
        let key = KeyId(key.to_owned());
        Asking {
            key,
            model: "m".to_owned(),
            tenant: 1,
            prompt_tokens: 5,
            answers: 1,
            max_tokens: 9,
            asked: true,
        }
    }

    fn verdict(granted: Result<u64, Excess>, requests_s: u64) -> Verdict {
        let standing = Standing { limit: 5, remaining: 1, reset: Span::from_s(requests_s) };
        Verdict { granted, standings: Standings { requests: Some(standing), tokens: None } }
    }

    fn spent(key: &str, requests_s: u64) -> Word {
        Word::Spent { key: KeyId(key.to_owned()), requests: Span::from_s(requests_s), tokens: Span::ZERO }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_leader_hears_of_levels_and_of_what_is_open_and_the_same_one_of_no_levels() {
        let mut claims = Claims::default();
        let (line, mut orders) = mpsc::channel(4);
        for number in 1..5 {
            claims.open(RequestId(number), asking("0a"), line.clone());
        }
        let granted = Instant::now();
        claims.heard(RequestId(1), verdict(Ok(14), 12), 7);
        claims.heard(RequestId(2), verdict(Err(Excess::Concurrent), 12), 7);
        claims.heard(RequestId(3), verdict(Ok(14), 24), 7);
        claims.settled(RequestId(3));
        assert!(matches!(orders.recv().await, Some(Order::Verdict(Verdict { granted: Ok(14), .. }))));
        tokio::time::advance(Duration::from_secs(10)).await;
        let open = vec![
            Word::Adopt(RequestId(1), asking("0a"), 14, granted),
            Word::Claim(RequestId(4), asking("0a")),
        ];
        assert_eq!(claims.words(7), open);
        assert_eq!(claims.words(8), [vec![spent("0a", 14)], open.clone()].concat());
        // A level that has drained is nothing to tell.
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(claims.words(8), open);
        assert!(claims.levels.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_on_what_is_over_is_nobodys() {
        let mut claims = Claims::default();
        claims.heard(RequestId(1), verdict(Ok(14), 12), 7);
        assert!(claims.words(8).is_empty());
    }
}
