//! Chat messages: from a request's JSON to what a chat template reads.
//!
//! Owns the roles, the content (a string, or text parts joined by line ends) and the tool calls of earlier turns. Refuses
//! images, audio and files, because no model here reads them yet, and unknown fields by their full path.

use minijinja::Value as Shown;
use serde_json::Value;

use super::fields::{Fields, wrong_type};
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::names::quoted;

/// Fields of a message that change nothing in the prompt: display, caching, and what SDKs send back unchanged.
const HINTS: [&str; 3] = ["annotations", "cache_control", "id"];

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    role: Role,
    fields: Vec<(&'static str, Shown)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Developer,
    System,
    User,
    Assistant,
    Tool,
}

impl Message {
    /// The body's `messages`; `ignored` hears of hints inside them.
    pub(crate) fn take_all(body: &mut Fields, ignored: &mut Vec<String>) -> Result<Vec<Self>, ApiError> {
        let messages = body.required("messages")?;
        let Value::Array(messages) = messages else {
            return Err(wrong_type("messages", "an array of messages", &messages));
        };
        if messages.is_empty() || messages.len() > limits::MESSAGES_MAX {
            let message = format!(
                "'messages' has {} messages; 1 to {} are allowed.",
                messages.len(),
                limits::MESSAGES_MAX
            );
            return Err(ApiError::invalid("invalid_value", "messages", message));
        }
        let numbered = messages.into_iter().enumerate();
        numbered.map(|(at, value)| Self::take(&format!("messages[{at}]"), value, ignored)).collect()
    }

