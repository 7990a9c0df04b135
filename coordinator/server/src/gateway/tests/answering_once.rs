//! A request with an `Idempotency-Key` is answered once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use registry::{Command, limits as facts};
use scheduler::allowance::Excess;
use serde_json::{Value, json};

use super::stage::{Act, Reply, Stage, dispatched, finished, ids, request, said, tokens};
use crate::clock::unix_ms;
use crate::generation::{Event, Failure, FinishReason};

const KEY: (&str, &str) = ("idempotency-key", "k-1");

pub(super) fn streamed() -> Value {
    json!({"stream": true, "stream_options": {"include_usage": true}})
}

/// Says the number of the wish.
fn counting() -> Stage {
    Stage::playing(|number, _| said(&format!("answer {number}")))
}

fn text_of(reply: &Reply) -> String {
    reply.json()["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

/// Ends with its node, when the client has something.
pub(super) fn broken_off(text: &str) -> Vec<Act> {
    let lost = Act::Event(Event::Failed(Failure::NodeLost { began: true }));
    vec![dispatched(7), tokens(&ids(text)), Act::Pause(Duration::from_secs(1)), lost]
}

/// All that a replay must repeat: not the request's own name, nor the time it took.
fn lasting(reply: &Reply) -> Vec<(String, String)> {
    let own = ["x-request-id", "request-id", "openai-processing-ms", "idempotent-replayed", "content-length"];
    let headers = reply.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn the_same_request_under_the_same_key_gets_the_answer_it_got_before_at_any_gateway() {
    let stage = counting();
    let other = stage.beside(2, |_, _| said("another answer"));
    for more in [json!({}), streamed()] {
        let key = ("idempotency-key", if more["stream"] == true { "stream" } else { "whole" });
        let first = stage.chat_with(&[key], more.clone()).await;
        assert_eq!(
            (first.status.as_u16(), first.header("idempotent-replayed")),
            (200, None),
            "{}",
            first.text
        );
        for gateway in [&stage, &other] {
            let again = gateway.chat_with(&[key], more.clone()).await;
            assert_eq!((again.status, &again.text), (first.status, &first.text));
            assert_eq!(again.header("idempotent-replayed"), Some("true"));
            assert_eq!(lasting(&again), lasting(&first));
        }
    }
    assert_eq!((stage.wishes().len(), other.wishes().len()), (2, 0));
}

#[tokio::test]
async fn a_stream_under_a_key_is_the_stream_without_one_but_for_its_ids() {
    let plain = Stage::saying("hello world").chat(streamed()).await;
    let keyed = Stage::saying("hello world").chat_with(&[KEY], streamed()).await;
    let without_ids: Vec<_> =
        keyed.text.split_inclusive('\n').filter(|line| !line.starts_with("id: ")).collect();
    let numbered = keyed.text.lines().filter(|line| line.starts_with("id: ")).count();
    assert_eq!(numbered, plain.events().len());
    let shape = |text: &str| text.replace(|char: char| char.is_ascii_hexdigit(), "");
    assert_eq!(shape(&without_ids.concat()), shape(&plain.text));
    assert!(!plain.text.contains("id: ") && !keyed.broke);
}

#[tokio::test]
async fn another_body_or_another_path_under_the_same_key_is_refused() {
    let stage = counting();
    stage.chat_with(&[KEY], json!({})).await;
    let other = stage.chat_with(&[KEY], json!({"seed": 1})).await;
    assert_eq!((other.status.as_u16(), other.error_code().as_str()), (422, "idempotency_key_reused"));
    assert_eq!(other.header("x-should-retry"), Some("false"));
    let body = super::stage::chat_body(json!({})).to_string();
    let asked = request("POST", "/v1/completions").header(KEY.0, KEY.1);
    let path = stage.send(asked.body(body.into()).unwrap()).await;
    assert_eq!(path.error_code(), "idempotency_key_reused");
    assert_eq!(stage.wishes().len(), 1);
}

#[tokio::test]
async fn the_same_key_of_another_tenant_is_another_key() {
    let stage = counting();
    let ask = async |token: &str| {
        let headers = [KEY, ("authorization", token)];
        text_of(&stage.chat_with(&headers, json!({})).await)
    };
    assert_eq!(
        [ask("Bearer a").await, ask("Bearer b").await, ask("Bearer a").await],
        ["answer 0", "answer 1", "answer 0"]
    );
}

#[tokio::test]
async fn completions_are_answered_once_too() {
    let stage = counting();
    let ask = async || {
        let asked = request("POST", "/v1/completions").header(KEY.0, KEY.1);
        stage.send(asked.body(json!({"model": "demo", "prompt": "hello"}).to_string().into()).unwrap()).await
    };
    let (first, again) = (ask().await, ask().await);
    assert_eq!((first.text, again.header("idempotent-replayed")), (again.text.clone(), Some("true")));
}

#[tokio::test]
async fn what_says_to_come_back_is_computed_anew_and_what_says_never_is_kept() {
    let after = Duration::from_secs(3);
    let retried = [
        Failure::QueueFull { retry_after: after },
        Failure::NodeLost { began: false },
        Failure::DeadlineExceeded,
        Failure::NoCapacity { words: "no room".to_owned(), retry_after: None },
    ];
    for failure in retried {
        let failed = failure.clone();
        let stage = Stage::playing(move |number, _| match number {
            0 => vec![Act::Event(Event::Failed(failed.clone()))],
            _ => said("at last"),
        });
        let first = stage.chat_with(&[KEY], json!({})).await;
        assert!(first.status.is_client_error() || first.status.is_server_error());
        assert_eq!(text_of(&stage.chat_with(&[KEY], json!({})).await), "at last", "{failure:?}");
        assert_eq!(stage.facts.now().jobs().count(), 1);
    }
    let stage = Stage::failing(Failure::Quarantined);
    let (first, again) = (stage.chat_with(&[KEY], json!({})).await, stage.chat_with(&[KEY], json!({})).await);
    assert_eq!((first.status.as_u16(), first.error_code().as_str()), (400, "request_quarantined"));
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!((again.header("idempotent-replayed"), stage.wishes().len()), (Some("true"), 1));
}

#[tokio::test]
async fn a_month_that_is_used_up_and_a_limit_that_is_too_low_are_not_remembered() {
    for excess in [Excess::Month, Excess::Never] {
        let stage = counting();
        let (_, key) = stage.new_key(&json!({"name": "ci", "limits": {"rpm": 5}})).await;
        let bearer = format!("Bearer {key}");
        let headers = [KEY, ("authorization", bearer.as_str())];
        stage.judge.refuse(excess);
        let first = stage.chat_with(&headers, json!({})).await;
        assert_eq!(first.status.as_u16(), 429, "{}", first.text);
        assert_eq!(text_of(&stage.chat_with(&headers, json!({})).await), "answer 0");
    }
}

#[tokio::test]
async fn a_model_that_is_not_there_yet_may_come() {
    let stage = counting();
    let first = stage.chat_with(&[KEY], json!({"model": "later"})).await;
    assert_eq!(first.status.as_u16(), 404);
    assert_eq!(stage.facts.now().jobs().count(), 0, "nothing is remembered of it");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_is_computed_anew() {
    let stage = Stage::playing(|number, _| match number {
        0 => broken_off("half"),
        _ => said("whole"),
    });
    let first = stage.chat_with(&[KEY], streamed()).await;
    assert!(first.broke && first.text.contains("stream_lost") && !first.text.contains("[DONE]"));
    let again = stage.chat_with(&[KEY], streamed()).await;
    assert_eq!((again.content(0), again.broke), ("whole".to_owned(), false));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_forgotten_after_a_day_and_computed_anew() {
    let stage = counting();
    assert_eq!(text_of(&stage.chat_with(&[KEY], json!({})).await), "answer 0");
    let (_, job) = stage.facts.now().jobs().next().map(|(id, job)| (id, job.clone())).expect("a job");
    let kept_ms = job.until_unix_ms - job.ended.expect("it ended").at_unix_ms;
    assert_eq!(kept_ms, facts::JOB_KEPT_MS);
    stage.facts.apply(&Command::ForgetJobs { at_unix_ms: unix_ms() + kept_ms - 60_000 });
    assert_eq!(text_of(&stage.chat_with(&[KEY], json!({})).await), "answer 0");
    stage.facts.apply(&Command::ForgetJobs { at_unix_ms: unix_ms() + kept_ms });
    assert_eq!(text_of(&stage.chat_with(&[KEY], json!({})).await), "answer 1");
}

#[tokio::test]
async fn an_answer_that_is_lost_is_not_computed_behind_the_clients_back() {
    let stage = counting();
    stage.chat_with(&[KEY], json!({})).await;
    stage.drawer.lose_all();
    let gone = stage.chat_with(&[KEY], json!({})).await;
    assert_eq!((gone.status.as_u16(), gone.error_code().as_str()), (410, "idempotency_answer_gone"));
    stage.drawer.unreachable.store(true, Ordering::Relaxed);
    let later = stage.chat_with(&[KEY], json!({})).await;
    assert_eq!((later.status.as_u16(), later.header("retry-after")), (503, Some("1")));
    assert_eq!((later.error_code().as_str(), stage.wishes().len()), ("idempotency_answer_unreachable", 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_is_given_and_says_that_it_is_not_kept() {
    let stage = Stage::playing(|_, _| {
        let pieces = (0..20_000).flat_map(|_| [tokens(&ids("x")), Act::Pause(Duration::from_millis(1))]);
        let end = [finished(FinishReason::Stop, 1)];
        std::iter::once(dispatched(7)).chain(pieces).chain(end).collect()
    });
    let first = stage.chat_with(&[KEY], streamed()).await;
    assert!(first.text.len() > crate::limits::ANSWER_BYTES_MAX && !first.broke);
    assert_eq!(first.content(0).len(), 20_000);
    assert!(first.text.ends_with("data: [DONE]\n\n"));
    let again = stage.chat_with(&[KEY], streamed()).await;
    assert_eq!((again.status.as_u16(), again.error_code().as_str()), (410, "idempotency_answer_gone"));
    assert_eq!((stage.wishes().len(), stage.drawer.count()), (1, 0));
}

#[tokio::test]
async fn without_room_on_a_disk_nothing_is_begun() {
    let stage = counting();
    stage.drawer.full.store(true, Ordering::Relaxed);
    let full = stage.chat_with(&[KEY], json!({})).await;
    assert_eq!((full.status.as_u16(), full.error_code().as_str()), (507, "storage_full"));
    stage.drawer.full.store(false, Ordering::Relaxed);
    stage.facts.fail_with(vec![consensus::ProposeError::StorageFull { free: 0 }]);
    let full = stage.chat_with(&[KEY], json!({})).await;
    assert_eq!((full.status.as_u16(), full.error_code().as_str()), (507, "storage_full"));
    assert_eq!(stage.chat(json!({})).await.status.as_u16(), 200, "without a key it is answered");
    assert_eq!(stage.wishes().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let stage = counting();
    let long = "x".repeat(256);
    for bad in ["", "a b", &long] {
        let refused = stage.chat_with(&[("idempotency-key", bad)], json!({})).await;
        assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (400, "invalid_value"), "{bad}");
    }
    assert!(stage.wishes().is_empty());
}

#[tokio::test]
async fn where_a_key_is_not_honoured_it_is_refused_and_where_nothing_changes_it_is_no_matter() {
    let stage = counting();
    let with_key = |method: &str, path: &str| {
        let asked = request(method, path).header(KEY.0, KEY.1);
        asked.header("authorization", format!("Bearer {}", stage.local_key)).body("{}".into()).unwrap()
    };
    let refused = stage.send(with_key("POST", "/api/v1/admin/keys")).await;
    assert_eq!((refused.status.as_u16(), refused.error_code().as_str()), (400, "unsupported_parameter"));
    assert_eq!(refused.json()["error"]["param"], "idempotency-key");
    assert_eq!(stage.send(with_key("GET", "/v1/models")).await.status.as_u16(), 200);
    assert_eq!(stage.facts.now().keys().count(), 0);
}

#[tokio::test]
async fn nothing_of_the_request_is_among_the_facts() {
    let stage = Stage::saying("a secret answer");
    let key = ("idempotency-key", "canary-key");
    let more = json!({"messages": [{"role": "user", "content": "canary-prompt"}]});
    stage.chat_with(&[key], more).await;
    let facts = serde_json::to_string(stage.facts.now().as_ref()).expect("JSON");
    assert!(
        facts.contains("\"jobs\"") && !facts.contains("canary") && !facts.contains("secret answer"),
        "{facts}"
    );
}
