//! All the work on a request before anything is started: parse, find the model, tokenise, check, wish.
//!
//! Owns this one sequence for each of the two endpoints, as plain functions of the text: they wait for nothing, so that a long
//! text can run on a thread where it delays nobody. A chat has two of them, with the renderer between. Refuses to start a generation.

use tokio::time::Instant;

use super::asking::{Ask, PromptField, Served};
use super::chat_request::ChatRequest;
use super::completion_request::CompletionRequest;
use super::options::Options;
use super::sampling::SamplingWish;
use super::traits::Origin;
use crate::gateway::caller::Caller;
use crate::gateway::deadline::Patience;
use crate::gateway::error::ApiError;
use crate::gateway::shelf::Shelf;
use crate::gateway::text::rendering::Task;
use crate::generation::Wish;

/// A chat whose prompt is still to be rendered.
pub(crate) struct Read {
    served: Served,
    options: Options,
    sampling: SamplingWish,
    top_logprobs: Option<u32>,
    ignored: Vec<String>,
    deadline: Instant,
    origin: Origin,
}

/// A request that only needs to be started.
pub(crate) struct Prepared {
    pub(crate) served: Served,
    pub(crate) options: Options,
    pub(crate) logprobs: bool,
    /// The tier that serves it, where the client asked for one.
    pub(crate) service_tier: Option<&'static str>,
    pub(crate) ignored: Vec<String>,
    /// `n` for each prompt, in order.
    pub(crate) wishes: Vec<Wish>,
    /// One for each wish: the prompt's text where the client wants it back.
    pub(crate) echoes: Vec<Option<String>>,
}

pub(crate) fn chat(
    body: &[u8],
    shelf: &Shelf,
    caller: Caller,
    patience: Patience,
    now_unix_s: u64,
) -> Result<(Read, Task), ApiError> {
    let ChatRequest { options, sampling, top_logprobs, said, mut ignored, talk } = ChatRequest::parse(body)?;
    let served = Served::find(shelf, &options.model)?;
    let task = talk.task(&served, now_unix_s)?;
    let deadline = patience.deadline(options.delivery);
    let origin = Origin::new(caller, said, &mut ignored);
    Ok((Read { served, options, sampling, top_logprobs, ignored, deadline, origin }, task))
}

impl Read {
    pub(crate) fn prepared(self, prompt: &[u8]) -> Result<Prepared, ApiError> {
        let Self { served, options, sampling, top_logprobs, ignored, deadline, origin } = self;
        let prompt = served.tokenised(prompt)?;
        let ask = Ask { options: &options, sampling: &sampling, top_logprobs, deadline, origin: &origin };
        let wishes = served.wishes(vec![prompt], ask, PromptField::Messages)?;
        let (service_tier, logprobs) = (origin.service_tier, top_logprobs.is_some());
        Ok(Prepared { served, options, logprobs, service_tier, ignored, wishes, echoes: Vec::new() })
    }
}

pub(crate) fn completion(
    body: &[u8],
    shelf: &Shelf,
    caller: Caller,
    patience: Patience,
) -> Result<Prepared, ApiError> {
    let CompletionRequest { options, sampling, top_logprobs, said, mut ignored, prompts } =
        CompletionRequest::parse(body)?;
    let served = Served::find(shelf, &options.model)?;
    let tokenised = prompts.tokenise(&served.card, served.vocabulary)?;
    let (prompts, echoes): (Vec<_>, Vec<_>) =
        tokenised.into_iter().map(|prompt| (prompt.ids, prompt.echo)).unzip();
    let n = usize::try_from(options.n).unwrap_or(1);
    let echoes = echoes.into_iter().flat_map(|echo| std::iter::repeat_n(echo, n)).collect();
    let deadline = patience.deadline(options.delivery);
    let origin = Origin::new(caller, said, &mut ignored);
    let ask = Ask { options: &options, sampling: &sampling, top_logprobs, deadline, origin: &origin };
    let wishes = served.wishes(prompts, ask, PromptField::Prompt)?;
    let (service_tier, logprobs) = (origin.service_tier, top_logprobs.is_some());
    Ok(Prepared { served, options, logprobs, service_tier, ignored, wishes, echoes })
}
