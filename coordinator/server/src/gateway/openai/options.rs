//! What both kinds of completion share besides sampling: how many answers, how long, where they stop, and how they are sent.
//!
//! Owns reading and checking these. Refuses contradictions (`max_tokens` and `max_completion_tokens` that differ,
//! `stream_options` without a stream), because one of the two would be dropped in silence.

use serde_json::Value;

use super::fields::{Fields, token_ids, wrong_type};
use crate::gateway::error::ApiError;
use crate::gateway::limits;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) model: String,
    pub(crate) n: u32,
    /// `None`: as much as the context leaves.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) stops: Vec<String>,
    pub(crate) stop_ids: Vec<u32>,
    pub(crate) delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Stream { include_usage: bool },
}

impl Options {
    /// `ignored` hears of hints inside `stream_options`.
    pub(crate) fn take(body: &mut Fields, ignored: &mut Vec<String>) -> Result<Self, ApiError> {
        Ok(Self {
            model: model(body)?,
            n: body.integer("n", 1..=limits::N_MAX)?.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            max_tokens: max_tokens(body)?,
            stops: stops(body)?,
            stop_ids: stop_ids(body)?,
            delivery: delivery(body, ignored)?,
        })
    }
}

pub(crate) fn model(body: &mut Fields) -> Result<String, ApiError> {
    match body.string("model")? {
        Some(model) if !model.is_empty() => Ok(model),
        Some(_) | None => Err(body.missing("model")),
    }
}

fn max_tokens(body: &mut Fields) -> Result<Option<u32>, ApiError> {
    let range = 1..=i64::from(u32::MAX);
    let old = body.integer("max_tokens", range.clone())?;
    let new = body.integer("max_completion_tokens", range)?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let message = "'max_tokens' and 'max_completion_tokens' mean the same and differ. Leave one out.";
        return Err(ApiError::invalid("invalid_value", "max_completion_tokens", message));
    }
    Ok(new.or(old).and_then(|tokens| u32::try_from(tokens).ok()))
}

fn stops(body: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match body.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(stops)) => {
            let text = |(at, stop): (usize, Value)| {
                let text = stop.as_str().map(str::to_owned);
                text.ok_or_else(|| wrong_type(&format!("stop[{at}]"), "a string", &stop))
            };
            stops.into_iter().enumerate().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong_type("stop", "a string or an array of strings", &other)),
    };
    let invalid = |message: String| Err(ApiError::invalid("invalid_value", "stop", message));
    if stops.len() > limits::STOPS_MAX {
        return invalid(format!("'stop' has {} strings; {} are allowed.", stops.len(), limits::STOPS_MAX));
    }
    if stops.iter().any(String::is_empty) {
        return invalid("'stop' must not contain an empty string.".to_owned());
    }
    if stops.iter().any(|stop| stop.len() > limits::STOP_BYTES_MAX) {
        return invalid(format!("A string of 'stop' is longer than {} bytes.", limits::STOP_BYTES_MAX));
    }
    Ok(stops)
}

fn stop_ids(body: &mut Fields) -> Result<Vec<u32>, ApiError> {
    match body.take("stop_token_ids") {
        None => Ok(Vec::new()),
        Some(Value::Array(ids)) if ids.len() <= limits::STOP_IDS_MAX => {
            token_ids("stop_token_ids", &ids, u32::MAX)
        }
        Some(Value::Array(ids)) => {
            let message =
                format!("'stop_token_ids' has {} ids; {} are allowed.", ids.len(), limits::STOP_IDS_MAX);
            Err(ApiError::invalid("invalid_value", "stop_token_ids", message))
        }
        Some(other) => Err(wrong_type("stop_token_ids", "an array of token ids", &other)),
    }
}

fn delivery(body: &mut Fields, ignored: &mut Vec<String>) -> Result<Delivery, ApiError> {
    let stream = body.boolean("stream")?.unwrap_or(false);
    let Some(options) = body.take("stream_options") else {
        return Ok(if stream { Delivery::Stream { include_usage: false } } else { Delivery::Whole });
    };
    if !stream {
        let message = "'stream_options' is allowed only with 'stream': true.";
        return Err(ApiError::invalid("invalid_value", "stream_options", message));
    }
    let mut options = Fields::within("stream_options", options)?;
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    // Padding against size analysis: our chunks are not padded, and the text is the same.
    if options.boolean("include_obfuscation")?.is_some() {
        ignored.push("stream_options.include_obfuscation".to_owned());
    }
    match options.rest().next() {
        Some(key) => {
            let key = format!("stream_options.{}", crate::gateway::names::quoted(&key));
            let message = format!("Unknown parameter '{key}'. Leave it out.");
            Err(ApiError::unsupported(key, message))
        }
        None => Ok(Delivery::Stream { include_usage }),
    }
}
