//! The OpenAI API: `/v1/chat/completions` and `/v1/completions`.
//!
//! Owns the bodies that go in and out, and their translation to wishes. A request passes the modules in the order in which they
//! are listed. Refuses what it would not honour; see `hints` for the short list of what it accepts and does not use.

pub(crate) mod fields;
pub(crate) mod hints;
pub(crate) mod sampling;
pub(crate) mod options;
pub(crate) mod traits;
pub(crate) mod messages;
pub(crate) mod chat_request;
pub(crate) mod completion_request;
pub(crate) mod asking;
pub(crate) mod preparing;
pub(crate) mod handlers;
pub(crate) mod choice;
pub(crate) mod answer;
pub(crate) mod logprobs;
pub(crate) mod usage;
pub(crate) mod chunks;
pub(crate) mod chat_chunks;
pub(crate) mod completion_chunks;
pub(crate) mod sse;
pub(crate) mod whole;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
