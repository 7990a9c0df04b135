//! The `usage` object: what was counted, in the shape that clients read.
//!
//! Owns the sums. A prompt with several answers counts once; every sampled token counts, also one that a stop string cut off.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct CompletionDetails {
    /// Reasoning is part of the text and not counted apart.
    reasoning_tokens: u64,
}

impl Usage {
    pub(crate) fn new(prompt: u64, cached: u64, completion: u64) -> Self {
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt.saturating_add(completion),
            prompt_tokens_details: PromptDetails { cached_tokens: cached.min(prompt) },
            completion_tokens_details: CompletionDetails { reasoning_tokens: 0 },
        }
    }

    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    pub(crate) fn completion_tokens(&self) -> u64 {
        self.completion_tokens
    }

    pub(crate) fn cached_tokens(&self) -> u64 {
        self.prompt_tokens_details.cached_tokens
    }
}
