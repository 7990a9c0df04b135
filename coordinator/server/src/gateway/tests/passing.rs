//! Keys with bounds: who is asked before a request is started, what its client hears, and what is told of it in the end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use registry::{KeyId, Used};
use scheduler::Span;
use scheduler::allowance::{Excess, Standing, Standings};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::stage::{Act, Reply, Stage, dispatched, ids, tokens};
use crate::claims::{Asking, Decide, Decided, Verdict};
use crate::generation::Failure;
use crate::tally::Tally;

/// Decides by a script, and hears what was taken.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) tally: Tally,
    /// The next ones; then all are granted.
    verdicts: Mutex<Vec<Verdict>>,
    asked: Mutex<Vec<Asking>>,
    settled: Arc<Mutex<Vec<u64>>>,
    silent: Mutex<bool>,
}

impl Decide for Judge {
    fn decide(&self, asking: Asking) -> BoxFuture<'_, Option<Decided>> {
        self.asked.lock().unwrap().push(asking);
        let standings = Standings::default();
        let granted = Verdict { granted: Ok(0), standings };
        let verdict = self.verdicts.lock().unwrap().pop().unwrap_or(granted);
        let (settle, settled) = oneshot::channel();
        let heard = self.settled.clone();
        tokio::spawn(async move {
            let tokens = settled.await.unwrap_or_default();
            heard.lock().unwrap().push(tokens);
        });
        let silent = *self.silent.lock().unwrap();
        Box::pin(async move {
            if silent {
                std::future::pending::<()>().await;
            }
            Some(Decided { verdict, settle })
        })
    }
}

fn standing(limit: u64, remaining: u64, reset_ms: u64) -> Option<Standing> {
    Some(Standing { limit, remaining, reset: Span::from_ms(reset_ms) })
}

async fn limited(stage: &Stage) -> (String, String) {
    stage.new_key(&json!({"name": "ci", "limits": {"rpm": 5}})).await
}

async fn chat(stage: &Stage, key: &str, more: Value) -> Reply {
    stage.chat_with(&[("x-api-key", key)], more).await
}

impl Judge {
    /// What is decided next, once.
    pub(super) fn refuse(&self, excess: Excess) {
        let verdict = Verdict { granted: Err(excess), standings: Standings::default() };
        self.verdicts.lock().unwrap().push(verdict);
    }
}

impl Stage {
    fn asked(&self) -> Vec<Asking> {
        self.judge.asked.lock().unwrap().clone()
    }

    /// Once everything that was dropped has been told.
    pub(super) async fn settled(&self) -> Vec<u64> {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.judge.settled.lock().unwrap().clone()
    }

    pub(super) fn used(&self, id: &str) -> Used {
        self.judge.tally.now(&KeyId(id.to_owned()))
    }
}

