//! Streams: the order of chunks, what waits, and what is never repeated or lost.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::stage::{Act, Stage, dispatched, finished, ids, queued, said, tokens};
use crate::generation::FinishReason;

fn delta(index: u64, delta: Value, reason: Value) -> Value {
    json!([{"index": index, "delta": delta, "logprobs": null, "finish_reason": reason}])
}

#[tokio::test]
async fn a_stream_is_role_then_content_then_reason_then_done() {
    let stage =
        Stage::playing(|_, _| vec![dispatched(7), tokens(&ids("hello")), finished(FinishReason::Stop, 2)]);
    let reply = stage.chat(json!({"stream": true})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
    assert!(reply.text.ends_with("data: [DONE]\n\n") && !reply.broke);
    let chunks = reply.chunks();
    let choices: Vec<_> = chunks.iter().map(|chunk| chunk["choices"].clone()).collect();
    let expected = [
        delta(0, json!({"role": "assistant", "content": "", "refusal": null}), json!(null)),
        delta(0, json!({"content": "hello"}), json!(null)),
        delta(0, json!({}), json!("stop")),
    ];
    assert_eq!(choices, expected);
    for chunk in &chunks {
        assert_eq!(
            (&chunk["object"], &chunk["model"], &chunk["id"]),
            (&json!("chat.completion.chunk"), &json!("demo"), &chunks[0]["id"])
        );
        assert!(chunk["created"].is_u64() && chunk["system_fingerprint"].is_string());
        assert!(chunk.get("usage").is_none());
    }
}

#[tokio::test]
async fn the_headers_of_a_stream_keep_proxies_from_holding_it() {
    let reply = Stage::saying("hi").chat(json!({"stream": true})).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-mlx-node", "7"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn usage_comes_last_and_only_when_asked_for() {
    let reply =
        Stage::saying("hello").chat(json!({"stream": true, "stream_options": {"include_usage": true}})).await;
    let chunks = reply.chunks();
    let (last, rest) = chunks.split_last().unwrap();
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], ids("hello").len() + 1);
    assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
}

#[tokio::test]
async fn an_answer_without_a_word_still_has_its_role_and_reason() {
    let stage = Stage::playing(|_, _| vec![dispatched(1), finished(FinishReason::Stop, 1)]);
    let chunks = stage.chat(json!({"stream": true})).await.chunks();
    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[1]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn tokens_that_wait_already_leave_in_one_chunk() {
    let stage = Stage::playing(|_, _| said(&"hello ".repeat(5)));
    let reply = stage.chat(json!({"stream": true})).await;
    assert_eq!((reply.content(0), reply.chunks().len()), ("hello ".repeat(5), 3));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_come_one_by_one_leave_one_by_one() {
    let stage = Stage::playing(|_, _| {
        let each =
            ids("abcd").into_iter().flat_map(|id| [tokens(&[id]), Act::Pause(Duration::from_millis(20))]);
        std::iter::once(dispatched(1)).chain(each).chain([finished(FinishReason::Stop, 5)]).collect()
    });
    let chunks = stage.chat(json!({"stream": true})).await.chunks();
    let contents: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(contents, ["", "a", "b", "c", "d"]);
}

#[tokio::test]
async fn several_answers_share_a_stream_by_index() {
    let stage = Stage::playing(|nth, _| said(["one", "two", "three"][nth]));
    let reply = stage.chat(json!({"stream": true, "n": 3})).await;
    for (index, text) in ["one", "two", "three"].into_iter().enumerate() {
        assert_eq!(reply.content(index as u64), text);
    }
    let reasons: Vec<_> = reply
        .chunks()
        .iter()
        .filter(|chunk| chunk["choices"][0]["finish_reason"] == "stop")
        .map(|chunk| chunk["choices"][0]["index"].clone())
        .collect();
    assert_eq!(reasons, [0, 1, 2]);
    assert_eq!(reply.events().iter().filter(|data| *data == "[DONE]").count(), 1);
}

#[tokio::test]
async fn a_stop_string_cuts_a_stream_before_its_first_letter() {
    let stage = Stage::playing(|_, _| {
        let mut acts = said("good END bad");
        acts.insert(acts.len() - 1, Act::Pause(Duration::from_millis(1)));
        acts
    });
    let reply =
        stage.chat(json!({"stream": true, "stop": ["END"], "stream_options": {"include_usage": true}})).await;
    assert_eq!(reply.content(0), "good ");
    let chunks = reply.chunks();
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], "good END".len());
    assert_eq!(stage.cancelled(), [true]);
}

