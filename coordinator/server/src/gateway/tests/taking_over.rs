//! A job whose gateway is gone goes on elsewhere, and one that is under way is not begun twice.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use super::answering_once::streamed;
use super::stage::{Act, Stage, chat_body, dispatched, finished, ids, request, said, tokens};
use crate::generation::FinishReason;

const KEY: (&str, &str) = ("idempotency-key", "k-1");

fn slow(text: &str) -> Vec<Act> {
    let each = ids(text).into_iter().flat_map(|id| [Act::Pause(Duration::from_secs(1)), tokens(&[id])]);
    std::iter::once(dispatched(7)).chain(each).chain([finished(FinishReason::Stop, 9)]).collect()
}

fn asked(more: serde_json::Value) -> axum::http::Request<Body> {
    let body = chat_body(more).to_string();
    request("POST", "/v1/chat/completions").header(KEY.0, KEY.1).body(Body::from(body)).unwrap()
}

/// Asks in the background, and lets it begin.
async fn ask(stage: &Arc<Stage>, more: serde_json::Value) -> tokio::task::JoinHandle<super::stage::Reply> {
    let asking = tokio::spawn({
        let stage = stage.clone();
        async move { stage.send(asked(more)).await }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    asking
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_again_meanwhile_gets_the_same_from_its_beginning() {
    for more in [json!({}), streamed()] {
        let stage = Arc::new(Stage::playing(|_, _| slow("a slow answer")));
        let first = ask(&stage, more.clone()).await;
        let second = ask(&stage, more.clone()).await;
        let (first, second) = (first.await.expect("answered"), second.await.expect("answered"));
        assert!(!first.broke && first.status == 200, "{}", first.text);
        assert_eq!((first.status, &first.text), (second.status, &second.text));
        assert_eq!(second.header("idempotent-replayed"), None);
        assert_eq!(stage.wishes().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_changes_nothing_for_the_one_that_comes_back() {
    let stage = Arc::new(Stage::playing(|_, _| slow("a slow answer")));
    let response = stage.router.clone().oneshot(asked(streamed())).await.expect("answered");
    let mut body = response.into_body();
    let mut read = Vec::new();
    for _ in 0..2 {
        let frame = body.frame().await.expect("a frame").expect("no error");
        read.extend_from_slice(&frame.into_data().expect("data"));
    }
    drop(body);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.cancelled(), [false], "the job goes on");
    let back = stage.send(asked(streamed())).await;
    assert!(back.text.as_bytes().starts_with(&read) && back.text.ends_with("[DONE]\n\n"));
    assert_eq!(stage.wishes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_before_anything_comes_has_its_answer_kept() {
    let stage = Arc::new(Stage::playing(|_, _| slow("a slow answer")));
    let asking = ask(&stage, json!({})).await;
    asking.abort();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let back = stage.send(asked(json!({}))).await;
    assert_eq!((back.status.as_u16(), back.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(stage.wishes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_gateway_is_told_that_the_answer_is_being_given() {
    let stage = Arc::new(Stage::playing(|_, _| slow("a slow answer")));
    let other = stage.beside(2, |_, _| said("never"));
    let first = ask(&stage, streamed()).await;
    let busy = other.send(asked(streamed())).await;
    assert_eq!((busy.status.as_u16(), busy.error_code().as_str()), (409, "idempotency_in_flight"));
    assert_eq!((busy.header("retry-after"), busy.header("x-should-retry")), (Some("1"), None));
    let body = other.send(asked(json!({"seed": 3}))).await;
    assert_eq!(body.error_code(), "idempotency_key_reused", "while it runs too");
    let first = first.await.expect("answered");
    let replayed = other.send(asked(streamed())).await;
    assert_eq!((replayed.text, replayed.headers.contains_key("idempotent-replayed")), (first.text, true));
}

#[tokio::test(start_paused = true)]
async fn the_job_of_a_gateway_that_is_gone_is_taken_over_and_its_own_answer_never_looks_complete() {
    for more in [json!({}), streamed()] {
        let stage = Arc::new(Stage::playing(|_, _| slow("the first answer, which takes its time")));
        let other = stage.beside(2, |_, _| said("the second"));
        let first = ask(&stage, more.clone()).await;
        stage.drawer.cut_off(1);
        let second = other.send(asked(more.clone())).await;
        assert_eq!(second.status.as_u16(), 200, "{}", second.text);
        assert!(second.text.contains("second") || second.text.contains("[DONE]"));
        assert_eq!(stage.facts.now().jobs().next().expect("a job").1.attempt, 2);
        // It was only cut off, and still gives its answer: without an end.
        let first = first.await.expect("answered");
        assert!(!first.text.contains("[DONE]"), "{}", first.text);
        assert!(first.status == 503 || first.broke, "{first:?}");
        assert!(first.text.contains("stream_lost"), "{}", first.text);
        let replayed = stage.send(asked(more.clone())).await;
        assert_eq!(replayed.text, second.text, "one answer counts");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_life_of_a_gateway_takes_over_what_the_former_one_left() {
    let stage = Arc::new(Stage::playing(|_, _| slow("the first answer, which takes its time")));
    let _first = ask(&stage, streamed()).await;
    let next = stage.beside(1, |_, _| said("again"));
    let again = next.send(asked(streamed())).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (200, None));
    assert!(again.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn of_many_that_ask_at_once_one_computes() {
    let stage = Arc::new(Stage::playing(|_, _| slow("one")));
    let other = Arc::new(stage.beside(2, |_, _| slow("one")));
    let asking = (0..12).map(|number| {
        let gateway = [&stage, &other][number % 2].clone();
        tokio::spawn(async move { gateway.send(asked(json!({}))).await })
    });
    let mut texts = std::collections::BTreeSet::new();
    for reply in futures_util::future::join_all(asking).await {
        let reply = reply.expect("answered");
        match reply.status.as_u16() {
            200 => drop(texts.insert(reply.text)),
            status => assert_eq!((status, reply.error_code().as_str()), (409, "idempotency_in_flight")),
        }
    }
    assert_eq!((texts.len(), stage.wishes().len() + other.wishes().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_end_nobody_confirms_does_not_look_complete() {
    let stage = Arc::new(Stage::playing(|_, _| slow("an answer")));
    let first = ask(&stage, streamed()).await;
    let unknown = || consensus::ProposeError::OutcomeUnknown("no majority".to_owned());
    stage.facts.fail_with(std::iter::repeat_with(unknown).take(1_000).collect());
    let first = first.await.expect("answered");
    assert!(first.broke && !first.text.contains("[DONE]"), "{}", first.text);
    stage.facts.fail_with(Vec::new());
    let again = stage.send(asked(streamed())).await;
    assert!(again.text.ends_with("[DONE]\n\n") && !again.broke);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_ends_the_job_even_when_nobody_waits_for_it() {
    let stage = Arc::new(Stage::playing(|_, _| slow("a slow answer")));
    let (id, key) = stage.new_key(&json!({"name": "ci", "scopes": ["inference"]})).await;
    let asking = tokio::spawn({
        let (stage, key) = (stage.clone(), key.clone());
        async move {
            let bearer = format!("Bearer {key}");
            stage.chat_with(&[KEY, ("authorization", &bearer)], streamed()).await
        }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    asking.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.cancelled(), [false]);
    stage.administer("DELETE", &format!("/keys/{id}"), None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.cancelled(), [true]);
    assert_eq!(stage.facts.now().jobs().count(), 0);
}
