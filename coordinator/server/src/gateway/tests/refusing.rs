//! What would not be honoured is refused, by name and in one shape.

use std::time::Duration;

use serde_json::{Value, json};

use super::cards;
use super::stage::{Reply, Stage, model};
use crate::gateway::error::Retry;
use crate::gateway::openai::chat_request::unrendered;
use crate::gateway::text::rendering::RenderError;

/// Status, code and parameter of a refusal; the body's shape is checked on the way.
fn refusal(reply: &Reply) -> (u16, String, Option<String>) {
    let body = reply.json();
    let error = body["error"].as_object().expect("an error");
    let keys: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "message", "param", "type"], "{body}");
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
    let param = error["param"].as_str().map(str::to_owned);
    (reply.status.as_u16(), reply.error_code(), param)
}

async fn chat_refusals(cases: &[(Value, &str, &str)]) {
    let stage = Stage::saying("hi");
    for (more, code, param) in cases {
        let reply = stage.chat(more.clone()).await;
        assert_eq!(refusal(&reply), (400, (*code).to_owned(), Some((*param).to_owned())), "{more}");
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    assert!(stage.wishes().is_empty(), "nothing was started");
}

#[tokio::test]
async fn wrong_types_name_their_parameter() {
    let cases = [
        (json!({"model": 7}), "model"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": ["hello"]}), "messages[0]"),
        (json!({"messages": [{"role": 1, "content": ""}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": 5}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}),
            "messages[0].content[0].text",
        ),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"n": 1.5}), "n"),
        (json!({"n": true}), "n"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stop": [1]}), "stop[0]"),
        (json!({"stop": 1}), "stop"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": "1"}), "seed"),
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"logit_bias": [1]}), "logit_bias"),
        (json!({"logit_bias": {"1": "x"}}), "logit_bias.1"),
        (json!({"tools": {}}), "tools"),
        (json!({"chat_template_kwargs": 1}), "chat_template_kwargs"),
        (json!({"stop_token_ids": "5"}), "stop_token_ids"),
        (json!({"response_format": "json"}), "response_format"),
        (json!({"service_tier": 1}), "service_tier"),
        (json!({"prompt_cache_key": ["k"]}), "prompt_cache_key"),
        (json!({"user": 7}), "user"),
        (json!({"cache_salt": 7}), "cache_salt"),
        (json!({"stream": true, "stream_options": true}), "stream_options"),
        (json!({"stream": true, "stream_options": {"include_usage": 1}}), "stream_options.include_usage"),
    ];
    chat_refusals(&cases.map(|(more, param)| (more, "invalid_type", param))).await;
}

#[tokio::test]
async fn values_out_of_range_name_their_parameter() {
    let cases = [
        (json!({"temperature": 2.1}), "temperature"),
        (json!({"temperature": -0.1}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.1}), "top_p"),
        (json!({"top_k": -2}), "top_k"),
        (json!({"min_p": 1.5}), "min_p"),
        (json!({"presence_penalty": 2.5}), "presence_penalty"),
        (json!({"frequency_penalty": -2.5}), "frequency_penalty"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": 5, "max_completion_tokens": 6}), "max_completion_tokens"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": ""}), "stop"),
        (json!({"stop": "x".repeat(1_025)}), "stop"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias.5"),
        (json!({"logit_bias": {"five": 1}}), "logit_bias.five"),
        (json!({"logit_bias": {"320": 1}}), "logit_bias.320"),
        (json!({"stop_token_ids": [320]}), "stop_token_ids"),
        (json!({"stop_token_ids": [-1]}), "stop_token_ids[0]"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options"),
        (json!({"service_tier": "cheap"}), "service_tier"),
        (json!({"cache_salt": ""}), "cache_salt"),
        (json!({"cache_salt": "x".repeat(65)}), "cache_salt"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "wizard", "content": ""}]}), "messages[0].role"),
    ];
    chat_refusals(&cases.map(|(more, param)| (more, "invalid_value", param))).await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let cases = [
        (json!({"model": null}), "model"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "assistant", "tool_calls": []}]}), "messages[0].content"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0].tool_call_id"),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}),
            "messages[0].tool_calls[0].function.name",
        ),
        (json!({"response_format": {}}), "response_format.type"),
    ];
    chat_refusals(&cases.map(|(more, param)| (more, "missing_required_parameter", param))).await;
}

