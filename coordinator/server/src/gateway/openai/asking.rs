//! From a checked request to wishes: is there such a model, can we speak for it, does the request fit its context.
//!
//! Owns these three questions and the length of an answer whose length the client left open: as much as the context leaves.
//! Refuses to judge load and time; that is the scheduler's.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::chat_request::untokenised;
use super::options::Options;
use super::sampling::SamplingWish;
use super::traits::{Origin, Work};
use crate::catalogue::Model;
use crate::gateway::error::ApiError;
use crate::gateway::shelf::Shelf;
use crate::gateway::text::card::{Card, CardError};
use crate::gateway::{limits, names};
use crate::generation::Wish;

/// A model that can be spoken for.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) model: Arc<Model>,
    pub(crate) card: Arc<Card>,
    /// `None` when no agent could tell.
    context: Option<u32>,
    /// Ids the model has, padding included.
    pub(crate) vocabulary: u32,
}

/// Where the prompt is in the request, for errors that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PromptField {
    Messages,
    Prompt,
    Input,
}

impl Served {
    pub(crate) fn find(shelf: &Shelf, name: &str) -> Result<Self, ApiError> {
        let model = shelf.get(name).ok_or_else(|| unknown(shelf, name))?;
        let (Some(card), Some(facts)) = (&model.card, &model.facts) else {
            let status =
                if model.status.is_empty() { "its tokenizer has not arrived yet" } else { &model.status };
            let message = format!("The model '{name}' is not ready: {status}. Try again soon.");
            return Err(ApiError::unavailable("model_loading", message, limits::RETRY_WHILE_LOADING));
        };
        let known = u32::try_from(card.vocabulary_size()).unwrap_or(u32::MAX);
        Ok(Self {
            card: card.clone(),
            context: u32::try_from(facts.context_length).ok().filter(|context| *context > 0),
            vocabulary: facts.vocab_size.max(known),
            model,
        })
    }

    /// Token ids of a rendered prompt. The template writes the control tokens itself; adding them again would double the first.
    pub(crate) fn tokenised(&self, prompt: &[u8]) -> Result<Vec<u32>, ApiError> {
        let text = std::str::from_utf8(prompt).map_err(|_| untokenised(CardError::Tokenizer))?;
        self.card.encode(text, false).map_err(untokenised)
    }

    /// `n` wishes for each prompt, in order.
    pub(crate) fn wishes(
        &self,
        prompts: Vec<Vec<u32>>,
        ask: Ask<'_>,
        field: PromptField,
    ) -> Result<Vec<Wish>, ApiError> {
        ask.sampling.check(self.vocabulary)?;
        let stop_ids = self.stop_ids(&ask.options.stop_ids)?;
        let mut wishes = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let max_tokens = self.max_tokens(prompt.len(), ask.options.max_tokens, field)?;
            let prefix = ask.origin.prefix(&self.model.name, &prompt);
            let n = usize::try_from(ask.options.n).unwrap_or(1);
            for (nth, prompt) in (0..).zip(std::iter::repeat_n(prompt, n)) {
                let sampling = ask.sampling.complete(&self.card.defaults, nth);
                let top_logprobs = ask.top_logprobs;
                let work = Work { max_tokens, sampling: &sampling, stop_ids: &stop_ids, top_logprobs };
                wishes.push(Wish {
                    model: self.model.name.clone(),
                    prompt,
                    journal: Vec::new(),
                    max_tokens,
                    traits: ask.origin.traits(&prefix, &work),
                    sampling,
                    stop_ids: stop_ids.clone(),
                    top_logprobs,
                    deadline: ask.deadline,
                });
            }
        }
        Ok(wishes)
    }

    /// The model's own ends and the client's. Empty would leave them to the runtime, which knows only the weights' config.
    fn stop_ids(&self, wanted: &[u32]) -> Result<Vec<u32>, ApiError> {
        if let Some(id) = wanted.iter().find(|id| **id >= self.vocabulary) {
            let message = format!("There is no token {id}: this model's vocabulary has {}.", self.vocabulary);
            return Err(ApiError::invalid("invalid_value", "stop_token_ids", message));
        }
        let of_model = self.model.facts.iter().flat_map(|facts| &facts.eos_ids);
        let mut ids: Vec<_> = of_model.chain(&self.card.eos_ids).chain(wanted).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    fn max_tokens(&self, prompt: usize, wanted: Option<u32>, field: PromptField) -> Result<u32, ApiError> {
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        let Some(context) = self.context else {
            return Ok(wanted.unwrap_or(limits::MAX_TOKENS_WITHOUT_CONTEXT));
        };
        let room = context.saturating_sub(prompt);
        if room == 0 {
            let message = format!(
                "This model's maximum context length is {context} tokens. However, your {} resulted in {prompt} tokens. \
                 Please reduce the length of the {}.",
                field.name(),
                field.name()
            );
            return Err(ApiError::invalid("context_length_exceeded", field.name(), message));
        }
        match wanted {
            None => Ok(room),
            Some(wanted) if wanted <= room => Ok(wanted),
            Some(wanted) => {
                let message = format!(
                    "This model's maximum context length is {context} tokens. However, you requested {} tokens ({prompt} in the \
                     {}, {wanted} in the completion). Please reduce the length of the {} or completion.",
                    u64::from(prompt) + u64::from(wanted),
                    field.name(),
                    field.name()
                );
                Err(ApiError::invalid("context_length_exceeded", field.name(), message))
            }
        }
    }
}

/// The parts of a request that every wish repeats.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) options: &'a Options,
    pub(crate) sampling: &'a SamplingWish,
    pub(crate) top_logprobs: Option<u32>,
    pub(crate) deadline: Instant,
    pub(crate) origin: &'a Origin,
}

impl PromptField {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Prompt => "prompt",
            Self::Input => "input",
        }
    }
}

/// 404 with close names and the command that would serve the model.
pub(crate) fn unknown(shelf: &Shelf, name: &str) -> ApiError {
    let all = shelf.all();
    let close = names::close(name, all.iter().map(|model| model.name.as_str()));
    let known = match (close.as_slice(), all.len()) {
        ([], 0) => "No model is served yet.".to_owned(),
        ([], count) => format!("{count} other models are served, see GET /v1/models."),
        (close, _) => format!("Close names: {}.", close.join(", ")),
    };
    let name = names::quoted(name);
    let message = format!(
        "The model '{name}' does not exist here. {known} To serve it, start `mlx-serving up --model PATH-or-hub-id` on one \
         Mac, or `mlx-serving agent --model PATH-or-hub-id` on a Mac that joins this cluster."
    );
    ApiError {
        param: Some("model".to_owned()),
        ..ApiError::refused(StatusCode::NOT_FOUND, "model_not_found", message)
    }
}
