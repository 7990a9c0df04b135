//! Token ids to bytes, by table.
//!
//! Owns one table for each tokenizer whose decoder is a plain concatenation: byte-level BPE (GPT, Llama 3, Qwen) and
//! sentencepiece with byte fallback (Llama 2, Mistral, Gemma). Refuses every other decoder, and any table that does not
//! reproduce the tokenizer's own decoding of a sample: those are decoded through the tokenizer, more slowly.

use std::collections::BTreeSet;

use serde::Deserialize;
use tokenizers::Tokenizer;

/// Text that exercises what tables get wrong: spaces, digits, accents, scripts without a vocabulary, an emoji of many bytes.
const SAMPLE: &str = "The quick brown fox, 42 times: don't \u{fc}ber\u{2026} \u{4f60}\u{597d} \u{1f469}\u{200d}\u{1f680}\n\tend";

/// What each token adds to the text.
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where the token's bytes end; they begin where the one before it ends.
    ends: Vec<u32>,
    special: BTreeSet<u32>,
    /// The decoder takes one space off the beginning of a text.
    pub(crate) strips_first_space: bool,
}

/// How a decoder makes bytes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Each character stands for one byte (the GPT-2 alphabet).
    ByteLevel,
    /// `▁` is a space, `<0x0A>` a byte.
    Sentencepiece { strips_first_space: bool },
}

impl Vocabulary {
    /// `None` when the decoder is of another kind.
    pub(crate) fn read(tokenizer: &Tokenizer, tokenizer_json: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(tokenizer_json).ok()?;
        let table = Self::build(tokenizer, file.decoder?.style()?)?;
        table.agrees_with(tokenizer).then_some(table)
    }

    /// The bytes of a token, special or not; empty for an unknown id.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        let Ok(at) = usize::try_from(id) else { return &[] };
        let end = self.ends.get(at).copied().unwrap_or(0);
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.bytes.get(index(start)..index(end)).unwrap_or_default()
    }

    /// The bytes a token adds to an answer: special tokens are not shown.
    pub(crate) fn shown(&self, id: u32) -> &[u8] {
        if self.special.contains(&id) { &[] } else { self.bytes(id) }
    }

    fn build(tokenizer: &Tokenizer, style: Style) -> Option<Self> {
        let specials = tokenizer.get_added_tokens_decoder();
        let last = tokenizer.get_vocab(true).into_values().max()?;
        let letters = letters();
        let mut table = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(index(last) + 1),
            special: specials.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect(),
            strips_first_space: style == Style::Sentencepiece { strips_first_space: true },
        };
        for id in 0..=last {
            let token = tokenizer.id_to_token(id).unwrap_or_default();
            match style {
                Style::ByteLevel => table.push_byte_level(&token, &letters),
                Style::Sentencepiece { .. } => table.push_sentencepiece(&token),
            }
            table.ends.push(u32::try_from(table.bytes.len()).ok()?);
        }
        Some(table)
    }

    fn push_byte_level(&mut self, token: &str, letters: &[Option<u8>]) {
        let start = self.bytes.len();
        for char in token.chars() {
            let byte =
                usize::try_from(u32::from(char)).ok().and_then(|at| letters.get(at).copied().flatten());
            let Some(byte) = byte else {
                // One foreign character makes the whole token plain text (added tokens).
                self.bytes.truncate(start);
                self.bytes.extend_from_slice(token.as_bytes());
                return;
            };
            self.bytes.push(byte);
        }
    }

    fn push_sentencepiece(&mut self, token: &str) {
        let hex =
            token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => self.bytes.push(byte),
            None => self.bytes.extend_from_slice(token.replace('\u{2581}', " ").as_bytes()),
        }
    }

    fn agrees_with(&self, tokenizer: &Tokenizer) -> bool {
        let Ok(sample) = tokenizer.encode_fast(SAMPLE, false) else { return false };
        let bytes: Vec<u8> = sample.get_ids().iter().flat_map(|id| self.shown(*id)).copied().collect();
        let mine = String::from_utf8_lossy(&bytes);
        let mine = if self.strips_first_space { mine.strip_prefix(' ').unwrap_or(&mine) } else { &mine };
        tokenizer.decode(sample.get_ids(), true).is_ok_and(|theirs| theirs == mine)
    }
}

fn index(small: u32) -> usize {
    usize::try_from(small).unwrap_or(usize::MAX)
}

/// GPT-2's alphabet, inverted: printable Latin-1 stands for itself, the other bytes for 256, 257, … in order.
fn letters() -> Vec<Option<u8>> {
    let mut letters = vec![None; 512];
    let mut moved: usize = 256;
    for byte in 0..=u8::MAX {
        let itself = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let at = if itself { usize::from(byte) } else { moved };
        moved += usize::from(!itself);
        if let Some(letter) = letters.get_mut(at) {
            *letter = Some(byte);
        }
    }
    letters
}

/// The one part of `tokenizer.json` that tells the style.
#[derive(Deserialize)]
struct File {
    decoder: Option<Decoder>,
}

#[derive(Deserialize)]
struct Decoder {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    decoders: Vec<Decoder>,
    pattern: Option<serde_json::Value>,
    content: Option<String>,
    start: Option<u32>,
    stop: Option<u32>,
}

impl Decoder {
    fn style(&self) -> Option<Style> {
        match (self.kind.as_str(), self.decoders.as_slice()) {
            ("ByteLevel", _) => Some(Style::ByteLevel),
            ("Sequence", [one]) => one.style(),
            ("Sequence", [replace, bytes, fuse, rest @ ..]) => {
                let spaces = replace.kind == "Replace"
                    && replace.content.as_deref() == Some(" ")
                    && replace.pattern == Some(serde_json::json!({"String": "\u{2581}"}));
                let fallback = bytes.kind == "ByteFallback" && fuse.kind == "Fuse";
                let strips_first_space = match rest {
                    [] => false,
                    [strip] if strip.strips_one_space() => true,
                    _ => return None,
                };
                (spaces && fallback).then_some(Style::Sentencepiece { strips_first_space })
            }
            _ => None,
        }
    }

    fn strips_one_space(&self) -> bool {
        self.kind == "Strip"
            && self.content.as_deref() == Some(" ")
            && (self.start, self.stop) == (Some(1), Some(0))
    }
}
