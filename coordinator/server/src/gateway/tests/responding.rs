//! `/v1/responses` for a client that waits: the answer of a chat in its other form, and only what was asked for is kept.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};

use super::stage::{Act, Reply, Stage, dispatched, finished, ids, queued, request, said, tokens};
use crate::generation::{Event, Failure, FinishReason};

impl Stage {
    pub(super) async fn respond(&self, more: Value) -> Reply {
        self.post("/v1/responses", &responding(more)).await
    }

    pub(super) async fn with_key_respond(&self, bearer: &str, more: Value) -> Reply {
        self.with_key("POST", "/v1/responses", bearer, Some(&responding(more))).await
    }

    pub(super) async fn of(&self, bearer: &str, method: &str, id: &str, rest: &str) -> Reply {
        self.with_key(method, &format!("/v1/responses/{id}{rest}"), bearer, None).await
    }
}

pub(super) fn responding(more: Value) -> Value {
    let mut body = json!({"model": "demo", "input": "hello"});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    body
}

pub(super) fn id_of(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

pub(super) fn text_of(object: &Value) -> String {
    object["output"][0]["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// The events of a stream, each checked to be named as it says.
pub(super) fn told(text: &str) -> Vec<Value> {
    let events = text.split("\n\n").filter(|event| event.starts_with("event: "));
    let parsed = events.map(|event| {
        let (name, data) = event.split_once("\ndata: ").expect("data");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(format!("event: {}", data["type"].as_str().unwrap()), name);
        data
    });
    parsed.collect()
}

pub(super) fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

/// Numbered without a gap, and as long as it is not over.
pub(super) fn deltas(events: &[Value]) -> String {
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], events[0]["sequence_number"].as_u64().unwrap() + number as u64);
    }
    let of_text = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    of_text.map(|event| event["delta"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_whole_answer_has_every_key_that_clients_read() {
    let reply =
        Stage::saying("hello world").respond(json!({"metadata": {"team": "red"}, "temperature": 0.5})).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
    let object = reply.json();
    let (id, at) = (id_of(&object), object["created_at"].as_u64().expect("a time"));
    assert!(id.starts_with("resp_"));
    let item = format!("msg_{}", id.trim_start_matches("resp_"));
    let usage = &object["usage"];
    let mut expected = json!({
        "id": id, "object": "response", "created_at": at, "completed_at": object["completed_at"], "status": "completed",
        "background": false, "store": false, "error": null, "incomplete_details": null, "instructions": null,
        "max_output_tokens": null, "max_tool_calls": null, "model": "demo", "metadata": {"team": "red"}, "usage": usage,
        "previous_response_id": null, "prompt_cache_key": null, "safety_identifier": null,
    });
    let more = json!({
        "parallel_tool_calls": true, "reasoning": {"effort": null, "summary": null}, "service_tier": "default",
        "temperature": 0.5, "top_p": 1.0, "top_logprobs": 0, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [], "truncation": "disabled", "user": null,
    });
    let content = json!([{"type": "output_text", "text": "hello world", "annotations": [], "logprobs": []}]);
    expected["output"] = json!([{"type": "message", "id": item, "status": "completed", "role": "assistant", "content": content}]);
    expected.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    assert_eq!(object, expected);
    let total = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(
        (&usage["total_tokens"], &usage["input_tokens_details"]),
        (&json!(total), &json!({"cached_tokens": 3, "cache_write_tokens": 0}))
    );
    assert_eq!((reply.header("x-mlx-request"), reply.header("x-mlx-node")), (Some("41"), Some("7")));
}

#[tokio::test]
async fn a_stream_tells_the_same_story_event_by_event() {
    let stage = Stage::saying("hello world");
    let reply = stage.respond(json!({"stream": true})).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = told(&reply.text);
    let mut expected = vec!["created", "in_progress", "output_item.added", "content_part.added"];
    let pieces = events.iter().filter(|event| event["type"] == "response.output_text.delta").count();
    expected.extend(std::iter::repeat_n("output_text.delta", pieces));
    expected.extend(["output_text.done", "content_part.done", "output_item.done", "completed"]);
    assert_eq!(kinds(&events), expected);
    assert_eq!(deltas(&events), "hello world");
    let last = &events[events.len() - 1]["response"];
    assert_eq!((text_of(last), &last["status"]), ("hello world".to_owned(), &json!("completed")));
    assert_eq!(last["output"][0], events[events.len() - 2]["item"]);
    assert_eq!(events[0]["response"]["status"], "in_progress");
    assert!(!reply.broke && !reply.text.contains("[DONE]"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_says_so_and_never_looks_complete() {
    let lost = Act::Event(Event::Failed(Failure::NodeLost { began: true }));
    let script =
        vec![queued(2, None), Act::Pause(Duration::from_secs(30)), dispatched(7), tokens(&ids("hel")), lost];
    let stage = Stage::playing(move |_, _| script.clone());
    for store in [false, true] {
        let reply = stage.respond(json!({"stream": true, "store": store})).await;
        let events = told(&reply.text);
        let last = events.last().expect("an event");
        assert_eq!(
            (&last["type"], &last["code"], &last["error"]["code"]),
            (&json!("error"), &json!("stream_lost"), &json!("stream_lost"))
        );
        assert!(reply.broke && !reply.text.contains("response.completed"), "{}", reply.text);
        assert_eq!(deltas(&events), "hel");
        assert!(!reply.comments().is_empty(), "it was not silent while it waited");
    }
    assert_eq!(stage.facts.now().jobs().count(), 0);
}

#[tokio::test]
async fn an_answer_that_is_as_long_as_it_may_be_is_incomplete() {
    let stage =
        Stage::playing(|_, _| vec![dispatched(7), tokens(&ids("hel")), finished(FinishReason::Length, 3)]);
    let whole = stage.respond(json!({"max_output_tokens": 3})).await.json();
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
    assert_eq!((&whole["output"][0]["status"], &whole["completed_at"]), (&json!("incomplete"), &Value::Null));
    let events = told(&stage.respond(json!({"max_output_tokens": 3, "stream": true})).await.text);
    assert_eq!(kinds(&events).last(), Some(&"incomplete"));
    assert_eq!(stage.wishes()[0].max_tokens, 3);
}

#[tokio::test]
async fn items_become_the_prompt_that_a_chat_with_the_same_words_has() {
    let stage = Stage::saying("hi");
    let reply = stage
        .respond(json!({
            "instructions": "be brief",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hello"}, {"type": "input_text", "text": "world"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "short"}]},
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "ok", "annotations": [], "logprobs": []}]},
                {"role": "developer", "content": "be kind"},
                {"role": "user", "content": "bye"},
            ],
        }))
        .await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
    let chat = [
        ("system", "be brief"),
        ("user", "hello\nworld"),
        ("assistant", "ok"),
        ("developer", "be kind"),
        ("user", "bye"),
    ];
    let chat: Vec<_> = chat.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    stage.chat(json!({"messages": chat})).await;
    let wishes = stage.wishes();
    assert_eq!(wishes[0].prompt, wishes[1].prompt);
    assert_eq!(wishes[0].sampling, wishes[1].sampling);
    let called = stage
        .respond(json!({"input": [
            {"role": "user", "content": "hello"},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "nothing"},
        ]}))
        .await;
    assert_eq!(called.status.as_u16(), 200, "{}", called.text);
}

#[tokio::test]
async fn what_would_change_the_answer_is_refused_by_its_name() {
    let stage = Stage::saying("hi");
    for (more, param, code) in [
        (json!({"input": null}), "input", "missing_required_parameter"),
        (json!({"input": 7}), "input", "invalid_type"),
        (json!({"input": []}), "input", "invalid_value"),
        (json!({"input": [{"role": "robot", "content": "a"}]}), "input[0].role", "invalid_value"),
        (json!({"input": [{"role": "user"}]}), "input[0].content", "missing_required_parameter"),
        (
            json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
            "input[0].type",
            "unsupported_parameter",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}),
            "input[0].content[0]",
            "unsupported_parameter",
        ),
        (
            json!({"input": [{"role": "user", "content": "a", "tools": 1}]}),
            "input[0].tools",
            "unsupported_parameter",
        ),
        (json!({"tools": [{"type": "function", "name": "look"}]}), "tools", "unsupported_parameter"),
        (json!({"tool_choice": "required"}), "tool_choice", "unsupported_parameter"),
        (json!({"text": {"format": {"type": "json_object"}}}), "text.format", "unsupported_parameter"),
        (json!({"text": {"verbosity": "low"}}), "text.verbosity", "unsupported_parameter"),
        (json!({"reasoning": {"effort": "low"}}), "reasoning.effort", "unsupported_parameter"),
        (json!({"include": ["message.output_text.logprobs"]}), "include", "unsupported_parameter"),
        (json!({"top_logprobs": 2}), "top_logprobs", "unsupported_parameter"),
        (json!({"conversation": "conv_1"}), "conversation", "unsupported_parameter"),
        (json!({"prompt": {"id": "p"}}), "prompt", "unsupported_parameter"),
        (json!({"max_tokens": 5}), "max_tokens", "unsupported_parameter"),
        (json!({"max_output_tokens": 0}), "max_output_tokens", "invalid_value"),
        (json!({"max_output_tokens": 9_999}), "input", "context_length_exceeded"),
        (json!({"truncation": "always"}), "truncation", "invalid_value"),
        (json!({"metadata": {"a": 1}}), "metadata", "invalid_value"),
        (json!({"background": true, "store": false}), "store", "invalid_value"),
        (json!({"temperature": 3}), "temperature", "invalid_value"),
        (json!({"model": "nobody"}), "model", "model_not_found"),
        (json!({"previous_response_id": "resp_0"}), "previous_response_id", "not_found"),
    ] {
        let reply = stage.respond(more.clone()).await;
        let error = &reply.json()["error"];
        assert_eq!((&error["param"], &error["code"]), (&json!(param), &json!(code)), "{more}");
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{more}");
    }
    assert!(stage.wishes().is_empty());
}