    /// As templates know messages. A template that knows no developers hears them as the system.
    pub(crate) fn shown(&self, knows_developers: bool) -> Shown {
        let role = match self.role {
            Role::Developer if knows_developers => "developer",
            Role::Developer | Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        Shown::from_pairs(std::iter::once(("role", Shown::from(role))).chain(self.fields.iter().cloned()))
    }

    /// Of text.
    pub(crate) fn bytes(&self) -> usize {
        let text = |value: &Shown| value.as_str().map_or_else(|| value.to_string().len(), str::len);
        self.fields.iter().map(|(_, value)| text(value)).sum()
    }

    pub(crate) fn take(path: &str, value: Value, ignored: &mut Vec<String>) -> Result<Self, ApiError> {
        let mut message = Fields::within(path, value)?;
        let role = role(&mut message)?;
        let mut fields = vec![("content", content(&mut message)?)];
        if let Some(name) = message.string("name")? {
            fields.push(("name", Shown::from(name)));
        }
        match role {
            Role::Assistant => assistant(&mut message, &mut fields)?,
            Role::Tool => {
                let call = message.string("tool_call_id")?.ok_or_else(|| message.missing("tool_call_id"))?;
                fields.push(("tool_call_id", Shown::from(call)));
            }
            Role::Developer | Role::System | Role::User => {}
        }
        let has_content =
            fields.iter().any(|(key, value)| (*key == "content" || *key == "tool_calls") && !value.is_none());
        if !has_content {
            return Err(message.missing("content"));
        }
        for key in message.rest() {
            if !HINTS.contains(&key.as_str()) {
                let key = format!("{path}.{}", quoted(&key));
                return Err(ApiError::unsupported(
                    &key,
                    format!("The parameter '{key}' is not supported here. Leave it out."),
                ));
            }
            note(ignored, format!("messages.{key}"));
        }
        Ok(Self { role, fields })
    }
}

fn note(ignored: &mut Vec<String>, name: String) {
    if !ignored.contains(&name) {
        ignored.push(name);
    }
}

fn role(message: &mut Fields) -> Result<Role, ApiError> {
    let role = message.string("role")?.ok_or_else(|| message.missing("role"))?;
    match role.as_str() {
        "developer" => Ok(Role::Developer),
        "system" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        other => {
            let path = message.path("role");
            let text = format!(
                "Invalid value for '{path}': '{}'. Roles are developer, system, user, assistant and tool.",
                quoted(other)
            );
            Err(ApiError::invalid("invalid_value", path, text))
        }
    }
}

/// Text as one string; `none` where there is none.
fn content(message: &mut Fields) -> Result<Shown, ApiError> {
    let path = message.path("content");
    match message.take("content") {
        None => Ok(Shown::from(())),
        Some(Value::String(text)) => Ok(Shown::from(text)),
        Some(Value::Array(parts)) => {
            let text = |(at, part)| text_part(&format!("{path}[{at}]"), part);
            let texts: Vec<_> = parts.into_iter().enumerate().map(text).collect::<Result<_, _>>()?;
            Ok(Shown::from(texts.join("\n")))
        }
        Some(other) => Err(wrong_type(&path, "a string or an array of content parts", &other)),
    }
}

fn text_part(path: &str, part: Value) -> Result<String, ApiError> {
    let mut part = Fields::within(path, part)?;
    let kind = part.string("type")?.ok_or_else(|| part.missing("type"))?;
    let what = match kind.as_str() {
        "text" => return part.string("text")?.ok_or_else(|| part.missing("text")),
        "image_url" | "input_image" | "image" => "Images",
        "input_audio" => "Audio",
        "file" | "input_file" => "Files",
        other => {
            let text = format!(
                "Invalid value for '{path}.type': '{}'. Only text parts are supported.",
                quoted(other)
            );
            return Err(ApiError::unsupported(format!("{path}.type"), text));
        }
    };
    let text = format!("{what} are not supported: the models here read text. Remove '{path}'.");
    Err(ApiError::unsupported(path, text))
}

fn assistant(message: &mut Fields, fields: &mut Vec<(&'static str, Shown)>) -> Result<(), ApiError> {
    for key in ["reasoning_content", "reasoning"] {
        if let Some(reasoning) = message.string(key)? {
            fields.push(("reasoning_content", Shown::from(reasoning)));
        }
    }
    // An empty string is what some SDKs send for "no refusal".
    match message.string("refusal")? {
        Some(refusal) if !refusal.is_empty() => {
            let path = message.path("refusal");
            return Err(ApiError::unsupported(
                &path,
                format!("'{path}' is not supported. Put its text into the content."),
            ));
        }
        Some(_) | None => {}
    }
    let path = message.path("tool_calls");
    match message.take("tool_calls") {
        None => {}
        Some(Value::Array(calls)) if calls.is_empty() => {}
        Some(Value::Array(calls)) => {
            let call = |(at, call)| tool_call(&format!("{path}[{at}]"), call);
            let calls: Vec<_> = calls.into_iter().enumerate().map(call).collect::<Result<_, _>>()?;
            fields.push(("tool_calls", Shown::from(calls)));
        }
        Some(other) => return Err(wrong_type(&path, "an array of tool calls", &other)),
    }
    Ok(())
}

fn tool_call(path: &str, call: Value) -> Result<Shown, ApiError> {
    let mut call = Fields::within(path, call)?;
    let id = call.string("id")?;
    let kind = call.string("type")?.unwrap_or_else(|| "function".to_owned());
    if kind != "function" {
        let path = call.path("type");
        return Err(ApiError::unsupported(
            &path,
            format!("'{path}': only tool calls of type 'function' are supported."),
        ));
    }
    let mut function = Fields::within(&call.path("function"), call.required("function")?)?;
    let name = function.string("name")?.ok_or_else(|| function.missing("name"))?;
    let arguments = function.string("arguments")?.unwrap_or_default();
    let shown = [("name", Shown::from(name)), ("arguments", arguments_shown(&arguments))];
    let mut fields = vec![("type", Shown::from(kind)), ("function", Shown::from_pairs(shown))];
    if let Some(id) = id {
        fields.insert(0, ("id", Shown::from(id)));
    }
    Ok(Shown::from_pairs(fields))
}

/// Templates write the arguments with `tojson`, so they must be the object itself; a model's broken JSON stays a string.
fn arguments_shown(arguments: &str) -> Shown {
    match serde_json::from_str::<Shown>(arguments) {
        Ok(object) if object.kind() == minijinja::value::ValueKind::Map => object,
        Ok(_) | Err(_) => Shown::from(arguments),
    }
}
