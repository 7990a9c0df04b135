//! The events of a response, in their order and with their numbers.
//!
//! Owns that the same story is told with the same bytes, by whichever coordinator and however often: what is written depends on the
//! head, the pieces of text and the end alone. Whoever has the first events is told the rest.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};

use super::items::Part;
use super::object::{End, Head, Standing};
use crate::gateway::error::ApiError;

pub(super) struct Teller {
    head: Head,
    /// What the client has already.
    after: Option<u64>,
    sequence: u64,
    text: String,
    has_item: bool,
    out: BytesMut,
}

impl Teller {
    pub(super) fn new(head: Head, after: Option<u64>) -> Self {
        Self { head, after, sequence: 0, text: String::new(), has_item: false, out: BytesMut::new() }
    }

    /// What has been told since this was asked last.
    pub(super) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// One in the background waits first.
    pub(super) fn created(&mut self) {
        if !self.head.background {
            return self.response("response.created", &Standing::InProgress);
        }
        self.response("response.created", &Standing::Queued);
        self.response("response.queued", &Standing::Queued);
    }

    pub(super) fn begun(&mut self) {
        self.response("response.in_progress", &Standing::InProgress);
    }

    pub(super) fn delta(&mut self, text: &str) {
        self.item();
        self.text.push_str(text);
        self.of_part("response.output_text.delta", json!({"delta": text, "logprobs": []}));
    }

    pub(super) fn ended(&mut self, end: &End) {
        if !self.head.output(&self.text, end).is_empty() {
            self.item();
            let text = self.text.clone();
            self.of_part("response.output_text.done", json!({"text": text, "logprobs": []}));
            self.of_part("response.content_part.done", json!({"part": Part::output(&text)}));
            let item = self.head.message(Some(&text), Some(end));
            self.event("response.output_item.done", json!({"output_index": 0, "item": item}));
        }
        let text = std::mem::take(&mut self.text);
        self.response(end.event(), &Standing::Ended(end, &text));
        self.text = text;
    }

    /// A stream that breaks says why, in the form of an event and in that of an error: clients look for either.
    pub(super) fn broken(&mut self, error: &ApiError) {
        let mut told: Value = serde_json::from_str(&error.body()).unwrap_or_default();
        told["code"] = error.code.into();
        told["message"] = error.message.clone().into();
        told["param"] = error.param.clone().into();
        // Nobody has it already: it is not of the story.
        self.after = None;
        self.event("error", told);
    }

    fn item(&mut self) {
        if std::mem::replace(&mut self.has_item, true) {
            return;
        }
        let item = self.head.message(None, None);
        self.event("response.output_item.added", json!({"output_index": 0, "item": item}));
        self.of_part("response.content_part.added", json!({"part": Part::output("")}));
    }

    fn response(&mut self, kind: &str, standing: &Standing<'_>) {
        let response = self.head.shown(standing);
        self.event(kind, json!({"response": response}));
    }

    fn of_part(&mut self, kind: &str, mut fields: Value) {
        fields["item_id"] = self.head.message_id().into();
        fields["output_index"] = 0.into();
        fields["content_index"] = 0.into();
        self.event(kind, fields);
    }

    fn event(&mut self, kind: &str, mut fields: Value) {
        let number = self.sequence;
        self.sequence += 1;
        if self.after.is_some_and(|after| number <= after) {
            return;
        }
        fields["type"] = kind.into();
        fields["sequence_number"] = number.into();
        self.out.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
        // Writing to memory cannot fail, nor can this type.
        let _ = serde_json::to_writer((&mut self.out).writer(), &fields);
        self.out.extend_from_slice(b"\n\n");
    }
}
