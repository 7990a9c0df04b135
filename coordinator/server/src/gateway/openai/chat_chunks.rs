//! `chat.completion.chunk`: the role first, then content, then an empty delta with the finish reason.

use bytes::BytesMut;

use super::choice::Fresh;
use super::chunks::{Chunks, Envelope, json, number, reason};
use super::logprobs::ChatLogprobs;
use super::usage::Usage;
use crate::generation::FinishReason;

pub(crate) struct ChatChunks {
    pub(crate) envelope: Envelope,
    pub(crate) logprobs: bool,
}

impl Chunks for ChatChunks {
    fn begin(&mut self, index: usize, out: &mut BytesMut) {
        self.envelope.wrap(out, |out| {
            out.extend_from_slice(b"{\"index\":");
            number(index, out);
            out.extend_from_slice(
                b",\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}",
            );
        });
    }

    fn delta(&mut self, index: usize, fresh: &Fresh, out: &mut BytesMut) {
        self.envelope.wrap(out, |out| {
            out.extend_from_slice(b"{\"index\":");
            number(index, out);
            out.extend_from_slice(b",\"delta\":{\"content\":");
            json(fresh.text.as_str(), out);
            out.extend_from_slice(b"},\"logprobs\":");
            if self.logprobs {
                json(&ChatLogprobs::new(&fresh.logprobs), out);
            } else {
                out.extend_from_slice(b"null");
            }
            out.extend_from_slice(b",\"finish_reason\":null}");
        });
    }

    fn end(&mut self, index: usize, why: FinishReason, out: &mut BytesMut) {
        self.envelope.wrap(out, |out| {
            out.extend_from_slice(b"{\"index\":");
            number(index, out);
            out.extend_from_slice(b",\"delta\":{},\"logprobs\":null,\"finish_reason\":");
            json(reason(why), out);
            out.extend_from_slice(b"}");
        });
    }

    fn usage(&mut self, usage: &Usage, out: &mut BytesMut) {
        self.envelope.usage(usage, out);
    }
}
