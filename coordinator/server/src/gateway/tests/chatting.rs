//! Answers in one piece, and refusals by the cluster.

use std::time::Duration;

use serde_json::json;

use super::stage::{Act, Reply, Stage, dispatched, finished, ids, said, tokens};
use crate::generation::{Event, Failure, FinishReason};

#[tokio::test]
async fn a_whole_answer_has_every_key_that_clients_read() {
    let stage = Stage::saying("hello world");
    let reply = stage.chat(json!({})).await;
    assert_eq!(reply.status, 200);
    let mut body = reply.json();
    let id = body["id"].take();
    assert!(id.as_str().is_some_and(|id| id.starts_with("chatcmpl-") && id.len() > 24));
    assert!(body["created"].take().as_u64().is_some_and(|created| created > 1_700_000_000));
    let prompt = stage.wishes()[0].prompt.len();
    let generated = ids("hello world").len() + 1;
    assert_eq!(
        body,
        json!({
            "id": null, "created": null, "object": "chat.completion", "model": "demo",
            "system_fingerprint": format!("fp_0123456789ab_{}", env!("CARGO_PKG_VERSION")),
            "choices": [{
                "index": 0, "logprobs": null, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "hello world", "refusal": null}
            }],
            "usage": {
                "prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated,
                "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 0}
            }
        })
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!((reply.header("x-mlx-node"), reply.header("x-mlx-cached-tokens")), (Some("7"), Some("3")));
    assert!(reply.header("server-timing").is_some_and(|timing| timing.starts_with("queue;dur=")));
}

#[tokio::test]
async fn the_reason_for_the_end_is_true() {
    let stage =
        Stage::playing(|_, _| vec![dispatched(1), tokens(&ids("hel")), finished(FinishReason::Length, 3)]);
    assert_eq!(stage.chat(json!({})).await.json()["choices"][0]["finish_reason"], "length");
    let stopped = Stage::saying("hello world").chat(json!({"stop": "wor"})).await.json();
    assert_eq!(
        (&stopped["choices"][0]["finish_reason"], &stopped["choices"][0]["message"]["content"]),
        (&json!("stop"), &json!("hello "))
    );
}

#[tokio::test]
async fn a_stop_string_ends_the_work_and_counts_only_what_was_sampled_until_then() {
    let stage = Stage::playing(|_, _| {
        let mut acts = said("one. two. three.");
        acts.pop();
        acts.push(Act::Hang);
        acts
    });
    let reply = stage.chat(json!({"stop": [". t"]})).await;
    let body = reply.json();
    assert_eq!(body["choices"][0]["message"]["content"], "one");
    assert_eq!(body["usage"]["completion_tokens"], "one. t".len());
    assert_eq!(stage.cancelled(), [true]);
}

#[tokio::test]
async fn several_answers_stand_in_order_and_the_prompt_counts_once() {
    let stage = Stage::playing(|nth, _| said(["first", "second"][nth]));
    let body = stage.chat(json!({"n": 2})).await.json();
    let contents: Vec<_> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (choice["index"].clone(), choice["message"]["content"].clone()))
        .collect();
    assert_eq!(contents, [(json!(0), json!("first")), (json!(1), json!("second"))]);
    assert_eq!(body["usage"]["prompt_tokens"], stage.wishes()[0].prompt.len());
    assert_eq!(body["usage"]["completion_tokens"], "first".len() + 1 + "second".len() + 1);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
}

