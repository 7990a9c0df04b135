//! Claims through the front to real leaders: one bound for all gateways, and what a change of leaders does to it.

use registry::{Allowance, Command, Grant, KeyId, Reply, Scope};
use scheduler::allowance::{Excess, Standing};

use super::*;
use crate::claims::{Decide as _, Decided};

fn key() -> KeyId {
    KeyId("0a".to_owned())
}

fn registry(allowance: Allowance) -> Arc<Registry> {
    let (mut registry, _) = crate::wire::tests::founded();
    let grant = Grant {
        name: "ci".to_owned(),
        scopes: [Scope::Inference].into(),
        models: None,
        expires_at_unix_ms: None,
        allowance,
    };
    let create = Command::CreateKey { key: key(), grant, secret_hash: [0; 32], at_unix_ms: 1 };
    assert_eq!(registry.apply(&create), Reply::Done);
    Arc::new(registry)
}

fn asking(prompt_tokens: u64, max_tokens: u32) -> Asking {
    Asking {
        key: key(),
        model: "m".to_owned(),
        tenant: 1,
        prompt_tokens,
        answers: 1,
        max_tokens,
        asked: true,
    }
}

impl Room {
    fn leader(&self, allowance: Allowance) -> Leader {
        Leader::start(Clock::start(), &registry(allowance), self.stop.clone()).0
    }

    async fn claims(&self, prompt_tokens: u64, max_tokens: u32) -> Decided {
        self.front.decide(asking(prompt_tokens, max_tokens)).await.expect("the front goes on")
    }
}

/// Until what was said before has been heard.
async fn heard(room: &Room) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    room.front.cancel(RequestId(u64::MAX)).await;
}

fn rpm(limit: u64) -> Allowance {
    Allowance { requests_per_minute: Some(limit), ..Allowance::default() }
}

#[tokio::test(start_paused = true)]
async fn a_bound_holds_and_the_verdict_says_how_the_key_stands() {
    let room = Room::new();
    room.elected.elect(1, &room.leader(rpm(2)));
    let first = room.claims(10, 10).await.verdict;
    assert_eq!(first.granted, Ok(20));
    let standing = Standing { limit: 2, remaining: 1, reset: scheduler::Span::from_s(30) };
    assert_eq!(first.standings.requests, Some(standing));
    assert!(room.claims(10, 10).await.verdict.granted.is_ok());
    let refused = room.claims(10, 10).await.verdict.granted;
    assert!(matches!(refused, Err(Excess::Requests { .. })), "{refused:?}");
    tokio::time::advance(Duration::from_secs(31)).await;
    assert!(room.claims(10, 10).await.verdict.granted.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_grants_only_what_the_last_one_left() {
    let room = Room::new();
    room.elected.elect(1, &room.leader(rpm(3)));
    for _ in 0..2 {
        assert!(room.claims(1, 1).await.verdict.granted.is_ok());
    }
    room.elected.depose(2);
    let early = tokio::spawn({
        let front = room.front.clone();
        async move { front.decide(asking(1, 1)).await.map(|decided| decided.verdict.granted.is_ok()) }
    });
    heard(&room).await;
    room.elected.elect(3, &room.leader(rpm(3)));
    assert_eq!(early.await.expect("no panic"), Some(true), "the third");
    let refused = room.claims(1, 1).await.verdict.granted;
    assert!(matches!(refused, Err(Excess::Requests { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_runs_under_two_leaders_holds_its_place_and_is_settled_once() {
    let both =
        Allowance { tokens_per_minute: Some(100), concurrent_requests: Some(1), ..Allowance::default() };
    let room = Room::new();
    room.elected.elect(1, &room.leader(both));
    let running = room.claims(10, 80).await;
    assert_eq!(running.verdict.granted, Ok(90));
    room.elected.depose(2);
    heard(&room).await;
    room.elected.elect(3, &room.leader(both));
    assert_eq!(room.claims(1, 1).await.verdict.granted, Err(Excess::Concurrent));
    running.settle.send(30).expect("somebody listens");
    heard(&room).await;
    let next = room.claims(20, 50).await.verdict;
    assert_eq!(next.granted, Ok(70));
    assert_eq!(next.standings.tokens.map(|standing| standing.remaining), Some(0), "30 and 70");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_before_the_verdict_holds_nothing() {
    let one = Allowance { concurrent_requests: Some(1), ..Allowance::default() };
    let room = Room::new();
    let waiting = tokio::time::timeout(Duration::from_secs(1), room.front.decide(asking(1, 1))).await;
    assert!(waiting.is_err(), "nobody leads");
    heard(&room).await;
    room.elected.elect(1, &room.leader(one));
    let first = room.claims(1, 1).await;
    assert!(first.verdict.granted.is_ok());
    assert_eq!(room.claims(1, 1).await.verdict.granted, Err(Excess::Concurrent));
    // Dropped without a word, as when a client hangs up in between.
    drop(first);
    heard(&room).await;
    assert!(room.claims(1, 1).await.verdict.granted.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_says_no_bound_claims_what_such_answers_have() {
    let room = Room::new();
    room.elected
        .elect(1, &room.leader(Allowance { tokens_per_minute: Some(1_000_000), ..Allowance::default() }));
    let open = Asking { asked: false, answers: 2, ..asking(10, 30_000) };
    let decided = room.front.decide(open).await.expect("decided");
    let granted = decided.verdict.granted.expect("there is room");
    assert!((10 + 2..10 + 2 * 2_000).contains(&granted), "{granted}");
}
