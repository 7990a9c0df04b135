//! Text does not depend on how the ids were cut, and is the tokenizer's own.

use proptest::prelude::*;
use serde_json::Value;

use super::cards::{END_OF_TEXT, IM_END, IM_START, bare, byte_fallback, byte_level, tokenizer, word_piece};
use crate::gateway::limits;
use crate::gateway::text::detokenizer::{Detokenizer, Start};

/// All that comes out, and every piece on its own.
fn streamed(tokenizer: &Value, ids: &[u32], start: Start) -> (String, Vec<String>) {
    let mut detokenizer = Detokenizer::new(bare(tokenizer), start, &[]);
    let mut pieces = Vec::new();
    for id in ids {
        let mut piece = String::new();
        detokenizer.push(*id, &mut piece);
        pieces.push(piece);
    }
    let mut last = String::new();
    detokenizer.finish(&mut last);
    pieces.push(last);
    (pieces.concat(), pieces)
}

fn encoded(json: &Value, text: &str) -> Vec<u32> {
    tokenizer(json).encode(text, false).expect("encodes").get_ids().to_vec()
}

const SAMPLES: [&str; 6] = [
    "hello world",
    "h\u{fc}ll\u{f6} \u{4f60}\u{597d}",
    "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467} family",
    " leading and trailing ",
    "line\n\tend\r\n",
    "hello hello, 42",
];

#[test]
fn text_comes_out_as_it_went_in() {
    for json in [byte_level(), byte_fallback()] {
        for sample in SAMPLES {
            let (text, _) = streamed(&json, &encoded(&json, sample), Start::Fresh);
            assert_eq!(text, sample);
        }
    }
}

#[test]
fn half_a_character_waits_for_its_other_half() {
    let json = byte_level();
    let (_, pieces) = streamed(&json, &[0xE4, 0xBD, 0xA0, u32::from(b'!')], Start::Fresh);
    assert_eq!(pieces, ["", "", "\u{4f60}", "!", ""]);
}

#[test]
fn an_unfinished_character_ends_as_one_replacement_character() {
    let (text, pieces) = streamed(&byte_level(), &[u32::from(b'a'), 0xF0, 0x9F], Start::Fresh);
    assert_eq!((text.as_str(), pieces.last().unwrap().as_str()), ("a\u{fffd}", "\u{fffd}"));
}

#[test]
fn special_tokens_are_not_shown_and_unknown_ids_are_nothing() {
    let (text, _) = streamed(
        &byte_level(),
        &[IM_START, u32::from(b'a'), IM_END, END_OF_TEXT, 9_999, u32::from(b'b')],
        Start::Fresh,
    );
    assert_eq!(text, "ab");
}

#[test]
fn a_fresh_answer_loses_the_space_that_its_tokenizer_adds_and_a_continued_one_keeps_it() {
    let json = byte_fallback();
    let ids = encoded(&json, "hello hello");
    assert_eq!(streamed(&json, &ids, Start::Fresh).0, "hello hello");
    assert_eq!(streamed(&json, &ids, Start::Continuing).0, " hello hello");
}

#[test]
fn where_there_is_no_table_a_continued_answer_knows_what_stood_before() {
    let json = word_piece();
    let ids = encoded(&json, "hello friends");
    let (prompt, answer) = ids.split_at(1);
    let mut detokenizer = Detokenizer::new(bare(&json), Start::Continuing, prompt);
    let mut text = String::new();
    answer.iter().for_each(|id| detokenizer.push(*id, &mut text));
    detokenizer.finish(&mut text);
    assert_eq!(text, " friends");
}

#[test]
fn tables_are_used_where_decoding_is_concatenation_and_only_there() {
    assert!(bare(&byte_level()).vocabulary.is_some());
    assert!(bare(&byte_fallback()).vocabulary.is_some_and_strips());
    assert!(bare(&word_piece()).vocabulary.is_none());
    let mut other = byte_fallback();
    other["decoder"]["decoders"][3]["start"] = 2.into();
    assert!(bare(&other).vocabulary.is_none());
}

trait StripsFirstSpace {
    fn is_some_and_strips(&self) -> bool;
}

impl StripsFirstSpace for Option<crate::gateway::text::vocabulary::Vocabulary> {
    fn is_some_and_strips(&self) -> bool {
        self.as_ref().is_some_and(|table| table.strips_first_space)
    }
}

#[test]
fn a_run_that_never_becomes_text_is_shown_within_the_window() {
    // A word-piece tokenizer that has the replacement character itself: nothing may wait for ever.
    let mut json = word_piece();
    json["model"]["vocab"]["##\u{fffd}"] = 50.into();
    let (_, pieces) = streamed(&json, &[1, 50, 50, 50, 50, 50, 50, 50], Start::Fresh);
    let shown: usize = pieces.iter().take(1 + limits::DECODE_WINDOW).map(String::len).sum();
    assert!(shown > "hello".len(), "{pieces:?}");
}

proptest! {
    #[test]
    fn byte_level_text_is_the_tokenizers_own_for_any_ids(ids in prop::collection::vec(0_u32..270, 0..60)) {
        let json = byte_level();
        let (text, _) = streamed(&json, &ids, Start::Fresh);
        prop_assert_eq!(text, tokenizer(&json).decode(&ids, true).unwrap());
    }

    #[test]
    fn byte_fallback_text_is_the_tokenizers_own_for_any_text(text in "\\PC{0,40}") {
        let json = byte_fallback();
        let ids = encoded(&json, &text);
        let (streamed, _) = streamed(&json, &ids, Start::Fresh);
        prop_assert_eq!(streamed, tokenizer(&json).decode(&ids, true).unwrap());
    }

    #[test]
    fn word_pieces_are_the_tokenizers_own_for_any_ids(ids in prop::collection::vec(1_u32..13, 0..40)) {
        let json = word_piece();
        let (text, _) = streamed(&json, &ids, Start::Fresh);
        prop_assert_eq!(text, tokenizer(&json).decode(&ids, true).unwrap());
    }

    #[test]
    fn what_was_shown_is_never_taken_back(ids in prop::collection::vec(0_u32..260, 0..40), cut in 0_usize..40) {
        let json = byte_fallback();
        let cut = cut.min(ids.len());
        let (_, pieces) = streamed(&json, &ids, Start::Fresh);
        let (_, shorter) = streamed(&json, &ids[..cut], Start::Fresh);
        prop_assert_eq!(&pieces[..cut], &shorter[..cut]);
    }
}
