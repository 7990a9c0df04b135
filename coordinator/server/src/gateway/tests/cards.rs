//! Small real tokenizers of each decoder's kind, and cards around them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::gateway::text::card::Card;

pub(super) const IM_START: u32 = 265;
pub(super) const IM_END: u32 = 266;
pub(super) const END_OF_TEXT: u32 = 267;
pub(super) const CHAT: &str = include_str!("templates/chatml.jinja");

/// GPT-2's alphabet: the character that stands for each byte.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let moved = (0..byte).filter(|byte| !printable(*byte)).count();
    let code = if printable(byte) { u32::from(byte) } else { 256 + u32::try_from(moved).unwrap() };
    char::from_u32(code).unwrap()
}

fn special(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

/// Byte-level BPE: one id for each byte (its own number), a few merges, ChatML's control tokens after them.
pub(crate) fn byte_level() -> Value {
    let mut vocabulary: BTreeMap<String, u32> =
        (0..=255).map(|byte| (letter(byte).to_string(), u32::from(byte))).collect();
    let mut merges = Vec::new();
    let pairs = [
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("hell", "o"),
        ("\u{120}", "w"),
        ("o", "r"),
        ("l", "d"),
        ("\u{c3}", "\u{bc}"),
        ("\u{f0}", "\u{141}"),
    ];
    for (id, (left, right)) in (256..).zip(pairs) {
        vocabulary.insert(format!("{left}{right}"), id);
        merges.push(json!([left, right]));
    }
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [special(IM_START, "<|im_start|>"), special(IM_END, "<|im_end|>"), special(END_OF_TEXT, "<|endoftext|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": merges}
    })
}

/// Sentencepiece BPE with byte fallback, as Llama 2 and Mistral have it: `<s>` is 1, `</s>` is 2, byte b is 3 + b.
pub(super) fn byte_fallback() -> Value {
    let mut vocabulary: BTreeMap<String, u32> =
        [("<unk>".to_owned(), 0), ("<s>".to_owned(), 1), ("</s>".to_owned(), 2)].into();
    vocabulary.extend((0..=255_u32).map(|byte| (format!("<0x{byte:02X}>"), byte + 3)));
    let singles = "\u{2581}abcdefghijklmnopqrstuvwxyzT0123456789.,:'".chars().map(String::from);
    let words = ["\u{2581}h", "\u{2581}he", "ll", "\u{2581}hell", "\u{2581}hello"].map(str::to_owned);
    for piece in singles.chain(words) {
        let id = u32::try_from(vocabulary.len()).unwrap();
        vocabulary.insert(piece, id);
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary,
            "merges": [["\u{2581}", "h"], ["\u{2581}h", "e"], ["l", "l"], ["\u{2581}he", "ll"], ["\u{2581}hell", "o"]]}
    })
}

/// Word pieces: a decoder without a table.
pub(super) fn word_piece() -> Value {
    let pieces = [
        "[UNK]", "hello", "world", "##s", "##ly", ".", ",", "friend", "\u{4f60}", "\u{597d}", "!", "don",
        "##t",
    ];
    let vocabulary: BTreeMap<_, _> = pieces.into_iter().zip(0..).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "[UNK]")],
        "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary}
    })
}

/// The tokenizer itself, to compare with.
pub(super) fn tokenizer(json: &Value) -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).expect("a tokenizer");
    tokenizer.with_padding(None).with_truncation(None).expect("no truncation");
    tokenizer
}

pub(crate) fn files(tokenizer: &Value, more: &[(&str, String)]) -> BTreeMap<String, Bytes> {
    let own = std::iter::once(("tokenizer.json", tokenizer.to_string()));
    own.chain(more.iter().map(|(name, text)| (*name, text.clone())))
        .map(|(name, text)| (name.to_owned(), Bytes::from(text)))
        .collect()
}

pub(super) fn bare(tokenizer: &Value) -> Arc<Card> {
    Arc::new(Card::from_files(&files(tokenizer, &[])).expect("a card"))
}

/// A chatting model over the byte-level tokenizer, read once.
pub(super) fn chatting() -> Arc<Card> {
    static CARD: LazyLock<Arc<Card>> = LazyLock::new(|| {
        let config = json!({"eos_token": {"content": "<|im_end|>"}, "bos_token": "<|endoftext|>"});
        let generation = json!({"eos_token_id": [IM_END, END_OF_TEXT], "temperature": 0.6, "top_k": 20, "do_sample": true});
        let more = [
            ("tokenizer_config.json", config.to_string()),
            ("generation_config.json", generation.to_string()),
            ("chat_template.jinja", CHAT.to_owned()),
        ];
        Arc::new(Card::from_files(&files(&byte_level(), &more)).expect("a card"))
    });
    CARD.clone()
}
