//! Cards: what is read from the files beside the weights.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use super::cards::{END_OF_TEXT, IM_END, byte_fallback, byte_level, files, tokenizer, word_piece};
use crate::gateway::text::card::{Card, SamplingDefaults};
use crate::gateway::text::rendering::Here;
use crate::gateway::text::template::Conversation;

fn card(tokenizer: &Value, more: &[(&str, Value)]) -> Card {
    let more: Vec<_> = more.iter().map(|(name, value)| (*name, value.to_string())).collect();
    Card::from_files(&files(tokenizer, &more)).expect("a card")
}

#[test]
fn the_ends_of_an_answer_come_from_both_configurations() {
    let from = |config: Value, generation: Value| {
        card(&byte_level(), &[("tokenizer_config.json", config), ("generation_config.json", generation)])
            .eos_ids
    };
    assert_eq!(from(json!({}), json!({})), Vec::<u32>::new());
    assert_eq!(
        from(json!({"eos_token": "<|im_end|>"}), json!({"eos_token_id": END_OF_TEXT})),
        [IM_END, END_OF_TEXT]
    );
    assert_eq!(
        from(json!({"eos_token": {"content": "<|im_end|>"}}), json!({"eos_token_id": [IM_END]})),
        [IM_END]
    );
    assert_eq!(from(json!({"eos_token": null}), json!({"eos_token_id": null})), Vec::<u32>::new());
    assert_eq!(from(json!({"eos_token": "not in the vocabulary"}), json!({})), Vec::<u32>::new());
}

#[test]
fn the_older_file_of_special_tokens_is_read_too_and_loses() {
    let map = ("special_tokens_map.json", json!({"eos_token": "<|endoftext|>", "bos_token": "<|im_start|>"}));
    let config = ("tokenizer_config.json", json!({"eos_token": "<|im_end|>"}));
    let alone = card(&byte_level(), std::slice::from_ref(&map));
    assert_eq!((alone.bos_id, alone.eos_ids.as_slice()), (Some(265), [END_OF_TEXT].as_slice()));
    let both = card(&byte_level(), &[map, config]);
    assert_eq!((both.bos_id, both.eos_ids.as_slice()), (Some(265), [IM_END].as_slice()));
}

#[test]
fn sampling_defaults_are_the_models_and_greedy_is_greedy() {
    let defaults =
        |generation: Value| card(&byte_level(), &[("generation_config.json", generation)]).defaults;
    assert_eq!(defaults(json!({})), SamplingDefaults::default());
    let all = json!({"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05, "max_length": 9});
    let expected = SamplingDefaults {
        temperature: Some(0.7),
        top_p: Some(0.8),
        top_k: Some(20),
        min_p: Some(0.1),
        repetition_penalty: Some(1.05),
    };
    assert_eq!(defaults(all), expected);
    assert_eq!(defaults(json!({"do_sample": false, "temperature": 0.7})).temperature, Some(0.0));
    assert_eq!(defaults(json!({"do_sample": true})).temperature, None);
}

#[test]
fn the_lengths_of_a_training_run_do_not_cut_a_prompt() {
    // The fixture's file truncates to eight tokens.
    assert_eq!(byte_level()["truncation"]["max_length"], 8);
    let text = "abcdefghijklmnopqrstuvwxyz";
    assert_eq!(card(&byte_level(), &[]).encode(text, false).expect("encodes").len(), text.len());
}

#[test]
fn special_tokens_are_added_to_a_text_where_the_tokenizer_says_so_and_not_to_a_rendered_chat() {
    let card = card(&byte_fallback(), &[]);
    let with = card.encode("hello", true).expect("encodes");
    let without = card.encode("hello", false).expect("encodes");
    assert_eq!((with[0], &with[1..]), (1, without.as_slice()));
}

#[test]
fn control_tokens_in_a_text_are_control_tokens() {
    let card = card(&byte_level(), &[]);
    let ids = card.encode("a<|im_end|>b", false).expect("encodes");
    assert_eq!(ids, [u32::from(b'a'), IM_END, u32::from(b'b')]);
}

#[test]
fn a_token_shows_its_own_bytes_even_where_they_are_no_text() {
    let table = card(&byte_level(), &[]);
    assert_eq!(table.token_bytes(0xC3), [0xC3]);
    assert_eq!(table.token_bytes(IM_END), b"<|im_end|>");
    assert_eq!(table.token_bytes(99_999), b"");
    let fallback = card(&byte_fallback(), &[]);
    assert_eq!(fallback.token_bytes(3 + 0xE4), [0xE4]);
    let pieces = card(&word_piece(), &[]);
    assert_eq!(pieces.token_bytes(1), b"hello");
}

#[test]
fn a_decoder_of_an_unknown_kind_still_decodes() {
    let mut odd = byte_level();
    odd["decoder"] = json!({"type": "Sequence", "decoders": [{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}, {"type": "Fuse"}, {"type": "Strip", "content": "x", "start": 1, "stop": 0}]});
    let card = card(&odd, &[]);
    assert!(card.vocabulary.is_none());
    assert_eq!(card.decode(&[u32::from(b'x'), u32::from(b'y')]), "y");
}

#[test]
fn a_sequence_of_one_decoder_is_that_decoder() {
    let mut wrapped = byte_level();
    wrapped["decoder"] = json!({"type": "Sequence", "decoders": [byte_level()["decoder"]]});
    assert!(card(&wrapped, &[]).vocabulary.is_some());
}

#[test]
fn an_added_token_with_letters_outside_the_alphabet_is_plain_text() {
    let mut with_space = byte_level();
    let added = json!({"id": 268, "content": "<tool call>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false});
    with_space["added_tokens"].as_array_mut().expect("a list").push(added);
    let card = card(&with_space, &[]);
    let ids = card.encode("a<tool call>", false).expect("encodes");
    assert_eq!(ids.len(), 2);
    let table = card.vocabulary.as_ref().expect("a table");
    assert_eq!(table.shown(ids[1]), b"<tool call>");
    assert_eq!(tokenizer(&with_space).decode(&ids, true).expect("decodes"), "a<tool call>");
}

/// The model that ships with the project, as an agent would send its card.
#[test]
fn the_demo_model_can_be_spoken_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/demo_model/weights");
    let names = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
    ];
    let read = |name: &str| (name.to_owned(), Bytes::from(std::fs::read(folder.join(name)).expect(name)));
    let files: BTreeMap<_, _> = names.into_iter().map(read).collect();
    let card = Card::from_files(&files).expect("a card");
    assert!(card.vocabulary.is_some() && !card.eos_ids.is_empty());
    let user = minijinja::Value::from_pairs([("role", "user"), ("content", "Grüezi, 你好 👩\u{200d}🚀")]);
    let talk =
        Conversation { messages: vec![user], tools: None, variables: Vec::new(), now_unix_s: 0, bytes: 0 };
    let prompt = Here::rendered(card.template.as_ref().expect("a template"), talk).expect("renders");
    assert!(prompt.ends_with("assistant\n") && prompt.contains("Grüezi, 你好 👩\u{200d}🚀"));
    let text = "Grüezi, 你好 👩\u{200d}🚀";
    let ids = card.encode(text, false).expect("encodes");
    assert_eq!(card.decode(&ids), text);
}
