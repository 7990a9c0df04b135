//! Sampling parameters: read, checked, and completed with the model's and OpenAI's defaults.
//!
//! Owns their ranges and the order of defaults: the request, then the model's `generation_config.json`, then OpenAI's. Refuses
//! values outside the ranges instead of clamping them.

use proto::v1::{LogitBias, Sampling};
use serde_json::Value;

use super::fields::{Fields, narrow, out_of_range, wrong_type};
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::text::card::SamplingDefaults;

/// What the client said; `None` is left to the defaults.
#[derive(Debug, Default)]
pub(crate) struct SamplingWish {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: f32,
    frequency_penalty: f32,
    logit_bias: Vec<LogitBias>,
    seed: Option<u64>,
}

impl SamplingWish {
    pub(crate) fn take(body: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            temperature: body.number("temperature", 0.0..=2.0)?,
            top_p: above_zero("top_p", body.number("top_p", 0.0..=1.0)?)?,
            // -1 is how vLLM's users switch it off.
            top_k: body.integer("top_k", -1..=i64::from(u32::MAX))?.map(|k| u32::try_from(k).unwrap_or(0)),
            min_p: body.number("min_p", 0.0..=1.0)?,
            repetition_penalty: above_zero(
                "repetition_penalty",
                body.number("repetition_penalty", 0.0..=10.0)?,
            )?,
            presence_penalty: body.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            frequency_penalty: body.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            logit_bias: logit_bias(body)?,
            seed: seed(body)?,
        })
    }

    /// Ids are known to be right only beside a vocabulary.
    pub(crate) fn check(&self, vocabulary: u32) -> Result<(), ApiError> {
        match self.logit_bias.iter().find(|bias| bias.token >= vocabulary) {
            Some(bias) => {
                let path = format!("logit_bias.{}", bias.token);
                let message =
                    format!("There is no token {}: this model's vocabulary has {vocabulary}.", bias.token);
                Err(ApiError::invalid("invalid_value", path, message))
            }
            None => Ok(()),
        }
    }

    /// For the `nth` of several answers to one prompt: with a seed, each gets its own, `seed + nth`.
    pub(crate) fn complete(&self, defaults: &SamplingDefaults, nth: u64) -> Sampling {
        Sampling {
            temperature: self.temperature.or(defaults.temperature).unwrap_or(1.0),
            top_p: self.top_p.or(defaults.top_p).unwrap_or(1.0),
            top_k: self.top_k.or(defaults.top_k).unwrap_or(0),
            min_p: self.min_p.or(defaults.min_p).unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.map(|seed| seed.wrapping_add(nth)),
        }
    }
}

/// Any 64 bits. A negative seed is a seed like any other: its bits count.
fn seed(body: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = body.take("seed") else { return Ok(None) };
    match value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)) {
        Some(seed) => Ok(Some(seed)),
        None => Err(wrong_type("seed", "a 64-bit integer", &value)),
    }
}

fn above_zero(path: &str, number: Option<f32>) -> Result<Option<f32>, ApiError> {
    if number == Some(0.0) {
        let message = format!("Invalid value for '{path}': it must be greater than 0.");
        return Err(ApiError::invalid("invalid_value", path, message));
    }
    Ok(number)
}

fn logit_bias(body: &mut Fields) -> Result<Vec<LogitBias>, ApiError> {
    let map = match body.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong_type("logit_bias", "an object of token ids and biases", &other)),
    };
    if map.len() > limits::LOGIT_BIAS_MAX {
        let message =
            format!("'logit_bias' has {} tokens; {} are allowed.", map.len(), limits::LOGIT_BIAS_MAX);
        return Err(ApiError::invalid("invalid_value", "logit_bias", message));
    }
    let entry = |(key, value): (String, Value)| {
        let path = format!("logit_bias.{}", crate::gateway::names::quoted(&key));
        let token = key.parse().map_err(|_| {
            ApiError::invalid(
                "invalid_value",
                &path,
                format!("'{path}': a token id was expected as the key."),
            )
        })?;
        let bias = value.as_f64().ok_or_else(|| wrong_type(&path, "a number", &value))?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(out_of_range(&path, &-100, &100));
        }
        Ok(LogitBias { token, bias: narrow(bias) })
    };
    map.into_iter().map(entry).collect()
}
