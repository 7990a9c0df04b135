//! What becomes of parameters that no reader took.
//!
//! Owns the two lists: hints, which do not change an answer and are named in `x-mlx-ignored-params`, and parameters that are
//! known and not honoured yet. Everything else is refused as unknown, with the name that was probably meant. Nothing is
//! dropped in silence.

use axum::http::HeaderMap;

use super::fields::Fields;
use crate::gateway::error::ApiError;
use crate::gateway::names;

/// Accepted and not used: they concern billing, storage or display, never the text of the answer.
const HINTS: [&str; 7] = [
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "prediction",
    "provider",
];

/// Headers that promise something we do not do, as without an `Idempotency-Key`: named like a hint, so that nobody relies on it.
const HEADERS: [&str; 1] = ["last-event-id"];

/// Known to others and not honoured here: the answer would not be what the client asked for.
const UNSUPPORTED: [&str; 23] = [
    "audio",
    "best_of",
    "early_stopping",
    "format",
    "function_call",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "length_penalty",
    "min_tokens",
    "mirostat",
    "modalities",
    "reasoning",
    "structured_outputs",
    "suffix",
    "thinking",
    "typical_p",
    "verbosity",
    "web_search_options",
];

/// What other servers call a parameter that is honoured here.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("max_length", "max_tokens"),
    ("max_new_tokens", "max_tokens"),
    ("num_predict", "max_tokens"),
    ("repeat_penalty", "repetition_penalty"),
    ("stop_sequences", "stop"),
    ("top_n_logprobs", "top_logprobs"),
];

/// Every parameter that some reader takes, for the "did you mean".
const HONOURED: [&str; 31] = [
    "cache_salt",
    "chat_template_kwargs",
    "echo",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "min_p",
    "model",
    "n",
    "presence_penalty",
    "prompt",
    "prompt_cache_key",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "seed",
    "service_tier",
    "stop",
    "stop_token_ids",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
];

/// How what nobody took is judged at one endpoint.
pub(crate) struct Lists {
    /// Accepted and not used.
    pub(crate) hints: &'static [&'static str],
    /// Known and not honoured.
    pub(crate) unsupported: &'static [&'static str],
    /// What others call what is honoured.
    pub(crate) other_names: &'static [(&'static str, &'static str)],
    /// For the "did you mean".
    pub(crate) honoured: &'static [&'static str],
}

const COMPLETIONS: Lists =
    Lists { hints: &HINTS, unsupported: &UNSUPPORTED, other_names: &OTHER_NAMES, honoured: &HONOURED };

/// The request's headers that are not honoured.
pub(crate) fn in_headers(headers: &HeaderMap) -> impl Iterator<Item = String> {
    HEADERS.into_iter().filter(|name| headers.contains_key(*name)).map(str::to_owned)
}

/// Names of what was given and is not used, in order; or the refusal of the first that cannot be passed over.
pub(crate) fn ignored(body: Fields) -> Result<Vec<String>, ApiError> {
    COMPLETIONS.ignored(body)
}

impl Lists {
    /// [`ignored`], by these lists.
    pub(crate) fn ignored(&self, body: Fields) -> Result<Vec<String>, ApiError> {
        let mut ignored: Vec<_> = body.rest().map(|key| self.ignorable(key)).collect::<Result<_, _>>()?;
        ignored.sort_unstable();
        Ok(ignored)
    }

    fn ignorable(&self, key: String) -> Result<String, ApiError> {
        if self.hints.contains(&key.as_str()) {
            return Ok(key);
        }
        if self.unsupported.contains(&key.as_str()) {
            let message = format!("The parameter '{key}' is not supported here. Leave it out.");
            return Err(ApiError::unsupported(key, message));
        }
        let known = self.honoured.iter().chain(self.hints).copied();
        let renamed = self.other_names.iter().find(|(other, _)| *other == key).map(|(_, ours)| *ours);
        let hint = match renamed.or_else(|| names::close(&key, known).first().copied()) {
            Some(close) => format!("Did you mean '{close}'?"),
            None => "Leave it out.".to_owned(),
        };
        let key = names::quoted(&key);
        let message = format!("Unknown parameter '{key}'. {hint}");
        Err(ApiError::unsupported(key, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(body: &str) -> Result<Vec<String>, ApiError> {
        ignored(Fields::parse(body.as_bytes()).expect("an object"))
    }

    #[test]
    fn hints_are_listed_in_order_and_nulls_are_not_there() {
        let body = r#"{"store":true,"metadata":{"a":"b"},"provider":{},"audio":null,"anything":null}"#;
        assert_eq!(judged(body), Ok(vec!["metadata".to_owned(), "provider".to_owned(), "store".to_owned()]));
    }

    #[test]
    fn what_would_change_the_answer_is_refused_by_name() {
        for key in UNSUPPORTED {
            let error = judged(&format!(r#"{{"{key}":1}}"#)).expect_err("refused");
            assert_eq!((error.code, error.param.as_deref()), ("unsupported_parameter", Some(key)));
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_what_was_probably_meant() {
        let cases = [
            ("temprature", "temperature"),
            ("repeat_penalty", "repetition_penalty"),
            ("max_token", "max_tokens"),
        ];
        for (given, meant) in cases {
            let error = judged(&format!(r#"{{"{given}":1}}"#)).expect_err("refused");
            assert!(error.message.contains(&format!("Did you mean '{meant}'")), "{}", error.message);
        }
        let error = judged(r#"{"zzzzzzzzzz":1}"#).expect_err("refused");
        assert_eq!(error.message, "Unknown parameter 'zzzzzzzzzz'. Leave it out.");
    }

    #[test]
    fn the_lists_do_not_overlap() {
        let mut all: Vec<_> = HINTS.into_iter().chain(UNSUPPORTED).chain(HONOURED).collect();
        let before = all.len();
        all.sort_unstable();
        all.dedup();
        // `best_of` and `suffix` are read by completions alone and stay on the list of what is refused.
        assert_eq!(all.len(), before);
    }
}
