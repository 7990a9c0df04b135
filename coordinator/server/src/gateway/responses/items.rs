//! Items: what a response is asked with and what it answers, in the one form in which they are kept and shown.
//!
//! Owns reading a client's `input`, which may be shorter than that form, and the messages of a chat that items become. Refuses
//! images, audio, files and references to other items, because an answer without them would look as if they had been read. Refuses
//! `Debug`: items are what a client wrote.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::names::quoted;
use crate::gateway::openai::fields::{Fields, wrong_type};
use crate::gateway::openai::messages::Message;
use crate::gateway::request_id;

/// One item.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item {
    Message { id: String, status: Status, role: String, content: Vec<Part> },
    FunctionCall { id: String, status: Status, call_id: String, name: String, arguments: String },
    FunctionCallOutput { id: String, status: Status, call_id: String, output: String },
    Reasoning { id: String, status: Status, summary: Vec<Part>, content: Vec<Part> },
}

/// An item of an answer that breaks off is incomplete.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

/// A piece of text, by what it is for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(super) enum Part {
    #[serde(rename = "input_text")]
    Input { text: String },
    #[serde(rename = "output_text")]
    Output {
        text: String,
        /// No model here cites, and nobody may ask for log probabilities here.
        annotations: [(); 0],
        logprobs: [(); 0],
    },
    #[serde(rename = "reasoning_text")]
    Reasoning { text: String },
    #[serde(rename = "summary_text")]
    Summary { text: String },
}

impl Part {
    pub(super) fn output(text: impl Into<String>) -> Self {
        Self::Output { text: text.into(), annotations: [], logprobs: [] }
    }

    fn text(&self) -> &str {
        match self {
            Self::Input { text }
            | Self::Output { text, .. }
            | Self::Reasoning { text }
            | Self::Summary { text } => text,
        }
    }
}

/// The body's `input`.
pub(super) fn take(body: &mut Fields) -> Result<Vec<Item>, ApiError> {
    let input = body.required("input")?;
    if let Value::String(text) = input {
        return Ok(vec![said("user", vec![Part::Input { text }])]);
    }
    let Value::Array(items) = input else {
        return Err(wrong_type("input", "a string or an array of items", &input));
    };
    if items.is_empty() || items.len() > limits::MESSAGES_MAX {
        let message =
            format!("'input' has {} items; 1 to {} are allowed.", items.len(), limits::MESSAGES_MAX);
        return Err(ApiError::invalid("invalid_value", "input", message));
    }
    let numbered = items.into_iter().enumerate();
    numbered.map(|(at, item)| one(&format!("input[{at}]"), item)).collect()
}

fn said(role: &str, content: Vec<Part>) -> Item {
    Item::Message { id: request_id::fresh("msg_"), status: Status::Completed, role: role.to_owned(), content }
}

fn one(path: &str, item: Value) -> Result<Item, ApiError> {
    let mut item = Fields::within(path, item)?;
    let kind = item.string("type")?.unwrap_or_else(|| "message".to_owned());
    let given = item.string("id")?;
    // Whoever sends back what it was answered sends this with it.
    let _ = item.string("status")?;
    let status = Status::Completed;
    let id = |prefix| given.unwrap_or_else(|| request_id::fresh(prefix));
    let read = match kind.as_str() {
        "message" => {
            let role = role(&mut item)?;
            let content = content(&mut item, "content", &role)?;
            let _ = item.string("phase")?;
            Item::Message { id: id("msg_"), status, role, content }
        }
        "function_call" => {
            let (call_id, name) = (required(&mut item, "call_id")?, required(&mut item, "name")?);
            let arguments = required(&mut item, "arguments")?;
            Item::FunctionCall { id: id("fc_"), status, call_id, name, arguments }
        }
        "function_call_output" => {
            let call_id = required(&mut item, "call_id")?;
            let output = content(&mut item, "output", "tool")?;
            let output = joined(&output);
            Item::FunctionCallOutput { id: id("fco_"), status, call_id, output }
        }
        "reasoning" => {
            let summary = reasoning(&mut item, "summary", |text| Part::Summary { text })?;
            let content = reasoning(&mut item, "content", |text| Part::Reasoning { text })?;
            // Only whoever wrote it can read it.
            let _ = item.string("encrypted_content")?;
            Item::Reasoning { id: id("rs_"), status, summary, content }
        }
        other => {
            let path = item.path("type");
            let message = format!(
                "Invalid value for '{path}': '{}'. Items are message, function_call, function_call_output and reasoning.",
                quoted(other)
            );
            return Err(ApiError::unsupported(path, message));
        }
    };
    nothing_more(path, item)?;
    Ok(read)
}

fn required(item: &mut Fields, key: &str) -> Result<String, ApiError> {
    item.string(key)?.ok_or_else(|| item.missing(key))
}

fn nothing_more(path: &str, fields: Fields) -> Result<(), ApiError> {
    let Some(key) = fields.rest().next() else { return Ok(()) };
    let key = format!("{path}.{}", quoted(&key));
    let message = format!("The parameter '{key}' is not supported here. Leave it out.");
    Err(ApiError::unsupported(key, message))
}

