//! `text_completion` chunks: the echoed prompt first if it was asked for, then text, then the finish reason.

use bytes::BytesMut;

use super::choice::Fresh;
use super::chunks::{Chunks, Envelope, json, number, reason};
use super::logprobs::{CompletionLogprobs, Entry};
use super::usage::Usage;
use crate::generation::FinishReason;

pub(crate) struct CompletionChunks {
    pub(crate) envelope: Envelope,
    pub(crate) logprobs: bool,
    /// For each choice: its prompt's text, or nothing.
    pub(crate) echoes: Vec<Option<String>>,
}

impl CompletionChunks {
    fn chunk(
        &self,
        index: usize,
        text: &str,
        entries: &[Entry],
        why: Option<FinishReason>,
        out: &mut BytesMut,
    ) {
        self.envelope.wrap(out, |out| {
            out.extend_from_slice(b"{\"text\":");
            json(text, out);
            out.extend_from_slice(b",\"index\":");
            number(index, out);
            out.extend_from_slice(b",\"logprobs\":");
            if self.logprobs && why.is_none() {
                json(&CompletionLogprobs::new(entries), out);
            } else {
                out.extend_from_slice(b"null");
            }
            out.extend_from_slice(b",\"finish_reason\":");
            json(&why.map(reason), out);
            out.extend_from_slice(b"}");
        });
    }
}

impl Chunks for CompletionChunks {
    fn begin(&mut self, index: usize, out: &mut BytesMut) {
        if let Some(Some(echo)) = self.echoes.get(index) {
            self.chunk(index, echo, &[], None, out);
        }
    }

    fn delta(&mut self, index: usize, fresh: &Fresh, out: &mut BytesMut) {
        self.chunk(index, &fresh.text, &fresh.logprobs, None, out);
    }

    fn end(&mut self, index: usize, why: FinishReason, out: &mut BytesMut) {
        self.chunk(index, "", &[], Some(why), out);
    }

    fn usage(&mut self, usage: &Usage, out: &mut BytesMut) {
        self.envelope.usage(usage, out);
    }
}
