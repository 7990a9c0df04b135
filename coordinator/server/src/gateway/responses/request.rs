//! The body of `POST /v1/responses`.
//!
//! Owns reading it whole, like that of a chat: every key is honoured, named as ignored, or refused. What a chat refuses is refused
//! here in the same words. Refuses what would need OpenAI's own storage: conversations, prompts and files.

use serde_json::{Map, Value, json};

use super::items::{self, Item};
use crate::gateway::error::ApiError;
use crate::gateway::names::quoted;
use crate::gateway::openai::chat_request;
use crate::gateway::openai::fields::{Fields, wrong_type};
use crate::gateway::openai::hints::Lists;
use crate::gateway::openai::options::{self, Delivery, Options};
use crate::gateway::openai::sampling::SamplingWish;
use crate::gateway::openai::traits::Said;
use registry::limits as facts;

const LISTS: Lists = Lists {
    hints: &["max_tool_calls", "parallel_tool_calls", "prompt_cache_retention", "safety_identifier"],
    unsupported: &[
        "audio",
        "context_management",
        "conversation",
        "logprobs",
        "modalities",
        "moderation",
        "n",
        "prompt",
        "response_format",
        "stop",
        "stop_token_ids",
        "verbosity",
    ],
    other_names: &[
        ("max_completion_tokens", "max_output_tokens"),
        ("max_tokens", "max_output_tokens"),
        ("messages", "input"),
        ("reasoning_effort", "reasoning"),
        ("system", "instructions"),
    ],
    honoured: &[
        "background",
        "cache_salt",
        "frequency_penalty",
        "include",
        "input",
        "instructions",
        "logit_bias",
        "max_output_tokens",
        "metadata",
        "min_p",
        "model",
        "presence_penalty",
        "previous_response_id",
        "prompt_cache_key",
        "reasoning",
        "repetition_penalty",
        "seed",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ],
};

/// What a client asked for.
pub(super) struct Request {
    pub(super) options: Options,
    pub(super) sampling: SamplingWish,
    pub(super) said: Said,
    pub(super) ignored: Vec<String>,
    pub(super) instructions: Option<String>,
    pub(super) items: Vec<Item>,
    pub(super) effort: Option<String>,
    pub(super) previous: Option<String>,
    pub(super) background: bool,
    pub(super) store: bool,
    /// What the answer repeats.
    pub(super) echo: Map<String, Value>,
}

impl Request {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut body = Fields::parse(body)?;
        let mut ignored = Vec::new();
        let options = Options {
            model: options::model(&mut body)?,
            n: 1,
            max_tokens: body
                .integer("max_output_tokens", 1..=i64::from(u32::MAX))?
                .and_then(|tokens| u32::try_from(tokens).ok()),
            stops: Vec::new(),
            stop_ids: Vec::new(),
            delivery: delivery(&mut body, &mut ignored)?,
        };
        let items = items::take(&mut body)?;
        let instructions = body.string("instructions")?;
        let sampling = SamplingWish::take(&mut body)?;
        let said = Said::take(&mut body)?;
        let (background, store) = keeping(&mut body)?;
        let previous = body.string("previous_response_id")?;
        let (effort, mut echo) = (reasoning(&mut body, &mut ignored)?, Map::new());
        echo.insert("metadata".to_owned(), metadata(&mut body)?);
        let choice = body.peek("tool_choice").cloned().unwrap_or_else(|| "auto".into());
        chat_request::tools(&mut body, &mut ignored)?;
        text(&mut body, &mut ignored)?;
        include(&mut body, &mut ignored)?;
        truncation(&mut body, &mut ignored)?;
        for key in ["safety_identifier", "max_tool_calls"] {
            echo.insert(key.to_owned(), body.peek(key).cloned().unwrap_or_default());
        }
        echo.extend([
            ("instructions".to_owned(), json!(instructions)),
            ("max_output_tokens".to_owned(), json!(options.max_tokens)),
            ("previous_response_id".to_owned(), json!(previous)),
            ("reasoning".to_owned(), json!({"effort": effort, "summary": null})),
            ("tool_choice".to_owned(), choice),
            ("user".to_owned(), json!(said.user)),
            ("prompt_cache_key".to_owned(), json!(said.prompt_cache_key)),
        ]);
        ignored.extend(LISTS.ignored(body)?);
        Ok(Self {
            options,
            sampling,
            said,
            ignored,
            instructions,
            items,
            effort,
            previous,
            background,
            store,
            echo,
        })
    }
}

fn delivery(body: &mut Fields, ignored: &mut Vec<String>) -> Result<Delivery, ApiError> {
    let stream = body.boolean("stream")?.unwrap_or(false);
    if let Some(options) = body.take("stream_options") {
        let mut options = Fields::within("stream_options", options)?;
        // Padding against size analysis, as in a chat.
        if options.boolean("include_obfuscation")?.is_some() {
            ignored.push("stream_options.include_obfuscation".to_owned());
        }
        nothing_more("stream_options", options)?;
    }
    Ok(if stream { Delivery::Stream { include_usage: true } } else { Delivery::Whole })
}