#[tokio::test]
async fn those_who_wait_are_told_their_place() {
    let stage = Stage::playing(|_, _| [vec![queued(2, Some(1_540)), queued(0, None)], said("hi")].concat());
    let reply = stage.chat(json!({"stream": true})).await;
    assert_eq!(reply.content(0), "hi");
    let slow = Stage::playing(|_, _| {
        let pause = Act::Pause(Duration::from_millis(1));
        [vec![queued(2, Some(1_540)), pause.clone(), queued(0, None), pause], said("hi")].concat()
    });
    let reply = slow.chat(json!({"stream": true})).await;
    assert_eq!(reply.comments(), [": position 3, about 2 s", ": position 1"]);
    assert_eq!(reply.content(0), "hi");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_shows_that_it_lives_every_ten_seconds() {
    let stage = Stage::playing(|_, _| {
        let acts = vec![
            queued(4, None),
            Act::Pause(Duration::from_secs(25)),
            dispatched(1),
            Act::Pause(Duration::from_secs(20)),
        ];
        [acts, said("hi")].concat()
    });
    let reply = stage.chat(json!({"stream": true})).await;
    let comments = reply.comments();
    let place = ": position 5";
    assert_eq!(comments, [place, place, place, ": keep-alive", ": keep-alive"]);
    assert_eq!(reply.content(0), "hi");
}

#[tokio::test(start_paused = true)]
async fn the_response_begins_while_its_request_is_queued_and_not_before_anything_is_known() {
    let waiting = Stage::playing(|_, _| vec![queued(1, None), Act::Hang]);
    let request = |stage: &Stage| {
        let body = super::stage::chat_body(json!({"stream": true})).to_string();
        let request =
            super::stage::request("POST", "/v1/chat/completions").body(axum::body::Body::from(body)).unwrap();
        tower::ServiceExt::oneshot(stage.router.clone(), request)
    };
    let soon = Duration::from_secs(1);
    assert!(tokio::time::timeout(soon, request(&waiting)).await.is_ok());
    for acts in [vec![Act::Hang], vec![dispatched(1), Act::Hang]] {
        let silent = Stage::playing(move |_, _| acts.clone());
        assert!(tokio::time::timeout(soon, request(&silent)).await.is_err());
        let later = tokio::time::timeout(Duration::from_secs(10) + soon, request(&silent)).await;
        assert!(later.is_ok(), "a long prefill keeps no client without headers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_a_stream_cancels_it() {
    let stage = Stage::playing(|_, _| vec![dispatched(1), tokens(&[104]), Act::Hang]);
    let left =
        tokio::time::timeout(Duration::from_secs(1), stage.chat(json!({"stream": true, "n": 2}))).await;
    assert!(left.is_err());
    assert_eq!(stage.cancelled(), [true, true]);
}

#[tokio::test]
async fn text_is_escaped_as_json() {
    let text = "quote \" back \\ line\nreturn\r tab\t bell\u{7} del\u{7f} ü 你 👩\u{200d}🚀 \u{2028}";
    let reply = Stage::saying(text).chat(json!({"stream": true})).await;
    assert_eq!(reply.content(0), text);
    assert!(reply.events().iter().all(|data| !data.contains('\n') && !data.contains('\r')));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_frames_the_text_is_whole(text in "[a-d ü你👩]{0,24}", cuts in prop::collection::vec(1_usize..5, 24), stop in "[a-d]{2}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let stage = {
                let (text, cuts) = (text.clone(), cuts.clone());
                Stage::playing(move |_, _| framed(&text, &cuts))
            };
            let reply = stage.chat(json!({"stream": true, "stop": [stop.clone()]})).await;
            let expected = text.split(stop.as_str()).next().unwrap();
            prop_assert_eq!(reply.content(0), expected);
            prop_assert!(reply.text.ends_with("data: [DONE]\n\n"));
            Ok(())
        })?;
    }
}

/// The ids of `text` in frames of these sizes, some apart in time.
fn framed(text: &str, cuts: &[usize]) -> Vec<Act> {
    let mut rest = ids(text);
    let mut acts = vec![dispatched(1)];
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let frame: Vec<_> = rest.drain(..(*cut).min(rest.len())).collect();
        acts.push(tokens(&frame));
        if cut % 2 == 0 {
            acts.push(Act::Pause(Duration::from_millis(5)));
        }
    }
    acts.push(finished(FinishReason::Stop, 1));
    acts
}