fn role(item: &mut Fields) -> Result<String, ApiError> {
    let role = required(item, "role")?;
    if ["developer", "system", "user", "assistant"].contains(&role.as_str()) {
        return Ok(role);
    }
    let path = item.path("role");
    let message = format!(
        "Invalid value for '{path}': '{}'. Roles are developer, system, user and assistant.",
        quoted(&role)
    );
    Err(ApiError::invalid("invalid_value", path, message))
}

fn content(item: &mut Fields, key: &str, role: &str) -> Result<Vec<Part>, ApiError> {
    let path = item.path(key);
    let part = |text| if role == "assistant" { Part::output(text) } else { Part::Input { text } };
    let given = item.required(key)?;
    if let Value::String(text) = given {
        return Ok(vec![part(text)]);
    }
    let Value::Array(parts) = given else {
        return Err(wrong_type(&path, "a string or an array of content parts", &given));
    };
    let text = |(at, value)| Ok(part(text_part(&format!("{path}[{at}]"), value)?));
    parts.into_iter().enumerate().map(text).collect()
}

fn text_part(path: &str, part: Value) -> Result<String, ApiError> {
    let mut part = Fields::within(path, part)?;
    let kind = required(&mut part, "type")?;
    let what = match kind.as_str() {
        "input_text" | "output_text" | "text" => {
            // What an answer had beside its text, sent back with it.
            let _ = (part.take("annotations"), part.take("logprobs"));
            let text = required(&mut part, "text")?;
            nothing_more(path, part)?;
            return Ok(text);
        }
        "input_image" => "Images",
        "input_audio" => "Audio",
        "input_file" => "Files",
        "refusal" => "Refusals",
        other => {
            let path = part.path("type");
            let message =
                format!("Invalid value for '{path}': '{}'. Only text parts are supported.", quoted(other));
            return Err(ApiError::unsupported(path, message));
        }
    };
    let message = format!("{what} are not supported: the models here read text. Remove '{path}'.");
    Err(ApiError::unsupported(path, message))
}

fn reasoning(item: &mut Fields, key: &str, part: fn(String) -> Part) -> Result<Vec<Part>, ApiError> {
    let path = item.path(key);
    match item.take(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(parts)) => {
            let text = |(at, value)| {
                let path = format!("{path}[{at}]");
                let mut fields = Fields::within(&path, value)?;
                let _ = fields.string("type")?;
                let text = required(&mut fields, "text")?;
                nothing_more(&path, fields)?;
                Ok(part(text))
            };
            parts.into_iter().enumerate().map(text).collect()
        }
        Some(other) => Err(wrong_type(&path, "an array of texts", &other)),
    }
}

/// Text as one string, as in a chat.
fn joined(parts: &[Part]) -> String {
    parts.iter().map(Part::text).collect::<Vec<_>>().join("\n")
}

/// The chat that they are. Calls and reasoning belong to the assistant's message that follows them, or are one.
pub(super) fn messages(instructions: Option<&str>, items: &[Item]) -> Result<Vec<Message>, ApiError> {
    let mut chat = Chat::default();
    if let Some(instructions) = instructions {
        chat.say(json!({"role": "system", "content": instructions}), "instructions");
    }
    for (at, item) in items.iter().enumerate() {
        let path = format!("input[{at}]");
        match item {
            Item::Message { role, content, .. } if role == "assistant" => {
                chat.assistant(&path).insert("content".to_owned(), joined(content).into());
                chat.close();
            }
            Item::Message { role, content, .. } => {
                chat.say(json!({"role": role, "content": joined(content)}), &path);
            }
            Item::FunctionCall { call_id, name, arguments, .. } => {
                let call = json!({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}});
                chat.call(&path, call);
            }
            Item::FunctionCallOutput { call_id, output, .. } => {
                chat.say(json!({"role": "tool", "tool_call_id": call_id, "content": output}), &path);
            }
            Item::Reasoning { content, .. } if content.is_empty() => {}
            Item::Reasoning { content, .. } => {
                chat.assistant(&path).insert("reasoning_content".to_owned(), joined(content).into());
            }
        }
    }
    chat.close();
    let mut nothing = Vec::new();
    chat.messages.into_iter().map(|(path, message)| Message::take(&path, message, &mut nothing)).collect()
}

/// Messages so far, each with the place that it is from.
#[derive(Default)]
struct Chat {
    messages: Vec<(String, Value)>,
    /// The assistant's, which may get more.
    open: Option<(String, Map<String, Value>)>,
}

impl Chat {
    fn say(&mut self, message: Value, path: &str) {
        self.close();
        self.messages.push((path.to_owned(), message));
    }

    fn assistant(&mut self, path: &str) -> &mut Map<String, Value> {
        let fresh = || (path.to_owned(), Map::from_iter([("role".to_owned(), "assistant".into())]));
        &mut self.open.get_or_insert_with(fresh).1
    }

    fn call(&mut self, path: &str, call: Value) {
        let calls = self.assistant(path).entry("tool_calls").or_insert_with(|| json!([]));
        if let Value::Array(calls) = calls {
            calls.push(call);
        }
    }

    /// Reasoning alone is no message.
    fn close(&mut self) {
        let Some((path, message)) = self.open.take() else { return };
        if message.contains_key("content") || message.contains_key("tool_calls") {
            self.messages.push((path, message.into()));
        }
    }
}