/// Whether it goes on without its client, and whether it is kept.
fn keeping(body: &mut Fields) -> Result<(bool, bool), ApiError> {
    let background = body.boolean("background")?.unwrap_or(false);
    let store = body.boolean("store")?;
    if background && store == Some(false) {
        let message = "A response in the background is stored. Leave 'store' out, or set it to true.";
        return Err(ApiError::invalid("invalid_value", "store", message));
    }
    Ok((background, store.unwrap_or(background)))
}

fn reasoning(body: &mut Fields, ignored: &mut Vec<String>) -> Result<Option<String>, ApiError> {
    let Some(reasoning) = body.take("reasoning") else { return Ok(None) };
    let mut reasoning = Fields::within("reasoning", reasoning)?;
    let effort = reasoning.string("effort")?;
    // What was thought is told as it is, or not at all; there is nobody who would sum it up.
    for key in ["summary", "generate_summary"] {
        if reasoning.string(key)?.is_some() {
            ignored.push(format!("reasoning.{key}"));
        }
    }
    nothing_more("reasoning", reasoning)?;
    Ok(effort)
}

fn text(body: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let Some(text) = body.take("text") else { return Ok(()) };
    let mut text = Fields::within("text", text)?;
    if let Some(format) = text.take("format") {
        let mut format = Fields::within("text.format", format)?;
        let kind = format.string("type")?.ok_or_else(|| format.missing("type"))?;
        if kind != "text" {
            let message =
                "Only the format 'text' is supported yet: answers are not constrained to JSON or a schema.";
            return Err(ApiError::unsupported("text.format", message));
        }
    }
    match text.string("verbosity")?.as_deref() {
        None => {}
        // What every model does that was told nothing else.
        Some("medium") => ignored.push("text.verbosity".to_owned()),
        Some(_) => {
            let message = "The parameter 'text.verbosity' is not supported here. Leave it out.";
            return Err(ApiError::unsupported("text.verbosity", message));
        }
    }
    nothing_more("text", text)
}

/// What may be asked for beside the answer; most of it is about tools that there are not.
fn include(body: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let refuse = |path: &str| {
        let message =
            format!("Log probabilities are not supported here ('{path}'). Use /v1/chat/completions.");
        Err(ApiError::unsupported(path, message))
    };
    if body.integer("top_logprobs", 0..=20)?.is_some_and(|top| top > 0) {
        return refuse("top_logprobs");
    }
    let wanted = match body.take("include") {
        None => return Ok(()),
        Some(Value::Array(wanted)) => wanted,
        Some(other) => return Err(wrong_type("include", "an array of strings", &other)),
    };
    for (at, value) in wanted.iter().enumerate() {
        match value.as_str() {
            None => return Err(wrong_type(&format!("include[{at}]"), "a string", value)),
            Some("message.output_text.logprobs") => return refuse("include"),
            Some(_) => {}
        }
    }
    if !wanted.is_empty() {
        ignored.push("include".to_owned());
    }
    Ok(())
}

/// Nothing is ever left out of what a model reads: what is too long is refused.
fn truncation(body: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    match body.string("truncation")?.as_deref() {
        None | Some("disabled") => Ok(()),
        Some("auto") => {
            ignored.push("truncation".to_owned());
            Ok(())
        }
        Some(_) => {
            let message = "Invalid value for 'truncation': it must be 'auto' or 'disabled'.";
            Err(ApiError::invalid("invalid_value", "truncation", message))
        }
    }
}

fn metadata(body: &mut Fields) -> Result<Value, ApiError> {
    let pairs = match body.take("metadata") {
        None => return Ok(json!({})),
        Some(Value::Object(pairs)) => pairs,
        Some(other) => return Err(wrong_type("metadata", "an object of strings", &other)),
    };
    let fits = |(key, value): (&String, &Value)| {
        let value = value.as_str().is_some_and(|value| value.len() <= facts::METADATA_VALUE_BYTES_MAX);
        value && key.len() <= facts::METADATA_KEY_BYTES_MAX
    };
    if pairs.len() > facts::METADATA_PAIRS_MAX || !pairs.iter().all(fits) {
        let message = format!(
            "Invalid value for 'metadata': at most {} strings, with names of up to {} bytes.",
            facts::METADATA_PAIRS_MAX,
            facts::METADATA_KEY_BYTES_MAX
        );
        return Err(ApiError::invalid("invalid_value", "metadata", message));
    }
    Ok(pairs.into())
}

fn nothing_more(path: &str, fields: Fields) -> Result<(), ApiError> {
    let Some(key) = fields.rest().next() else { return Ok(()) };
    let key = format!("{path}.{}", quoted(&key));
    let message = format!("Unknown parameter '{key}'. Leave it out.");
    Err(ApiError::unsupported(key, message))
}
