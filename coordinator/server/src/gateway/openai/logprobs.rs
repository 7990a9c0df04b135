//! Log probabilities: one entry for each token of the answer, sent together with the token's text.
//!
//! Owns the entries that wait because their text is held back (half a character, perhaps a stop string), and the two shapes in
//! which OpenAI writes them. A token whose text begins after the cut of a stop string is dropped with its text.

use std::collections::VecDeque;

use proto::v1::TokenLogprobs;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::gateway::text::card::Card;

/// What OpenAI writes for a probability of zero; JSON has no infinity.
const LOGPROB_OF_NOTHING: f32 = -9_999.0;

/// One token and its alternatives, as chat completions show them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    token: Scored,
    top_logprobs: Vec<Scored>,
    /// Characters of the answer before this token; the older completions count from there.
    #[serde(skip)]
    offset: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Scored {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Entry {
    fn new(card: &Card, id: u32, logprobs: &TokenLogprobs, offset: usize) -> Self {
        let scored = |id, logprob: f32| {
            let bytes = card.token_bytes(id);
            let logprob = if logprob.is_finite() { logprob } else { LOGPROB_OF_NOTHING };
            Scored { token: String::from_utf8_lossy(&bytes).into_owned(), logprob, bytes }
        };
        let top_logprobs = logprobs.top.iter().map(|top| scored(top.token, top.logprob)).collect();
        Self { token: scored(id, logprobs.logprob), top_logprobs, offset }
    }
}

/// Entries in order, and how much text stands before and behind each.
#[derive(Default)]
pub(crate) struct Waiting {
    entries: VecDeque<(Span, Entry)>,
    bytes: usize,
    chars: usize,
}

/// Bytes of the answer at which a token's text begins and ends.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Waiting {
    /// A token whose decoding made `text` certain.
    pub(crate) fn push(&mut self, card: &Card, id: u32, logprobs: &TokenLogprobs, text: &str) {
        let span = Span { start: self.bytes, end: self.bytes + text.len() };
        self.entries.push_back((span, Entry::new(card, id, logprobs, self.chars)));
        self.bytes += text.len();
        self.chars += text.chars().count();
    }

    /// Entries whose text is within the first `released` bytes; `held` of the text so far are not.
    pub(crate) fn release(&mut self, held: usize, out: &mut Vec<Entry>) {
        let released = self.bytes.saturating_sub(held);
        while self.entries.front().is_some_and(|(span, _)| span.end <= released) {
            out.extend(self.entries.pop_front().map(|(_, entry)| entry));
        }
    }

    /// The answer ends after `released` bytes: tokens that begin before are part of it.
    pub(crate) fn cut(&mut self, released: usize, out: &mut Vec<Entry>) {
        out.extend(self.entries.drain(..).filter(|(span, _)| span.start < released).map(|(_, entry)| entry));
    }

    /// The answer ended by itself: all tokens are part of it.
    pub(crate) fn finish(&mut self, out: &mut Vec<Entry>) {
        out.extend(self.entries.drain(..).map(|(_, entry)| entry));
    }
}

/// `{"content": […], "refusal": null}`
#[derive(Serialize)]
pub(crate) struct ChatLogprobs<'a> {
    content: &'a [Entry],
    refusal: Option<()>,
}

impl<'a> ChatLogprobs<'a> {
    pub(crate) fn new(entries: &'a [Entry]) -> Self {
        Self { content: entries, refusal: None }
    }
}

/// `{"tokens", "token_logprobs", "top_logprobs", "text_offset"}`, one element for each token.
#[derive(Serialize)]
pub(crate) struct CompletionLogprobs<'a> {
    tokens: Vec<&'a str>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<ByToken<'a>>,
    text_offset: Vec<usize>,
}

impl<'a> CompletionLogprobs<'a> {
    pub(crate) fn new(entries: &'a [Entry]) -> Self {
        Self {
            tokens: entries.iter().map(|entry| entry.token.token.as_str()).collect(),
            token_logprobs: entries.iter().map(|entry| entry.token.logprob).collect(),
            top_logprobs: entries.iter().map(|entry| ByToken(&entry.top_logprobs)).collect(),
            text_offset: entries.iter().map(|entry| entry.offset).collect(),
        }
    }
}

/// `{" the": -0.1, " a": -2.3}`
struct ByToken<'a>(&'a [Scored]);

impl Serialize for ByToken<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|scored| map.serialize_entry(&scored.token, &scored.logprob))?;
        map.end()
    }
}
