//! Whole responses, byte by byte: what a client's parser is fed.

use serde_json::json;

use super::stage::{Act, Reply, Stage, dispatched, finished, ids, queued, scored, tokens};
use crate::generation::FinishReason;

/// The body with what differs between two runs replaced.
fn body(reply: &Reply) -> String {
    let mut text = reply.text.clone();
    let id =
        text.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an id").to_owned();
    text = text.replace(&id, "ID");
    let created = text
        .split("\"created\":")
        .nth(1)
        .and_then(|rest| rest.split(',').next())
        .expect("created")
        .to_owned();
    text.replace(&format!("\"created\":{created}"), "\"created\":0").replace(env!("CARGO_PKG_VERSION"), "V")
}

fn lines(expected: &[&str]) -> String {
    expected.iter().map(|line| format!("{line}\n\n")).collect()
}

const CHAT: &str = r#"data: {"id":"ID","object":"chat.completion.chunk","created":0,"model":"demo","system_fingerprint":"fp_0123456789ab_V","choices":[{"index":0,"#;
const TEXT: &str = r#"data: {"id":"ID","object":"text_completion","created":0,"model":"demo","system_fingerprint":"fp_0123456789ab_V","choices":[{"#;

#[tokio::test(start_paused = true)]
async fn a_streamed_chat() {
    let pause = || Act::Pause(std::time::Duration::from_millis(1));
    let stage = Stage::playing(move |_, _| {
        vec![
            queued(1, Some(2_000)),
            pause(),
            dispatched(3),
            tokens(&ids("hello")),
            pause(),
            tokens(&ids(" \"world\"\n")),
            pause(),
            finished(FinishReason::Length, 9),
        ]
    });
    let reply = stage.chat(json!({"stream": true})).await;
    let expected = [
        ": position 2, about 2 s",
        &format!(
            r#"{CHAT}"delta":{{"role":"assistant","content":"","refusal":null}},"logprobs":null,"finish_reason":null}}]}}"#
        ),
    ];
    let first = format!(r#"{CHAT}"delta":{{"content":"hello"}},"logprobs":null,"finish_reason":null}}]}}"#);
    let second =
        format!(r#"{CHAT}"delta":{{"content":" \"world\"\n"}},"logprobs":null,"finish_reason":null}}]}}"#);
    let last = format!(r#"{CHAT}"delta":{{}},"logprobs":null,"finish_reason":"length"}}]}}"#);
    assert_eq!(body(&reply), lines(&expected) + &lines(&[&first, &second, &last, "data: [DONE]"]));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_chat_with_scores_and_usage() {
    let stage = Stage::playing(|_, _| {
        let a = scored(u32::from(b'a'), -0.25, &[(u32::from(b'b'), -1.5)]);
        vec![dispatched(3), a, finished(FinishReason::Stop, 2)]
    });
    let more = json!({"stream": true, "logprobs": true, "top_logprobs": 1, "stream_options": {"include_usage": true}});
    let reply = stage.chat(more).await;
    let prompt = stage.wishes()[0].prompt.len();
    let scores = r#"{"content":[{"token":"a","logprob":-0.25,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1.5,"bytes":[98]}]}],"refusal":null}"#;
    let head = CHAT.trim_end_matches(r#"{"index":0,"#);
    let expected = [
        format!(
            r#"{CHAT}"delta":{{"role":"assistant","content":"","refusal":null}},"logprobs":null,"finish_reason":null}}],"usage":null}}"#
        ),
        format!(
            r#"{CHAT}"delta":{{"content":"a"}},"logprobs":{scores},"finish_reason":null}}],"usage":null}}"#
        ),
        format!(r#"{CHAT}"delta":{{}},"logprobs":null,"finish_reason":"stop"}}],"usage":null}}"#),
        format!(
            r#"{head}],"usage":{{"prompt_tokens":{prompt},"completion_tokens":2,"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":3}},"completion_tokens_details":{{"reasoning_tokens":0}}}}}}"#,
            prompt + 2
        ),
        "data: [DONE]".to_owned(),
    ];
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    assert_eq!(body(&reply), lines(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_completion() {
    let stage =
        Stage::playing(|_, _| vec![dispatched(3), tokens(&ids(" w")), finished(FinishReason::Stop, 2)]);
    let reply = stage.complete(json!({"stream": true, "echo": true})).await;
    let expected = [
        format!(r#"{TEXT}"text":"hello","index":0,"logprobs":null,"finish_reason":null}}]}}"#),
        format!(r#"{TEXT}"text":" w","index":0,"logprobs":null,"finish_reason":null}}]}}"#),
        format!(r#"{TEXT}"text":"","index":0,"logprobs":null,"finish_reason":"stop"}}]}}"#),
        "data: [DONE]".to_owned(),
    ];
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    assert_eq!(body(&reply), lines(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_completion_with_scores() {
    let stage = Stage::playing(|_, _| {
        let a = scored(u32::from(b'a'), -0.25, &[(u32::from(b'b'), -1.5)]);
        vec![dispatched(3), a, finished(FinishReason::Stop, 2)]
    });
    let reply = stage.complete(json!({"stream": true, "logprobs": 1})).await;
    let scores = r#"{"tokens":["a"],"token_logprobs":[-0.25],"top_logprobs":[{"b":-1.5}],"text_offset":[0]}"#;
    let expected = [
        format!(r#"{TEXT}"text":"a","index":0,"logprobs":{scores},"finish_reason":null}}]}}"#),
        format!(r#"{TEXT}"text":"","index":0,"logprobs":null,"finish_reason":"stop"}}]}}"#),
        "data: [DONE]".to_owned(),
    ];
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    assert_eq!(body(&reply), lines(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream() {
    let lost = crate::generation::Failure::NodeLost { began: true };
    let stage = Stage::playing(move |_, _| {
        vec![
            queued(0, None),
            Act::Pause(std::time::Duration::from_millis(1)),
            Act::Event(crate::generation::Event::Failed(lost.clone())),
        ]
    });
    let reply = stage.chat(json!({"stream": true})).await;
    let error = r#"data: {"error":{"message":"The answer was cut before its end. What has arrived is incomplete; send the request again.","type":"server_error","param":null,"code":"stream_lost"}}"#;
    assert_eq!((reply.text.as_str(), reply.broke), (lines(&[": position 1", error]).as_str(), true));
}

#[tokio::test]
async fn an_error() {
    let reply = Stage::saying("hi").chat(json!({"temperature": "hot"})).await;
    let expected = r#"{"error":{"message":"Invalid type for 'temperature': expected a number, got a string.","type":"invalid_request_error","param":"temperature","code":"invalid_type"}}"#;
    assert_eq!(reply.text, expected);
}