#[tokio::test]
async fn hints_that_nobody_uses_are_named() {
    let more = json!({
        "safety_identifier": "s", "truncation": "auto", "include": ["reasoning.encrypted_content"], "parallel_tool_calls": false,
        "reasoning": {"summary": "auto"}, "stream_options": {"include_obfuscation": false}, "user": "u",
        "tools": [{"type": "function", "name": "look"}], "tool_choice": "none",
    });
    let reply = Stage::saying("hi").respond(more).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text);
    let named = "stream_options.include_obfuscation, reasoning.summary, tools, include, truncation, parallel_tool_calls, safety_identifier";
    assert_eq!(reply.header("x-mlx-ignored-params"), Some(named));
    assert_eq!((&reply.json()["tool_choice"], &reply.json()["user"]), (&json!("none"), &json!("u")));
}

#[tokio::test]
async fn only_what_is_to_be_stored_is_found_again_and_by_nobody_else() {
    let stage = Stage::saying("hello world");
    let other = stage.beside(2, |_, _| said("never"));
    let unstored = id_of(&stage.with_key_respond("a", json!({})).await.json());
    assert_eq!(stage.of("a", "GET", &unstored, "").await.status, 404);
    assert_eq!(stage.drawer.count(), 0);
    for stream in [false, true] {
        let reply = stage.with_key_respond("a", json!({"store": true, "stream": stream})).await;
        let object = match stream {
            false => reply.json(),
            true => told(&reply.text).last().expect("an event")["response"].clone(),
        };
        assert_eq!(
            (&object["store"], &object["status"]),
            (&json!(true), &json!("completed")),
            "{}",
            reply.text
        );
        let id = id_of(&object);
        assert_eq!(other.of("a", "GET", &id, "").await.json(), object);
        assert_eq!(other.of("b", "GET", &id, "").await.error_code(), "not_found");
        let told_again = other.of("a", "GET", &id, "?stream=true&starting_after=1").await;
        let events = told(&told_again.text);
        assert_eq!((deltas(&events).as_str(), &events[0]["sequence_number"]), ("hello world", &json!(2)));
        if stream {
            assert!(reply.text.ends_with(&told_again.text), "to the byte");
        }
        assert_eq!(stage.of("a", "POST", &id, "/cancel").await.json()["error"]["code"], "invalid_value");
        assert_eq!(stage.of("b", "DELETE", &id, "").await.status, 404);
        let deleted = stage.of("a", "DELETE", &id, "").await.json();
        assert_eq!(deleted, json!({"id": id, "object": "response", "deleted": true}));
        assert_eq!(other.of("a", "GET", &id, "").await.status, 404);
    }
}

