//! A key that is revoked ends what runs under it, and never as if it were whole.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use super::stage::{Act, Stage, chat_body, dispatched, ids, request, tokens};

/// It says one word and then nothing for ever.
fn endless() -> Stage {
    Stage::playing(|_, _| vec![dispatched(7), tokens(&ids("hello")), Act::Hang])
}

async fn begun(stage: &Stage, key: &str, stream: bool) -> tokio::task::JoinHandle<(u16, String, bool)> {
    let body = chat_body(json!({"stream": stream})).to_string();
    let asked =
        request("POST", "/v1/chat/completions").header("x-api-key", key).body(Body::from(body)).unwrap();
    let router = stage.router.clone();
    let running = tokio::spawn(async move {
        let response = router.oneshot(asked).await.unwrap();
        let status = response.status().as_u16();
        let (mut text, mut broke, mut body) = (String::new(), false, response.into_body());
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap()),
                Err(_) => {
                    broke = true;
                    break;
                }
            }
        }
        (status, text, broke)
    });
    while stage.wishes().is_empty() {
        tokio::task::yield_now().await;
    }
    running
}

#[tokio::test(start_paused = true)]
async fn a_running_stream_gets_an_error_and_is_cut() {
    let stage = endless();
    let (id, key) = stage.new_key(&json!({"name": "leaked"})).await;
    let running = begun(&stage, &key, true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.administer("DELETE", &format!("/keys/{id}"), None).await.status, 200);
    let (status, text, broke) = tokio::time::timeout(Duration::from_secs(1), running).await.unwrap().unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("hello") && text.ends_with("\n\n"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
    let error: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(error["error"]["code"], "invalid_api_key");
    assert!(broke && !text.contains("[DONE]"), "never a clean end");
    assert_eq!(stage.cancelled(), [true], "its slot is free");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_read_breaks_off() {
    let stage = endless();
    let (id, key) = stage.new_key(&json!({"name": "leaked"})).await;
    let file = stage.upload(&key, "{}").await;
    let asked = request("GET", &format!("/v1/files/{file}/content")).header("x-api-key", &key);
    let response = stage.router.clone().oneshot(asked.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    stage.administer("DELETE", &format!("/keys/{id}"), None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    response.into_body().collect().await.expect_err("not as if it were whole");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_one_piece_becomes_a_refusal() {
    let stage = endless();
    let (id, key) = stage.new_key(&json!({"name": "leaked"})).await;
    let running = begun(&stage, &key, false).await;
    stage.administer("DELETE", &format!("/keys/{id}"), None).await;
    let (status, text, broke) = running.await.unwrap();
    assert_eq!((status, broke), (401, false));
    assert!(text.contains("invalid_api_key"), "{text}");
    assert_eq!(stage.cancelled(), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_loses_the_scope_is_cut_too_and_other_changes_cut_nobody() {
    let stage = endless();
    let (id, key) = stage.new_key(&json!({"name": "ci"})).await;
    let running = begun(&stage, &key, true).await;
    let (other, _) = stage.new_key(&json!({"name": "other"})).await;
    stage.administer("DELETE", &format!("/keys/{other}"), None).await;
    let path = format!("/keys/{id}");
    stage.administer("POST", &format!("{path}/secrets"), None).await;
    stage.administer("DELETE", &format!("{path}/secrets/1"), None).await;
    stage
        .administer("PATCH", &path, Some(&json!({"name": "renamed", "scopes": ["inference", "read"]})))
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!running.is_finished());
    stage.administer("PATCH", &path, Some(&json!({"scopes": ["read"]}))).await;
    let (_, text, broke) = running.await.unwrap();
    assert!(broke && text.contains("invalid_api_key"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_first_key_throws_out_nobody_who_is_inside() {
    let stage = endless();
    let running = begun(&stage, "none", true).await;
    stage.new_key(&json!({"name": "first"})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!running.is_finished());
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let gone = Arc::new(stage.cancelled());
    assert_eq!(*gone, [true], "a client that hangs up still frees its slot");
}
