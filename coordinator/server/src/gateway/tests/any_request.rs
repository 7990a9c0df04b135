//! Whatever a client sends, it gets an answer or one well-formed refusal.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::stage::Stage;

/// Values of every kind, most of them wrong wherever they are put.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3_i64..20).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3.0_f64..3.0).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~é你]{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["user", "text", "none", "auto", "hello", "demo"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let keys = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "text",
            "function",
            "name",
            "5",
            "include_usage",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..4).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

const KEYS: [&str; 36] = [
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
    "chat_template_kwargs",
    "stop_token_ids",
    "echo",
    "suffix",
    "best_of",
    "user",
    "service_tier",
    "prompt_cache_key",
    "cache_salt",
    "metadata",
    "reasoning_effort",
    "modalities",
    "nonsense",
];

const RESPONSE_KEYS: [&str; 24] = [
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "seed",
    "stream",
    "stream_options",
    "store",
    "metadata",
    "text",
    "reasoning",
    "include",
    "tools",
    "tool_choice",
    "truncation",
    "previous_response_id",
    "top_logprobs",
    "user",
    "service_tier",
    "prompt_cache_key",
    "conversation",
    "nonsense",
];

fn judge(path: &str, body: &Value) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let stage = Stage::saying("hi");
        let reply = stage.post(path, body).await;
        if reply.status == 200 {
            prop_assert!(!stage.wishes().is_empty() && !reply.broke);
            return Ok(());
        }
        prop_assert!(reply.status == 400 || reply.status == 404, "{}: {}", reply.status, reply.text);
        prop_assert!(stage.wishes().is_empty(), "nothing is started for a refused request");
        let answer = reply.json();
        let error = answer["error"].as_object().expect("an error");
        prop_assert_eq!(error.len(), 4);
        prop_assert!(error["message"].is_string() && error["type"].is_string() && error["code"].is_string());
        prop_assert!(error["param"].is_null() || error["param"].is_string());
        prop_assert_eq!(reply.header("x-should-retry"), Some("false"));
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn one_parameter_of_any_value_is_honoured_or_refused(key in prop::sample::select(KEYS.to_vec()), value in any_value(), chat in any::<bool>()) {
        let mut body = if chat {
            json!({"model": "demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
        } else {
            json!({"model": "demo", "prompt": "hello", "max_tokens": 4})
        };
        body[key] = value;
        judge(if chat { "/v1/chat/completions" } else { "/v1/completions" }, &body)?;
    }

    #[test]
    fn messages_of_any_shape_are_honoured_or_refused(message in any_value(), field in prop::sample::select(vec!["role", "content", "name", "tool_calls", "tool_call_id", "refusal", "other"]), value in any_value()) {
        judge("/v1/chat/completions", &json!({"model": "demo", "messages": [message]}))?;
        let mut assistant = json!({"role": "assistant", "content": "hi"});
        assistant[field] = value;
        judge("/v1/chat/completions", &json!({"model": "demo", "messages": [assistant]}))?;
    }

    #[test]
    fn a_response_of_any_shape_is_honoured_or_refused(key in prop::sample::select(RESPONSE_KEYS.to_vec()), value in any_value(), item in any_value()) {
        let mut body = json!({"model": "demo", "input": "hello", "max_output_tokens": 4});
        body[key] = value.clone();
        judge("/v1/responses", &body)?;
        judge("/v1/responses", &json!({"model": "demo", "input": [item.clone()]}))?;
        judge("/v1/responses", &json!({"model": "demo", "input": [{"role": "user", "content": [item]}]}))?;
        let mut call = json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"});
        call["arguments"] = value;
        judge("/v1/responses", &json!({"model": "demo", "input": [{"role": "user", "content": "a"}, call]}))?;
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let stage = Stage::saying("hi");
            let request = super::stage::request("POST", "/v1/completions").body(bytes.into()).expect("a request");
            let reply = stage.send(request).await;
            prop_assert_eq!((reply.status.as_u16(), reply.json()["error"].as_object().map(Map::len)), (400, Some(4)));
            Ok(())
        })?;
    }
}

/// A word that no message of ours contains, wherever a client may put text.
#[tokio::test]
async fn no_error_repeats_what_a_client_wrote_as_content() {
    let stage = Stage::saying("hi");
    let secret = "xyzzy-plugh";
    let message =
        |content: Value| json!({"model": "demo", "messages": [{"role": "user", "content": content}]});
    let mut bodies = vec![
        message(
            json!([{"type": "text", "text": secret}, {"type": "image_url", "image_url": {"url": secret}}]),
        ),
        message(json!({"text": secret})),
        message(json!([secret])),
        json!({"model": "demo", "messages": secret}),
        json!({"model": "demo", "prompt": secret, "messages": [{"role": "user", "content": secret}]}),
        json!({"model": "demo", "messages": [{"role": "user", "content": secret}], "stop": [secret, 1]}),
        json!({"model": "demo", "messages": [{"role": "user", "content": secret}], "max_tokens": 100_000}),
        json!({"model": "demo", "messages": [{"role": "user", "content": secret.repeat(100)}]}),
        json!({"model": "demo", "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 1, "arguments": secret}}]}]}),
    ];
    bodies.push(json!({"model": "demo", "messages": [{"role": "user", "content": secret}], "metadata": {"a": secret}, "tools": [secret]}));
    for body in bodies {
        let reply = stage.post("/v1/chat/completions", &body).await;
        assert_ne!(reply.status, 200, "{body}");
        assert!(!reply.text.contains(secret), "{}", reply.text);
        let names: Vec<_> = reply
            .headers
            .values()
            .filter(|value| value.as_bytes().windows(5).any(|part| part == b"xyzzy"))
            .collect();
        assert!(names.is_empty());
    }
}
