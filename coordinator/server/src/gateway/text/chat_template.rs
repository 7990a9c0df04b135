//! A model's chat template as its card brings it: text that nobody has looked into.
//!
//! Owns the text, the tokens it may name, and how it stands with the renderers. Refuses to compile or render: neither has a bound that a
//! coordinator could rely on.

use super::rendering::{Standing, frames};
use super::template::{Conversation, TemplateError};
use crate::gateway::limits;

pub(crate) struct ChatTemplate {
    source: String,
    /// `bos_token`, `eos_token` and their like, as the tokenizer's configuration names them.
    special_tokens: Vec<(String, String)>,
    pub(super) standing: Standing,
}

impl ChatTemplate {
    pub(crate) fn new(source: String, special_tokens: Vec<(String, String)>) -> Result<Self, TemplateError> {
        if source.len() > limits::TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong(source.len()));
        }
        Ok(Self { source, special_tokens, standing: Standing::default() })
    }

    /// Whether the template speaks of this role or variable at all.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.source.contains(word)
    }

    /// What is to be asked of a renderer: the prompt, or, without a conversation, whether the template compiles. `None`: nobody could
    /// render that much.
    pub(super) fn question(&self, conversation: Option<Conversation>) -> Option<Vec<u8>> {
        frames::question(&self.source, &self.special_tokens, conversation)
    }
}
