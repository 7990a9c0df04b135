//! Log probabilities stand beside the tokens they belong to.

use std::time::Duration;

use serde_json::json;

use super::stage::{Act, Stage, dispatched, finished, scored, tokens};
use crate::generation::FinishReason;

/// "héy": the é comes in two tokens.
fn hey() -> Vec<Act> {
    vec![
        dispatched(1),
        scored(u32::from(b'h'), -0.5, &[(u32::from(b'h'), -0.5), (u32::from(b'j'), -1.5)]),
        scored(0xC3, -1.0, &[]),
        scored(0xA9, f32::NEG_INFINITY, &[]),
        scored(u32::from(b'y'), -2.0, &[]),
        finished(FinishReason::Stop, 5),
    ]
}

#[tokio::test]
async fn a_chat_shows_tokens_bytes_and_alternatives() {
    let body = Stage::playing(|_, _| hey()).chat(json!({"logprobs": true, "top_logprobs": 2})).await.json();
    let entry = |token: &str, logprob: f64, bytes: &[u8]| json!({"token": token, "logprob": logprob, "bytes": bytes, "top_logprobs": []});
    let mut first = entry("h", -0.5, b"h");
    first["top_logprobs"] = json!([{"token": "h", "logprob": -0.5, "bytes": [104]}, {"token": "j", "logprob": -1.5, "bytes": [106]}]);
    let expected = json!({
        "content": [first, entry("\u{fffd}", -1.0, &[0xC3]), entry("\u{fffd}", -9999.0, &[0xA9]), entry("y", -2.0, b"y")],
        "refusal": null
    });
    assert_eq!(body["choices"][0]["logprobs"], expected);
    assert_eq!(body["choices"][0]["message"]["content"], "h\u{e9}y");
}

#[tokio::test]
async fn completions_show_lists_and_offsets_in_characters() {
    let body = Stage::playing(|_, _| hey()).complete(json!({"logprobs": 2})).await.json();
    assert_eq!(
        body["choices"][0]["logprobs"],
        json!({
            "tokens": ["h", "\u{fffd}", "\u{fffd}", "y"], "token_logprobs": [-0.5, -1.0, -9999.0, -2.0],
            "top_logprobs": [{"h": -0.5, "j": -1.5}, {}, {}, {}], "text_offset": [0, 1, 1, 2]
        })
    );
}

#[tokio::test]
async fn without_logprobs_none_are_shown() {
    let body = Stage::playing(|_, _| hey()).chat(json!({"logprobs": false})).await.json();
    assert_eq!(body["choices"][0]["logprobs"], json!(null));
}

#[tokio::test]
async fn a_stop_string_takes_the_scores_of_its_tokens_with_it() {
    let stage = Stage::playing(|_, _| {
        let each = "abcd".bytes().map(|byte| scored(u32::from(byte), -1.0, &[]));
        std::iter::once(dispatched(1)).chain(each).chain([finished(FinishReason::Stop, 5)]).collect()
    });
    for stream in [false, true] {
        let reply = stage.chat(json!({"logprobs": true, "stop": "bc", "stream": stream})).await;
        let shown: Vec<_> = if stream {
            let of = |chunk: &serde_json::Value| {
                chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default()
            };
            reply.chunks().iter().flat_map(of).collect()
        } else {
            reply.json()["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap()
        };
        let tokens: Vec<_> = shown.iter().map(|entry| entry["token"].clone()).collect();
        assert_eq!(tokens, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_stream_scores_leave_with_their_text_and_each_once() {
    let stage = Stage::playing(|_, _| {
        hey().into_iter().flat_map(|act| [act, Act::Pause(Duration::from_millis(5))]).collect()
    });
    let reply = stage.chat(json!({"logprobs": true, "stream": true, "stop": "zz"})).await;
    let seen: Vec<_> = reply
        .chunks()
        .iter()
        .filter_map(|chunk| {
            let choice = &chunk["choices"][0];
            let scores = choice["logprobs"]["content"].as_array()?.len();
            Some((choice["delta"]["content"].as_str()?.to_owned(), scores))
        })
        .collect();
    // The first half of é has no text yet: its score may leave with none.
    assert_eq!(seen.iter().map(|(text, _)| text.as_str()).collect::<String>(), "h\u{e9}y");
    assert_eq!(seen.iter().map(|(_, scores)| scores).sum::<usize>(), 4);
    assert_eq!(seen.first(), Some(&("h".to_owned(), 1)));
}

#[tokio::test]
async fn tokens_without_scores_do_no_harm() {
    let stage =
        Stage::playing(|_, _| vec![dispatched(1), tokens(&[104, 105]), finished(FinishReason::Stop, 3)]);
    let body = stage.chat(json!({"logprobs": true})).await.json();
    assert_eq!(body["choices"][0]["logprobs"]["content"], json!([]));
    assert_eq!(body["choices"][0]["message"]["content"], "hi");
}
