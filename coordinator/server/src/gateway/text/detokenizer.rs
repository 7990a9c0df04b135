//! Ids in, in any portions; text out, at once and always valid UTF-8.
//!
//! Owns what must wait: the first bytes of a character whose rest is in the next token. The text does not depend on how the
//! ids were cut, and is the tokenizer's own decoding of all of them. One exception: where byte-fallback tokens form no valid
//! UTF-8, the valid part is kept instead of a replacement character for each byte, because it was already sent.
//! Work and memory for each token are bounded.

use std::sync::Arc;

use super::card::Card;
use super::vocabulary::Vocabulary;
use crate::gateway::limits;

/// How an answer stands to its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A text of its own, as in a chat.
    Fresh,
    /// It goes on in the middle of the prompt's text.
    Continuing,
}

/// One answer's way from ids to text.
pub(crate) struct Detokenizer {
    card: Arc<Card>,
    state: State,
}

enum State {
    Table {
        /// At most three bytes: a character that is not whole yet.
        pending: Vec<u8>,
        strip_space: bool,
    },
    Window {
        ids: Vec<u32>,
        /// Ids up to here have been shown.
        shown: usize,
    },
}

impl Detokenizer {
    pub(crate) fn new(card: Arc<Card>, start: Start, prompt: &[u32]) -> Self {
        let state = match &card.vocabulary {
            Some(table) => State::Table {
                pending: Vec::with_capacity(4),
                strip_space: table.strips_first_space && start == Start::Fresh,
            },
            None => {
                let tail = match start {
                    Start::Fresh => &[],
                    Start::Continuing => {
                        prompt.get(prompt.len().saturating_sub(limits::DECODE_WINDOW)..).unwrap_or(&[])
                    }
                };
                State::Window { ids: tail.to_vec(), shown: tail.len() }
            }
        };
        Self { card, state }
    }

    /// Adds to `out` what `id` makes certain.
    pub(crate) fn push(&mut self, id: u32, out: &mut String) {
        match (&mut self.state, &self.card.vocabulary) {
            (State::Table { pending, strip_space }, Some(table)) => {
                push_bytes(table, pending, strip_space, id, out)
            }
            (State::Window { ids, shown }, _) => {
                ids.push(id);
                show(&self.card, ids, shown, false, out);
            }
            (State::Table { .. }, None) => {}
        }
    }

    /// The end: what is incomplete becomes a replacement character.
    pub(crate) fn finish(&mut self, out: &mut String) {
        match &mut self.state {
            State::Table { pending, .. } => {
                if !pending.is_empty() {
                    pending.clear();
                    out.push(char::REPLACEMENT_CHARACTER);
                }
            }
            State::Window { ids, shown } => show(&self.card, ids, shown, true, out),
        }
    }
}

fn push_bytes(table: &Vocabulary, pending: &mut Vec<u8>, strip_space: &mut bool, id: u32, out: &mut String) {
    let mut bytes = table.shown(id);
    if *strip_space && !bytes.is_empty() {
        *strip_space = false;
        bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
    }
    if pending.is_empty() {
        push_valid(bytes, pending, out);
    } else {
        let joined = [std::mem::take(pending).as_slice(), bytes].concat();
        push_valid(&joined, pending, out);
    }
}

/// As `String::from_utf8_lossy`, but an incomplete end waits in `pending`.
fn push_valid(mut bytes: &[u8], pending: &mut Vec<u8>, out: &mut String) {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => return out.push_str(text),
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        // The split is where the error says that UTF-8 is valid: nothing is replaced here.
        out.push_str(&String::from_utf8_lossy(valid));
        let Some(broken) = error.error_len() else { return pending.extend_from_slice(rest) };
        out.push(char::REPLACEMENT_CHARACTER);
        bytes = rest.get(broken..).unwrap_or_default();
    }
}

/// Decodes the last shown ids with and without the new ones: the difference is what is new.
fn show(card: &Card, ids: &mut Vec<u32>, shown: &mut usize, all: bool, out: &mut String) {
    let (old, new) = (card.decode(ids.get(..*shown).unwrap_or_default()), card.decode(ids));
    let fresh = new.strip_prefix(old.as_str()).unwrap_or_default();
    // An incomplete character decodes to a replacement character, for at most so many tokens.
    let waits = fresh.ends_with(char::REPLACEMENT_CHARACTER) && ids.len() - *shown < limits::DECODE_WINDOW;
    if fresh.is_empty() || (waits && !all) {
        return;
    }
    out.push_str(fresh);
    let keep_from = ids.len().saturating_sub(limits::DECODE_WINDOW).min(*shown);
    ids.drain(..keep_from);
    *shown = ids.len();
}
