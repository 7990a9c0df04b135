//! The object `response`: what a client is shown of one, at any moment of its life.
//!
//! Owns its shape, with every key that the SDKs' types need. What does not change is made once and kept, so that every
//! coordinator shows the same to the byte.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::items::{Item, Part, Status};
use crate::gateway::error::ApiError;
use crate::gateway::openai::usage::Usage;
use crate::generation::FinishReason;

/// What does not change from its beginning to its end.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) id: String,
    pub(super) created_at: u64,
    pub(super) background: bool,
    /// What else is told, key by key.
    pub(super) rest: Map<String, Value>,
}

/// How far it is.
pub(super) enum Standing<'a> {
    Queued,
    InProgress,
    Ended(&'a End, &'a str),
}

/// How it ended.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) how: How,
    pub(super) at_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Counted>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum How {
    Completed,
    /// As long as it was allowed to be.
    Length,
    Cancelled,
    Failed {
        code: String,
        message: String,
    },
}

/// Tokens.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Counted {
    input: u64,
    cached: u64,
    output: u64,
}

impl Counted {
    pub(super) fn of(usage: &Usage) -> Self {
        Self {
            input: usage.prompt_tokens(),
            cached: usage.cached_tokens(),
            output: usage.completion_tokens(),
        }
    }
}

impl End {
    pub(super) fn finished(reason: FinishReason, usage: &Usage, at_unix_s: u64) -> Self {
        let how = match reason {
            FinishReason::Stop => How::Completed,
            FinishReason::Length => How::Length,
        };
        Self { how, at_unix_s, usage: Some(Counted::of(usage)) }
    }

    pub(super) fn failed(error: &ApiError, at_unix_s: u64) -> Self {
        let how = How::Failed { code: error.code.to_owned(), message: error.message.clone() };
        Self { how, at_unix_s, usage: None }
    }

    pub(super) fn cancelled(at_unix_s: u64) -> Self {
        Self { how: How::Cancelled, at_unix_s, usage: None }
    }

    pub(super) fn status(&self) -> &'static str {
        match self.how {
            How::Completed => "completed",
            How::Length => "incomplete",
            How::Cancelled => "cancelled",
            How::Failed { .. } => "failed",
        }
    }

    /// What its last event is called. There is none for one that was cancelled; that one is incomplete too.
    pub(super) fn event(&self) -> &'static str {
        match self.how {
            How::Completed => "response.completed",
            How::Length | How::Cancelled => "response.incomplete",
            How::Failed { .. } => "response.failed",
        }
    }
}

impl Head {
    /// The id of the one message that is answered.
    pub(super) fn message_id(&self) -> String {
        format!("msg_{}", self.id.trim_start_matches("resp_"))
    }

    /// That message; `None` for the end that nobody knows yet.
    pub(super) fn message(&self, text: Option<&str>, end: Option<&End>) -> Item {
        let status = match end.map(|end| &end.how) {
            None => Status::InProgress,
            Some(How::Completed) => Status::Completed,
            Some(How::Length | How::Cancelled | How::Failed { .. }) => Status::Incomplete,
        };
        let content = text.map(Part::output).into_iter().collect();
        Item::Message { id: self.message_id(), status, role: "assistant".to_owned(), content }
    }

    /// An answer without a word has no message, unless it is complete.
    pub(super) fn output(&self, text: &str, end: &End) -> Vec<Item> {
        let complete = matches!(end.how, How::Completed | How::Length);
        let any = complete || !text.is_empty();
        any.then(|| self.message(Some(text), Some(end))).into_iter().collect()
    }

    pub(super) fn shown(&self, standing: &Standing<'_>) -> Value {
        let mut object = self.rest.clone();
        let (status, output, usage) = match standing {
            Standing::Queued => ("queued", Vec::new(), None),
            Standing::InProgress => ("in_progress", Vec::new(), None),
            Standing::Ended(end, text) => (end.status(), self.output(text, end), end.usage),
        };
        let (mut error, mut details, mut completed_at) = (Value::Null, Value::Null, Value::Null);
        if let Standing::Ended(end, _) = standing {
            match &end.how {
                How::Completed => completed_at = end.at_unix_s.into(),
                How::Length => details = json!({"reason": "max_output_tokens"}),
                How::Cancelled => {}
                How::Failed { code, message } => {
                    error = json!({"code": error_code(code), "message": message});
                }
            }
        }
        object.extend([
            ("id".to_owned(), json!(self.id)),
            ("object".to_owned(), json!("response")),
            ("created_at".to_owned(), json!(self.created_at)),
            ("background".to_owned(), json!(self.background)),
            ("status".to_owned(), json!(status)),
            ("output".to_owned(), json!(output)),
            ("usage".to_owned(), usage.map_or(Value::Null, told)),
            ("error".to_owned(), error),
            ("incomplete_details".to_owned(), details),
            ("completed_at".to_owned(), completed_at),
        ]);
        object.into()
    }
}

/// The SDKs know a list of codes; ours beside it are told as they are.
fn error_code(code: &str) -> &str {
    if code == "internal_error" { "server_error" } else { code }
}

fn told(counted: Counted) -> Value {
    let Counted { input, cached, output } = counted;
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input.saturating_add(output),
    })
}