#[tokio::test]
async fn what_would_change_the_answer_is_not_dropped() {
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let cases = [
        (json!({"tools": tool}), "tools"),
        (json!({"tools": tool, "tool_choice": "required"}), "tools"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}), "tool_choice"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {}}}), "response_format"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
        (json!({"audio": {}}), "audio"),
        (json!({"best_of": 2}), "best_of"),
        (json!({"functions": []}), "functions"),
        (json!({"reasoning_effort": "high"}), "reasoning_effort"),
        (json!({"temprature": 1}), "temprature"),
        (json!({"stream": true, "stream_options": {"usage": true}}), "stream_options.usage"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs.messages"),
        (json!({"messages": [{"role": "user", "content": "x", "mood": "good"}]}), "messages[0].mood"),
        (
            json!({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "x", "refusal": "no"}]}),
            "messages[0].refusal",
        ),
        (part(json!({"type": "image_url", "image_url": {"url": "data:,"}})), "messages[0].content[0]"),
        (part(json!({"type": "input_audio", "input_audio": {}})), "messages[0].content[0]"),
        (part(json!({"type": "file", "file": {}})), "messages[0].content[0]"),
        (part(json!({"type": "hologram"})), "messages[0].content[0].type"),
    ];
    chat_refusals(&cases.map(|(more, param)| (more, "unsupported_parameter", param))).await;
}

#[tokio::test]
async fn completions_refuse_what_is_their_own() {
    let stage = Stage::saying("hi");
    let cases = [
        (json!({"prompt": null}), "missing_required_parameter", "prompt"),
        (json!({"prompt": 5}), "invalid_type", "prompt"),
        (json!({"prompt": []}), "invalid_value", "prompt"),
        (json!({"prompt": [1, "x"]}), "invalid_type", "prompt[1]"),
        (json!({"prompt": [1, 320]}), "invalid_value", "prompt[1]"),
        (json!({"prompt": [[1], [-1]]}), "invalid_value", "prompt[1][0]"),
        (json!({"prompt": [true]}), "invalid_type", "prompt[0]"),
        (json!({"prompt": vec!["x"; 20], "n": 7}), "invalid_value", "prompt"),
        (json!({"logprobs": 6}), "invalid_value", "logprobs"),
        (json!({"logprobs": 1, "echo": true}), "unsupported_parameter", "echo"),
        (json!({"suffix": "end"}), "unsupported_parameter", "suffix"),
        (json!({"best_of": 3}), "unsupported_parameter", "best_of"),
        (json!({"messages": []}), "unsupported_parameter", "messages"),
    ];
    for (more, code, param) in cases {
        let reply = stage.complete(more.clone()).await;
        assert_eq!(refusal(&reply), (400, code.to_owned(), Some(param.to_owned())), "{more}");
    }
    assert_eq!(stage.complete(json!({"suffix": "", "best_of": 2, "n": 2})).await.status, 200);
}

