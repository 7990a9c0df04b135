//! The chunks of a stream, as bytes.
//!
//! Owns what all chunks of one answer share, serialised once: only the new text is escaped for each token. Refuses to build a
//! JSON tree for each token, which costs more than everything else the gateway does for it.

use std::io::Write as _;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::choice::Fresh;
use super::usage::Usage;
use crate::gateway::error::ApiError;
use crate::generation::FinishReason;

/// How one API writes the parts of a streamed answer.
pub(crate) trait Chunks: Send + Unpin + 'static {
    /// Before everything else.
    fn open(&mut self, _out: &mut BytesMut) {}
    /// Before the first text of a choice.
    fn begin(&mut self, index: usize, out: &mut BytesMut);
    fn delta(&mut self, index: usize, fresh: &Fresh, out: &mut BytesMut);
    fn end(&mut self, index: usize, reason: FinishReason, out: &mut BytesMut);
    /// After the last choice, if the client asked for it.
    fn usage(&mut self, usage: &Usage, out: &mut BytesMut);
    /// The last word, which nobody hears of an answer that broke.
    fn done(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
    /// Why it broke.
    fn failed(&mut self, error: &ApiError, out: &mut BytesMut) {
        let _ = write!(out.writer(), "data: {}\n\n", error.body());
    }
}

/// What identifies an answer, in each chunk and in a whole answer alike.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) system_fingerprint: Option<String>,
    /// Only where the client asked for a tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_tier: Option<&'static str>,
}

/// A chunk without its choice.
pub(crate) struct Envelope {
    /// `data: {"id":…,"choices":[`
    before: Vec<u8>,
    /// `],"usage":null}`, or without usage when nobody asked for it.
    after: &'static [u8],
    include_usage: bool,
}

impl Envelope {
    pub(crate) fn new(head: &Head, include_usage: bool) -> Self {
        let mut before = b"data: ".to_vec();
        before.extend(serde_json::to_vec(head).unwrap_or_default());
        // The head is an object that stays open for the choices.
        before.pop();
        before.extend(b",\"choices\":[");
        let after: &[u8] = if include_usage { b"],\"usage\":null}\n\n" } else { b"]}\n\n" };
        Self { before, after, include_usage }
    }

    /// A chunk around what `choice` writes.
    pub(crate) fn wrap(&self, out: &mut BytesMut, choice: impl FnOnce(&mut BytesMut)) {
        out.extend_from_slice(&self.before);
        choice(out);
        out.extend_from_slice(self.after);
    }

    pub(crate) fn usage(&self, usage: &Usage, out: &mut BytesMut) {
        if self.include_usage {
            out.extend_from_slice(&self.before);
            out.extend_from_slice(b"],\"usage\":");
            json(usage, out);
            out.extend_from_slice(b"}\n\n");
        }
    }
}

/// Appends JSON. Writing to memory cannot fail, nor can these types.
pub(crate) fn json(value: &(impl Serialize + ?Sized), out: &mut BytesMut) {
    let _ = serde_json::to_writer(out.writer(), value);
}

pub(crate) fn number(value: usize, out: &mut BytesMut) {
    let _ = write!(out.writer(), "{value}");
}

pub(crate) fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}
