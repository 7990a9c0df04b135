//! The older completions API, through the whole router: text in, text out, no template.

use serde_json::{Value, json};

use super::stage::{Stage, dispatched, finished, ids, said, tokens};
use crate::generation::FinishReason;

#[tokio::test]
async fn a_whole_completion_has_every_key_that_clients_read() {
    let stage = Stage::saying(" world");
    let reply = stage.complete(json!({"prompt": "hello"})).await;
    let mut body = reply.json();
    assert!(body["id"].take().as_str().is_some_and(|id| id.starts_with("cmpl-")));
    body["created"].take();
    let generated = ids(" world").len() + 1;
    assert_eq!(
        body,
        json!({
            "id": null, "created": null, "object": "text_completion", "model": "demo",
            "system_fingerprint": format!("fp_0123456789ab_{}", env!("CARGO_PKG_VERSION")),
            "choices": [{"text": " world", "index": 0, "logprobs": null, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 1, "completion_tokens": generated, "total_tokens": 1 + generated,
                "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 0}
            }
        })
    );
}

#[tokio::test]
async fn a_streamed_completion_is_text_then_reason_then_done() {
    let stage =
        Stage::playing(|_, _| vec![dispatched(1), tokens(&ids(" world")), finished(FinishReason::Length, 1)]);
    let reply = stage.complete(json!({"stream": true, "stream_options": {"include_usage": true}})).await;
    let chunks = reply.chunks();
    let choices: Vec<_> = chunks.iter().map(|chunk| chunk["choices"].clone()).collect();
    let choice = |text: &str, reason: Value| json!([{"text": text, "index": 0, "logprobs": null, "finish_reason": reason}]);
    assert_eq!(choices, [choice(" world", json!(null)), choice("", json!("length")), json!([])]);
    assert!(chunks.iter().all(|chunk| chunk["object"] == "text_completion"));
    assert_eq!(reply.events().last().map(String::as_str), Some("[DONE]"));
}

#[tokio::test]
async fn several_prompts_with_several_answers_each_stand_in_order() {
    let stage = Stage::playing(|nth, _| said(["a", "b", "c", "d"][nth]));
    let body = stage.complete(json!({"prompt": ["hello", "world"], "n": 2})).await.json();
    let texts: Vec<_> =
        body["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect();
    assert_eq!(texts, ["a", "b", "c", "d"]);
    let both = ids("hello").len() + ids("world").len();
    assert_eq!(body["usage"]["prompt_tokens"], both);
}

#[tokio::test]
async fn an_echoed_prompt_stands_before_its_answer() {
    let stage = Stage::saying(" world");
    let whole = stage.complete(json!({"echo": true, "n": 2, "prompt": ["hello", "bye"]})).await.json();
    let texts: Vec<_> =
        whole["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect();
    assert_eq!(texts, ["hello world", "hello world", "bye world", "bye world"]);
    let streamed = stage.complete(json!({"echo": true, "stream": true, "prompt": ids("hello")})).await;
    assert_eq!(streamed.content(0), "hello world");
}

#[tokio::test]
async fn a_completion_goes_on_in_the_middle_of_a_text() {
    // The answer's first token carries the space that separates it from the prompt.
    let card = super::cards::bare(&super::cards::byte_fallback());
    let word = card.encode("hello", false).expect("encodes");
    let act = tokens(&word);
    let stage = Stage::with(
        move |_, _| vec![dispatched(1), act.clone(), finished(FinishReason::Stop, 1)],
        vec![super::stage::model("demo", Some(card))],
    );
    assert_eq!(stage.complete(json!({"prompt": "ab"})).await.json()["choices"][0]["text"], " hello");
}
