//! Text and tokens: what turns messages into token ids, and token ids back into text.
//!
//! Owns everything that depends on a model's tokenizer and template. Refuses HTTP and JSON bodies: the rooms that speak an API
//! use this one, never the other way round.

pub(crate) mod card;
pub(crate) mod chat_template;
pub(crate) mod rendering;
pub(crate) mod template;
mod own_stack;
mod bounded;
mod pyjson;
mod strftime;
pub(crate) mod vocabulary;
pub(crate) mod detokenizer;
pub(crate) mod stop;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
