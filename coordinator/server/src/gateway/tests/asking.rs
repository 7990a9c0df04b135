//! What reaches the cluster is what the client asked for.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::cards::{self, END_OF_TEXT, IM_END};
use super::stage::{CONTEXT, Stage, ids, model};
use crate::gateway::text::card::Card;

fn text_of(ids: &[u32]) -> String {
    // Control tokens are part of what is compared.
    super::cards::tokenizer(&cards::byte_level()).decode(ids, false).expect("decodes")
}

#[tokio::test]
async fn a_chat_reaches_the_cluster_as_its_rendered_prompt() {
    let stage = Stage::saying("hi");
    let messages = json!([{"role": "developer", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "world"}]}]);
    stage.chat(json!({"messages": messages})).await;
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n\n<|im_start|>user\nhello\nworld<|im_end|>\n\n<|im_start|>assistant\n";
    assert_eq!(text_of(&stage.wishes()[0].prompt), expected);
}

#[tokio::test]
async fn unsaid_sampling_is_the_models_recommendation_then_openais() {
    let stage = Stage::saying("hi");
    stage.chat(json!({"temperature": null})).await;
    let wish = stage.wishes().remove(0);
    let sampling = wish.sampling;
    assert_eq!((sampling.temperature, sampling.top_k), (0.6, 20));
    assert_eq!((sampling.top_p, sampling.min_p, sampling.repetition_penalty), (1.0, 0.0, 1.0));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty, sampling.seed), (0.0, 0.0, None));
    assert_eq!((wish.top_logprobs, wish.stop_ids), (None, vec![IM_END, END_OF_TEXT]));
}

#[tokio::test]
async fn every_sampling_parameter_is_passed_on() {
    let stage = Stage::saying("hi");
    stage
        .chat(json!({
            "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.25, "repetition_penalty": 1.5, "presence_penalty": -2,
            "frequency_penalty": 2, "seed": -1, "logit_bias": {"5": -100, "7": 1.5}, "stop_token_ids": [9], "max_tokens": 3,
            "logprobs": true, "top_logprobs": 4
        }))
        .await;
    let wish = stage.wishes().remove(0);
    let sampling = wish.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p), (0.0, 0.5, 0, 0.25));
    assert_eq!(
        (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty),
        (1.5, -2.0, 2.0)
    );
    let bias: Vec<_> = sampling.logit_bias.iter().map(|bias| (bias.token, bias.bias)).collect();
    assert_eq!((sampling.seed, bias), (Some(u64::MAX), vec![(5, -100.0), (7, 1.5)]));
    assert_eq!(
        (wish.max_tokens, wish.top_logprobs, wish.stop_ids),
        (3, Some(4), vec![9, IM_END, END_OF_TEXT])
    );
}

#[tokio::test]
async fn seeds_of_64_bits_are_kept() {
    let stage = Stage::saying("hi");
    stage.chat(json!({"seed": u64::MAX})).await;
    assert_eq!(stage.wishes()[0].sampling.seed, Some(u64::MAX));
}

#[tokio::test]
async fn several_answers_are_several_wishes_each_with_a_seed_of_its_own() {
    let stage = Stage::saying("hi");
    stage.chat(json!({"n": 3, "seed": 40})).await;
    let wishes = stage.wishes();
    assert_eq!(
        wishes.iter().map(|wish| wish.sampling.seed).collect::<Vec<_>>(),
        [Some(40), Some(41), Some(42)]
    );
    assert!(wishes.iter().all(|wish| wish.prompt == wishes[0].prompt));
}

#[tokio::test]
async fn an_open_length_is_what_the_context_leaves() {
    let stage = Stage::saying("hi");
    stage.complete(json!({"prompt": "hello"})).await;
    stage.complete(json!({"prompt": "hello", "max_tokens": 5})).await;
    stage.chat(json!({"max_completion_tokens": 6})).await;
    let lengths: Vec<_> = stage.wishes().iter().map(|wish| wish.max_tokens).collect();
    assert_eq!(lengths, [u32::try_from(CONTEXT).unwrap() - 1, 5, 6]);
}

