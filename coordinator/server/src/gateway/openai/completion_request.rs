//! The body of `POST /v1/completions`.
//!
//! Owns reading it whole, and the four shapes of a prompt: a text, texts, token ids, lists of token ids. Refuses `suffix`, a
//! `best_of` that would choose, and the log probabilities of an echoed prompt, which no runtime computes.

use serde_json::Value;

use super::chat_request::untokenised;
use super::fields::{Fields, token_ids, wrong_type};
use super::hints;
use super::options::Options;
use super::sampling::SamplingWish;
use super::traits::Said;
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::text::card::Card;

/// What a completion client asked for.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub(crate) options: Options,
    pub(crate) sampling: SamplingWish,
    pub(crate) top_logprobs: Option<u32>,
    pub(crate) said: Said,
    pub(crate) ignored: Vec<String>,
    pub(crate) prompts: Prompts,
}

#[derive(Debug)]
pub(crate) struct Prompts {
    all: Vec<Prompt>,
    echo: bool,
}

#[derive(Debug)]
enum Prompt {
    Text(String),
    /// Checked against the vocabulary once the model is known; the path names it in errors.
    Ids {
        path: String,
        ids: Vec<Value>,
    },
}

/// A prompt in both forms; the text only where it is echoed.
#[derive(Debug)]
pub(crate) struct Tokenised {
    pub(crate) ids: Vec<u32>,
    pub(crate) echo: Option<String>,
}

impl CompletionRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut body = Fields::parse(body)?;
        let mut ignored = Vec::new();
        let options = Options::take(&mut body, &mut ignored)?;
        let all = prompts(&mut body, options.n)?;
        let sampling = SamplingWish::take(&mut body)?;
        let said = Said::take(&mut body)?;
        let top_logprobs = body.integer("logprobs", 0..=limits::COMPLETION_LOGPROBS_MAX)?;
        let echo = body.boolean("echo")?.unwrap_or(false);
        if echo && top_logprobs.is_some() {
            let message = "'echo' together with 'logprobs' is not supported: a prompt's log probabilities are not computed.";
            return Err(ApiError::unsupported("echo", message));
        }
        best_of(&mut body, options.n)?;
        match body.string("suffix")? {
            Some(suffix) if !suffix.is_empty() => {
                return Err(ApiError::unsupported("suffix", "'suffix' is not supported. Leave it out."));
            }
            Some(_) | None => {}
        }
        ignored.extend(hints::ignored(body)?);
        let top_logprobs = top_logprobs.and_then(|top| u32::try_from(top).ok());
        Ok(Self { options, sampling, top_logprobs, said, ignored, prompts: Prompts { all, echo } })
    }
}

impl Prompts {
    /// Each prompt as token ids, with the tokenizer's own first token where it has one.
    pub(crate) fn tokenise(self, card: &Card, vocabulary: u32) -> Result<Vec<Tokenised>, ApiError> {
        let echo = self.echo;
        let one = |prompt| match prompt {
            Prompt::Text(text) => {
                let ids = card.encode(&text, true).map_err(untokenised)?;
                Ok(Tokenised { ids, echo: echo.then_some(text) })
            }
            Prompt::Ids { path, ids } => {
                let ids = token_ids(&path, &ids, vocabulary)?;
                let text = echo.then(|| card.decode(&ids));
                Ok(Tokenised { ids, echo: text })
            }
        };
        let begun = |tokenised: Tokenised| match (tokenised.ids.is_empty(), card.bos_id) {
            (true, Some(bos)) => Ok(Tokenised { ids: vec![bos], ..tokenised }),
            (true, None) => Err(ApiError::invalid("invalid_value", "prompt", "The prompt is empty.")),
            (false, _) => Ok(tokenised),
        };
        self.all.into_iter().map(|prompt| one(prompt).and_then(begun)).collect()
    }
}

fn prompts(body: &mut Fields, n: u32) -> Result<Vec<Prompt>, ApiError> {
    let prompts = match body.required("prompt")? {
        Value::String(text) => vec![Prompt::Text(text)],
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            vec![Prompt::Ids { path: "prompt".to_owned(), ids: items }]
        }
        Value::Array(items) => items.into_iter().enumerate().map(prompt).collect::<Result<_, _>>()?,
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            return Err(wrong_type(
                "prompt",
                "a string, an array of strings, or arrays of token ids",
                &other,
            ));
        }
    };
    if prompts.is_empty() {
        return Err(ApiError::invalid("invalid_value", "prompt", "'prompt' is an empty array."));
    }
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    if prompts.len().saturating_mul(n) > limits::CHOICES_MAX {
        let message = format!(
            "'prompt' has {} prompts and 'n' is {n}: {} answers are allowed in one request.",
            prompts.len(),
            limits::CHOICES_MAX
        );
        return Err(ApiError::invalid("invalid_value", "prompt", message));
    }
    Ok(prompts)
}

fn prompt((at, item): (usize, Value)) -> Result<Prompt, ApiError> {
    let path = format!("prompt[{at}]");
    match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(ids) => Ok(Prompt::Ids { path, ids }),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
            Err(wrong_type(&path, "a string or an array of token ids", &other))
        }
    }
}

/// As many candidates as answers means that nothing is chosen.
fn best_of(body: &mut Fields, n: u32) -> Result<(), ApiError> {
    match body.integer("best_of", 1..=i64::from(u32::MAX))? {
        Some(best_of) if best_of != i64::from(n) => {
            let message = "'best_of' other than 'n' is not supported: answers are not ranked. Leave it out.";
            Err(ApiError::unsupported("best_of", message))
        }
        Some(_) | None => Ok(()),
    }
}