#[tokio::test]
async fn hints_are_accepted_and_named() {
    let stage = Stage::saying("hi");
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let reply = stage
        .chat(json!({
            "metadata": {"a": "b"}, "store": false, "parallel_tool_calls": true, "tools": tools,
            "tool_choice": "none", "stream": true, "stream_options": {"include_obfuscation": false}, "audio": null
        }))
        .await;
    assert_eq!(reply.status, 200);
    let ignored = "stream_options.include_obfuscation, tools, metadata, parallel_tool_calls, store";
    assert_eq!(reply.header("x-mlx-ignored-params"), Some(ignored));
    let plain = stage
        .chat(json!({"tool_choice": "auto", "response_format": {"type": "text"}, "modalities": ["text"]}))
        .await;
    assert_eq!((plain.status.as_u16(), plain.header("x-mlx-ignored-params")), (200, None));
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_position_and_without_its_text() {
    let stage = Stage::saying("hi");
    for (body, position) in [
        ("{\"model\": secret}", "line 1 column 11"),
        ("", "line 1 column 0"),
        ("{\"a\":\n1,}", "line 2 column 3"),
    ] {
        let request =
            super::stage::request("POST", "/v1/chat/completions").body(body.to_owned().into()).unwrap();
        let reply = stage.send(request).await;
        assert_eq!(refusal(&reply), (400, "invalid_json".to_owned(), None));
        assert!(reply.text.contains(position), "{}", reply.text);
        assert!(!reply.text.contains("secret"));
    }
    let list = super::stage::request("POST", "/v1/chat/completions").body("[]".into()).unwrap();
    assert_eq!(refusal(&stage.send(list).await), (400, "invalid_type".to_owned(), None));
}

#[tokio::test]
async fn bodies_are_bounded_and_not_compressed() {
    let stage = Stage::saying("hi");
    let post = || super::stage::request("POST", "/v1/chat/completions");
    let announced = post().header("content-length", "17000000").body("{}".into()).unwrap();
    assert_eq!(refusal(&stage.send(announced).await), (413, "request_too_large".to_owned(), None));
    let sent = post().body(vec![b' '; (16 << 20) + 1].into()).unwrap();
    assert_eq!(refusal(&stage.send(sent).await), (413, "request_too_large".to_owned(), None));
    let packed = post().header("content-encoding", "gzip").body("x".into()).unwrap();
    assert_eq!(refusal(&stage.send(packed).await), (415, "unsupported_encoding".to_owned(), None));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_arrives_is_not_waited_for() {
    let stage = Stage::saying("hi");
    let body = axum::body::Body::from_stream(futures_util::stream::pending::<
        Result<bytes::Bytes, std::io::Error>,
    >());
    let request = super::stage::request("POST", "/v1/chat/completions").body(body).unwrap();
    assert_eq!(refusal(&stage.send(request).await), (408, "body_timeout".to_owned(), None));
}

#[tokio::test]
async fn an_unknown_model_names_close_ones_and_the_command() {
    let models = ["mlx-community/Qwen3-4B-4bit", "demo"].map(|name| model(name, Some(cards::chatting())));
    let stage = Stage::with(|_, _| Vec::new(), models.to_vec());
    let reply = stage.chat(json!({"model": "qwen3-4b-4bit"})).await;
    assert_eq!(refusal(&reply), (404, "model_not_found".to_owned(), Some("model".to_owned())));
    assert!(
        reply.text.contains("mlx-community/Qwen3-4B-4bit")
            && reply.text.contains("mlx-serving agent --model")
    );
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    let stranger = stage.chat(json!({"model": "gpt-4o"})).await;
    assert!(stranger.text.contains("2 other models are served"));
}

#[tokio::test]
async fn a_model_without_a_card_yet_is_told_as_loading() {
    let stage = Stage::with(|_, _| Vec::new(), vec![model("demo", None)]);
    let reply = stage.chat(json!({})).await;
    assert_eq!(refusal(&reply), (503, "model_loading".to_owned(), None));
    assert!(reply.text.contains("loading, 40 %"));
    assert_eq!((reply.header("retry-after"), reply.header("retry-after-ms")), (Some("5"), Some("5000")));
}

#[tokio::test]
async fn a_model_without_a_template_completes_and_does_not_chat() {
    let stage = Stage::with(
        |_, _| super::stage::said("hi"),
        vec![model("demo", Some(cards::bare(&cards::byte_level())))],
    );
    assert_eq!(
        refusal(&stage.chat(json!({})).await),
        (400, "no_chat_template".to_owned(), Some("model".to_owned()))
    );
    assert_eq!(stage.complete(json!({})).await.status, 200);
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_with_the_numbers() {
    let stage = Stage::saying("hi");
    let ids: Vec<u32> = vec![5; 512];
    let full = stage.complete(json!({"prompt": ids})).await;
    assert_eq!(refusal(&full), (400, "context_length_exceeded".to_owned(), Some("prompt".to_owned())));
    assert!(
        full.text
            .contains("maximum context length is 512 tokens. However, your prompt resulted in 512 tokens")
    );
    let long = stage.complete(json!({"prompt": vec![5; 500], "max_tokens": 13})).await;
    assert_eq!(refusal(&long), (400, "context_length_exceeded".to_owned(), Some("prompt".to_owned())));
    assert!(long.text.contains("you requested 513 tokens (500 in the prompt, 13 in the completion)"));
    assert_eq!(stage.complete(json!({"prompt": vec![5; 500], "max_tokens": 12})).await.status, 200);
    let chat = stage.chat(json!({"messages": [{"role": "user", "content": "x".repeat(600)}]})).await;
    assert_eq!(refusal(&chat), (400, "context_length_exceeded".to_owned(), Some("messages".to_owned())));
}

#[test]
fn what_a_template_did_to_its_renderers_may_be_tried_again_and_what_it_said_may_not() {
    let told = |error: RenderError| {
        let error = unrendered(error);
        (error.status.as_u16(), error.code, error.retry)
    };
    for own in [RenderError::Raised("no".into()), RenderError::OutOfBounds, RenderError::Failed("no".into())]
    {
        assert_eq!(told(own), (400, "invalid_messages", Retry::Never));
    }
    let again_in = Duration::from_secs(7);
    let refused = told(RenderError::Refused { again_in });
    assert_eq!(refused, (503, "rendering_unavailable", Retry::After(again_in)));
    for ours in [RenderError::Busy, RenderError::Lost, RenderError::NotStarted] {
        let (status, code, retry) = told(ours);
        assert_eq!((status, code), (503, "rendering_unavailable"));
        assert!(matches!(retry, Retry::After(_)));
    }
}

#[tokio::test]
async fn a_templates_refusal_reaches_the_client() {
    let config = json!({"chat_template": "{{ raise_exception('Only one message.') }}"}).to_string();
    let files = cards::files(&cards::byte_level(), &[("tokenizer_config.json", config)]);
    let card = crate::gateway::text::card::Card::from_files(&files).expect("a card");
    let stage = Stage::with(|_, _| Vec::new(), vec![model("demo", Some(card.into()))]);
    let reply = stage.chat(json!({})).await;
    assert_eq!(refusal(&reply), (400, "invalid_messages".to_owned(), Some("messages".to_owned())));
    assert!(reply.text.contains("Only one message."));
}