#[tokio::test]
async fn each_failure_has_its_status_code_and_retry() {
    let rejected = |code: &str| Failure::Rejected { code: code.to_owned(), text: "why".to_owned() };
    let full = |ms| Failure::QueueFull { retry_after: Duration::from_millis(ms) };
    let slow = Failure::DeadlineUnreachable { needed: Duration::from_secs(90) };
    let shed = Failure::Overloaded { retry_after: Duration::from_secs(30) };
    let nowhere = |seconds: Option<u64>| Failure::NoCapacity {
        words: "No Mac here has the memory for it.".to_owned(),
        retry_after: seconds.map(Duration::from_secs),
    };
    let cases = [
        (full(1_500), "429 queue_full rate_limit_error", "retry-after 2, 1500 ms"),
        (full(9_999_000), "429 queue_full rate_limit_error", "retry-after 120, 120000 ms"),
        (slow, "504 deadline_exceeded timeout_error", ""),
        (Failure::DeadlineExceeded, "504 deadline_exceeded timeout_error", ""),
        (Failure::NodeLost { began: false }, "503 node_lost server_error", "retry-after 1, 1000 ms"),
        (Failure::ShuttingDown, "503 no_capacity server_error", "retry-after 1, 1000 ms"),
        (shed, "429 queue_full rate_limit_error", "retry-after 30, 30000 ms"),
        (nowhere(Some(7)), "503 no_capacity server_error", "retry-after 7, 7000 ms"),
        (nowhere(None), "503 no_capacity server_error", "never"),
        (Failure::Quarantined, "400 request_quarantined invalid_request_error", "never"),
        (rejected("invalid_request"), "400 invalid_request invalid_request_error", "never"),
        (rejected("context_length_exceeded"), "400 context_length_exceeded invalid_request_error", "never"),
        (rejected("unsupported_model"), "400 unsupported_model invalid_request_error", "never"),
        (rejected("duplicate_row"), "500 internal_error server_error", ""),
    ];
    for (failure, what, retry) in cases {
        for stream in [false, true] {
            let reply = Stage::failing(failure.clone()).chat(json!({"stream": stream})).await;
            let error = &reply.json()["error"];
            let kind = error["type"].as_str().expect("a type");
            let told = format!("{} {} {kind}", reply.status.as_u16(), reply.error_code());
            assert_eq!((told.as_str(), retry_told(&reply).as_str()), (what, retry), "{failure:?}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let retry_after = Duration::from_secs(1);
    let words = "No Mac here has the memory for 'big': it needs 40 GiB.".to_owned();
    let cases = [
        (Failure::NoCapacity { words: words.clone(), retry_after: None }, words.as_str()),
        (Failure::Overloaded { retry_after }, "batch work makes room first"),
        (Failure::QueueFull { retry_after }, "The queue is full."),
        (Failure::Quarantined, "has brought down two runtimes"),
        (Failure::Quarantined, "Change it"),
    ];
    for (failure, part) in cases {
        let reply = Stage::failing(failure).chat(json!({})).await;
        let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(part), "{message}");
    }
}

fn retry_told(reply: &Reply) -> String {
    let after = reply.header("retry-after").map(|seconds| format!("retry-after {seconds}"));
    let ms = reply.header("retry-after-ms").map(|ms| format!("{ms} ms"));
    let never =
        reply.header("x-should-retry").map(|retry| if retry == "false" { "never" } else { "?" }.to_owned());
    [after, ms, never].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_node_lost_in_the_middle_of_a_whole_answer_is_an_error_and_no_half_answer() {
    let lost = Act::Event(Event::Failed(Failure::NodeLost { began: true }));
    let stage = Stage::playing(move |_, _| vec![dispatched(1), tokens(&ids("half an ans")), lost.clone()]);
    let reply = stage.chat(json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (503, "node_lost"));
    assert!(!reply.text.contains("half"));
}

#[tokio::test]
async fn one_failed_answer_of_several_fails_the_request_and_cancels_the_rest() {
    let stage = Stage::playing(|nth, _| match nth {
        0 => vec![dispatched(1), Act::Hang],
        _ => vec![Act::Event(Event::Failed(Failure::NodeLost { began: false }))],
    });
    assert_eq!(stage.chat(json!({"n": 2})).await.status, 503);
    assert_eq!(stage.cancelled(), [true, true]);
}

#[tokio::test]
async fn a_cluster_side_that_goes_silent_without_a_last_word_is_a_loss() {
    let stage = Stage::playing(|_, _| vec![dispatched(1), tokens(&[104])]);
    assert_eq!(stage.chat(json!({})).await.error_code(), "node_lost");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_beyond_the_deadline() {
    let stage = Stage::playing(|_, _| vec![dispatched(1), tokens(&[104]), Act::Hang]);
    let reply = stage.chat(json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.error_code().as_str()), (504, "deadline_exceeded"));
    assert_eq!(stage.cancelled(), [true]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_cancels_every_answer() {
    let stage = Stage::playing(|_, _| vec![dispatched(1), Act::Hang]);
    let waiting = tokio::time::timeout(Duration::from_millis(50), stage.chat(json!({"n": 3}))).await;
    assert!(waiting.is_err(), "nothing was answered");
    assert_eq!(stage.cancelled(), [true, true, true]);
}

#[tokio::test]
async fn one_bad_request_does_not_harm_the_next() {
    let stage = Stage::saying("fine");
    for _ in 0..4 {
        assert_eq!(stage.chat(json!({"n": "many"})).await.status, 400);
        assert_eq!(stage.chat(json!({})).await.json()["choices"][0]["message"]["content"], "fine");
    }
}