#[tokio::test]
async fn each_shape_of_prompt_is_understood() {
    let stage = Stage::saying("hi");
    for prompt in [json!("hello"), json!(["hello", "world"]), json!([1, 2, 3]), json!([[1, 2], [3]])] {
        assert_eq!(stage.complete(json!({"prompt": prompt})).await.status, 200, "{prompt}");
    }
    let prompts: Vec<_> = stage.wishes().into_iter().map(|wish| wish.prompt).collect();
    assert_eq!(prompts, [ids("hello"), ids("hello"), ids("world"), vec![1, 2, 3], vec![1, 2], vec![3]]);
}

#[tokio::test]
async fn an_empty_prompt_begins_with_the_models_first_token() {
    let stage = Stage::saying("hi");
    assert_eq!(stage.complete(json!({"prompt": ""})).await.status, 200);
    assert_eq!(stage.wishes()[0].prompt, [END_OF_TEXT]);
}

#[tokio::test]
async fn the_first_token_is_added_to_a_text_and_never_doubled_in_a_chat() {
    let template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}".to_owned();
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}).to_string();
    let card = Card::from_files(&cards::files(&cards::byte_fallback(), &[("tokenizer_config.json", config)]))
        .expect("a card");
    let stage = Stage::with(|_, _| super::stage::said("hi"), vec![model("demo", Some(card.into()))]);
    stage.complete(json!({"prompt": "hello"})).await;
    stage.chat(json!({})).await;
    for wish in stage.wishes() {
        assert_eq!(wish.prompt.iter().filter(|id| **id == 1).count(), 1);
        assert_eq!(wish.prompt[0], 1);
    }
}

#[tokio::test]
async fn a_100_kb_prompt_is_a_prompt() {
    let mut long = model("demo", Some(cards::chatting()));
    long.facts.as_mut().unwrap().context_length = 1_000_000;
    let stage = Stage::with(|_, _| super::stage::said("hi"), vec![long]);
    let text = "hello world, ".repeat(8_000);
    let reply = stage.chat(json!({"messages": [{"role": "user", "content": text}]})).await;
    assert_eq!(reply.status, 200);
    assert!(text_of(&stage.wishes()[0].prompt).contains(text.trim()));
}

#[tokio::test]
async fn variables_of_the_client_reach_the_template() {
    let template = "{{ messages[0].content }}|{{ mode }}|{{ reasoning_effort }}".to_owned();
    let config = json!({"chat_template": template}).to_string();
    let card = Card::from_files(&cards::files(&cards::byte_level(), &[("tokenizer_config.json", config)]))
        .expect("a card");
    let stage = Stage::with(|_, _| super::stage::said("hi"), vec![model("demo", Some(card.into()))]);
    stage.chat(json!({"chat_template_kwargs": {"mode": "fast"}, "reasoning_effort": "low"})).await;
    assert_eq!(text_of(&stage.wishes()[0].prompt), "hello|fast|low");
}

#[tokio::test]
async fn earlier_tool_calls_reach_the_template_as_objects() {
    let template = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{{ m.content or '-' }};{% endfor %}";
    let config = json!({"chat_template": template}).to_string();
    let card = Card::from_files(&cards::files(&cards::byte_level(), &[("tokenizer_config.json", config)]))
        .expect("a card");
    let stage = Stage::with(|_, _| super::stage::said("hi"), vec![model("demo", Some(card.into()))]);
    let call = |arguments: &str| json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let messages = json!([
        {"role": "assistant", "content": null, "refusal": null, "annotations": [], "tool_calls": [call("{\"z\": 1, \"a\": [true]}"), call("broken")]},
        {"role": "tool", "tool_call_id": "c", "content": "42"}
    ]);
    let reply = stage.chat(json!({"messages": messages})).await;
    assert_eq!(text_of(&stage.wishes()[0].prompt), "f{\"z\": 1, \"a\": [true]}f\"broken\"-;42;");
    assert_eq!(reply.header("x-mlx-ignored-params"), Some("messages.annotations"));
}

#[tokio::test(start_paused = true)]
async fn the_clients_patience_is_the_wishs_deadline() {
    let stage = Stage::saying("hi");
    let body = super::stage::chat_body(json!({})).to_string();
    let request =
        super::stage::request("POST", "/v1/chat/completions").header("x-stainless-read-timeout", "12");
    let asked = Instant::now();
    stage.send(request.body(body.into()).unwrap()).await;
    assert_eq!(stage.wishes()[0].deadline, asked + Duration::from_secs(12));
}