#[tokio::test]
async fn a_response_that_follows_another_reads_all_that_was_said_before() {
    let stage = Stage::saying("ok");
    let first =
        id_of(&stage.with_key_respond("a", json!({"store": true, "instructions": "be brief"})).await.json());
    let more = json!({"store": true, "previous_response_id": first, "input": "and then"});
    let second = stage.with_key_respond("a", more).await.json();
    assert_eq!(second["previous_response_id"], json!(first));
    let third = json!({"previous_response_id": id_of(&second), "input": "bye"});
    assert_eq!(stage.with_key_respond("b", third.clone()).await.error_code(), "not_found");
    stage.with_key_respond("a", third).await;
    let words =
        [("user", "hello"), ("assistant", "ok"), ("user", "and then"), ("assistant", "ok"), ("user", "bye")];
    let chat: Vec<_> =
        words.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    stage.chat(json!({"messages": chat})).await;
    let wishes = stage.wishes();
    assert_eq!(wishes[2].prompt, wishes[3].prompt, "without the instructions of the first");
    let items = stage.of("a", "GET", &id_of(&second), "/input_items?order=asc&limit=2").await.json();
    assert_eq!(
        (&items["has_more"], &items["data"][0]["content"][0]["text"]),
        (&json!(true), &json!("hello"))
    );
    assert_eq!(items["data"][1]["role"], "assistant");
    let newest = stage.of("a", "GET", &id_of(&second), "/input_items").await.json();
    assert_eq!(
        (&newest["data"][0]["content"][0]["text"], newest["data"].as_array().map(Vec::len)),
        (&json!("and then"), Some(3))
    );
    let after = newest["first_id"].as_str().expect("an id");
    let rest = stage.of("a", "GET", &id_of(&second), &format!("/input_items?after={after}")).await.json();
    assert_eq!(rest["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(stage.of("a", "GET", &first, "/input_items?limit=0").await.error_code(), "invalid_value");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_stored_never_looks_complete() {
    let stage = Stage::saying("hello world");
    stage.drawer.full.store(true, Ordering::Relaxed);
    assert_eq!(stage.respond(json!({"store": true})).await.error_code(), "storage_full");
    stage.drawer.full.store(false, Ordering::Relaxed);
    let unknown = || consensus::ProposeError::OutcomeUnknown("no majority".to_owned());
    for stream in [false, true] {
        stage.facts.fail_with(std::iter::repeat_with(unknown).take(1_000).collect());
        let reply = stage.respond(json!({"store": true, "stream": stream})).await;
        assert!(!reply.text.contains("response.completed"), "{}", reply.text);
        assert_eq!((reply.broke, reply.text.contains("outcome_unknown")), (stream, true), "{}", reply.text);
        stage.facts.fail_with(Vec::new());
    }
    stage.facts.set_back();
    let old = stage.respond(json!({"store": true})).await;
    assert_eq!((old.status.as_u16(), old.error_code().as_str()), (503, "cluster_updating"));
    assert_eq!(stage.respond(json!({})).await.status, 200, "what is not kept needs nobody");
}

#[tokio::test]
async fn no_word_of_a_client_is_in_the_facts_nor_in_an_error() {
    let stage = Stage::saying("hello world");
    let secret = "xyzzy-plugh";
    let more = json!({"store": true, "input": secret, "instructions": secret, "metadata": {"a": secret}});
    let id = id_of(&stage.respond(more).await.json());
    let facts = serde_json::to_string(stage.facts.now().as_ref()).expect("JSON");
    assert!(!facts.contains(secret) && !facts.contains(&id), "{facts}");
    for input in [
        json!([{"role": secret}]),
        json!([secret]),
        json!({"a": secret}),
        json!([{"role": "user", "content": [{"type": "text"}, secret]}]),
    ] {
        let reply = stage.respond(json!({"input": input, "metadata": {"a": secret}})).await;
        // A role that is none is named, as in a chat.
        assert!(
            reply.status == 400 && (!reply.text.contains(secret) || reply.text.contains("role")),
            "{}",
            reply.text
        );
    }
}

#[tokio::test]
async fn other_ways_to_a_response_that_is_none_are_refused_alike() {
    let stage = Stage::saying("hi");
    for (method, rest) in
        [("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
    {
        let reply = stage.of("a", method, "resp_0", rest).await;
        assert_eq!(
            (reply.status.as_u16(), reply.error_code().as_str()),
            (404, "not_found"),
            "{method} {rest}"
        );
    }
    let id = id_of(&stage.with_key_respond("a", json!({"store": true})).await.json());
    for rest in
        ["?starting_after=3", "?nonsense=1", "?stream=true&starting_after=-1", "/input_items?order=up"]
    {
        assert_eq!(stage.of("a", "GET", &id, rest).await.error_code(), "invalid_value", "{rest}");
    }
    let (_, reader) = stage.new_key(&json!({"name": "reader", "scopes": ["read"]})).await;
    assert_eq!(stage.of(&reader, "GET", &id, "").await.status, 403);
    assert_eq!(stage.respond(json!({})).await.status, 401, "there is a key by now");
    let keyless = request("POST", &format!("/v1/responses/{id}/cancel")).body(Body::empty()).unwrap();
    assert_eq!(stage.send(keyless).await.status, 401);
}