#[tokio::test]
async fn whoever_has_no_bounds_is_not_asked_for_and_only_keys_are_counted() {
    let stage = Stage::saying("hi");
    stage.chat(json!({})).await;
    let (id, free) = stage.new_key(&json!({"name": "ci"})).await;
    let answer = chat(&stage, &free, json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-ratelimit-limit-requests")), (200, None));
    chat(&stage, &stage.local_key.clone(), json!({})).await;
    assert!(stage.asked().is_empty());
    let usage = &answer.json()["usage"];
    let expected = Used {
        requests: 1,
        prompt_tokens: usage["prompt_tokens"].as_u64().unwrap(),
        answer_tokens: usage["completion_tokens"].as_u64().unwrap(),
    };
    assert_eq!(stage.used(&id), expected);
}

#[tokio::test]
async fn a_claim_says_what_the_request_may_take_and_the_end_what_it_took() {
    let stage = Stage::saying("hi");
    let (id, key) = limited(&stage).await;
    let answer = chat(&stage, &key, json!({"n": 3, "max_tokens": 40})).await.json();
    let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    let tenant = stage.wishes()[0].traits.tenant;
    let asking = Asking {
        key: KeyId(id.clone()),
        model: "demo".to_owned(),
        tenant,
        prompt_tokens: prompt,
        answers: 3,
        max_tokens: 40,
        asked: true,
    };
    assert_eq!(stage.asked(), [asking]);
    assert_eq!(stage.settled().await, [answer["usage"]["total_tokens"].as_u64().unwrap()]);

    chat(&stage, &key, json!({})).await;
    let open = &stage.asked()[1];
    assert!(!open.asked && u64::from(open.max_tokens) > 400, "what the context leaves: {open:?}");
    let prompts = json!({"model": "demo", "prompt": ["hello", "you"], "n": 2, "max_tokens": 9});
    let answer = stage.with_key("POST", "/v1/completions", &key, Some(&prompts)).await.json();
    assert_eq!(stage.asked()[2].prompt_tokens, answer["usage"]["prompt_tokens"].as_u64().unwrap());
    assert_eq!(stage.asked()[2].answers, 4);
    assert_eq!(stage.used(&id).requests, 3);
}

#[tokio::test]
async fn an_answer_says_how_the_key_stands_in_openais_words() {
    let stage = Stage::saying("hi");
    let (_, key) = limited(&stage).await;
    for stream in [false, true] {
        let standings =
            Standings { requests: standing(5, 4, 12_000), tokens: standing(9_000, 8_200, 90_500) };
        stage.judge.verdicts.lock().unwrap().push(Verdict { granted: Ok(800), standings });
        let answer = chat(&stage, &key, json!({"stream": stream})).await;
        assert_eq!(answer.status, 200);
        let told = ["limit", "remaining", "reset"].map(|what| {
            ["requests", "tokens"]
                .map(|of| answer.header(&format!("x-ratelimit-{what}-{of}")).unwrap().to_owned())
        });
        assert_eq!(told, [["5", "9000"], ["4", "8200"], ["12s", "1m30.5s"]]);
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused_before_anything_is_started() {
    let stage = Stage::saying("hi");
    let (id, key) = limited(&stage).await;
    let after = Span::from_ms(11_400);
    let standings = Standings { requests: standing(5, 0, 60_000), tokens: standing(100, 7, 1_000) };
    for (excess, code, words, seconds, retry) in [
        (Excess::Requests { after }, "rate_limit_exceeded", "5 requests a minute", Some(12), None),
        (Excess::Tokens { after }, "rate_limit_exceeded", "100 tokens a minute", Some(12), None),
        (Excess::Never, "rate_limit_exceeded", "the prompt alone has more", None, Some("false")),
        (Excess::Concurrent, "rate_limit_exceeded", "under way", Some(1), None),
    ] {
        stage.judge.verdicts.lock().unwrap().push(Verdict { granted: Err(excess), standings });
        let refused = chat(&stage, &key, json!({"stream": true})).await;
        assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (429, code));
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
        assert!(refused.text.contains(words), "{}", refused.text);
        let told = refused.header("retry-after").map(|seconds| seconds.parse::<u64>().unwrap());
        assert_eq!((told, refused.header("x-should-retry")), (seconds, retry), "{excess:?}");
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
    }
    assert!(stage.wishes().is_empty());
    assert_eq!(stage.used(&id), Used::default());
}

#[tokio::test]
async fn a_month_that_is_used_up_says_when_the_next_one_begins_and_not_to_try_before() {
    let stage = Stage::saying("hi");
    let (_, key) = limited(&stage).await;
    let refused = Verdict { granted: Err(Excess::Month), standings: Standings::default() };
    stage.judge.verdicts.lock().unwrap().push(refused);
    let refused = chat(&stage, &key, json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (429, "quota_exceeded"));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=31 * 86_400).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn an_answer_that_is_cut_counts_as_far_as_it_came_and_one_that_never_ran_does_not() {
    let cut = || Act::Event(crate::generation::Event::Failed(Failure::NodeLost { began: true }));
    let stage = Stage::playing(move |nth, _| match nth {
        0 => vec![dispatched(7), tokens(&ids("half")), cut()],
        _ => vec![Act::Event(crate::generation::Event::Failed(Failure::QueueFull {
            retry_after: Duration::from_secs(1),
        }))],
    });
    let (id, key) = limited(&stage).await;
    chat(&stage, &key, json!({"stream": true})).await;
    let half = ids("half").len() as u64;
    let used = stage.used(&id);
    assert_eq!((used.requests, used.answer_tokens), (1, half));
    assert_eq!(stage.settled().await, [used.tokens()]);
    assert_eq!(chat(&stage, &key, json!({})).await.error_code(), "queue_full");
    assert_eq!(stage.used(&id), used);
    assert_eq!(stage.settled().await, [used.tokens(), 0], "given back");
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_a_claim_waits_as_long_as_its_client() {
    let stage = Stage::saying("hi");
    let (_, key) = limited(&stage).await;
    *stage.judge.silent.lock().unwrap() = true;
    let headers = [("x-api-key", key.as_str()), ("x-stainless-read-timeout", "30")];
    let before = tokio::time::Instant::now();
    let refused = stage.chat_with(&headers, json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (504, "deadline_exceeded"));
    assert!(before.elapsed() <= Duration::from_secs(31) && before.elapsed() > Duration::from_secs(20));
    assert_eq!(stage.settled().await, [0], "whoever waits no more takes nothing");
}
