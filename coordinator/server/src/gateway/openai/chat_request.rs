//! The body of `POST /v1/chat/completions`.
//!
//! Owns reading it whole: every key is honoured, named as ignored, or refused. Refuses tools that a model may call and formats
//! that would need constrained decoding, because an answer without them would look honoured.

use minijinja::Value as Shown;
use serde_json::Value;

use super::asking::Served;
use super::fields::{Fields, wrong_type};
use super::hints;
use super::messages::Message;
use super::options::Options;
use super::sampling::SamplingWish;
use super::traits::Said;
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::text::card::CardError;
use crate::gateway::text::rendering::{RenderError, Task};
use crate::gateway::text::template::Conversation;

/// Names a template already has; a client's variables may not stand in for them.
const RESERVED: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "strftime_now",
    "raise_exception",
    "namespace",
];

/// What a chat client asked for.
#[derive(Debug)]
pub(crate) struct ChatRequest {
    pub(crate) options: Options,
    pub(crate) sampling: SamplingWish,
    /// As in a wish: the alternatives for each token.
    pub(crate) top_logprobs: Option<u32>,
    pub(crate) said: Said,
    pub(crate) ignored: Vec<String>,
    pub(crate) talk: Talk,
}

/// What the prompt is made of.
#[derive(Debug)]
pub(crate) struct Talk {
    messages: Vec<Message>,
    variables: Vec<(String, Shown)>,
    reasoning_effort: Option<String>,
}

impl ChatRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut body = Fields::parse(body)?;
        let mut ignored = Vec::new();
        let options = Options::take(&mut body, &mut ignored)?;
        let messages = Message::take_all(&mut body, &mut ignored)?;
        let sampling = SamplingWish::take(&mut body)?;
        let top_logprobs = logprobs(&mut body)?;
        let said = Said::take(&mut body)?;
        tools(&mut body, &mut ignored)?;
        response_format(&mut body)?;
        modalities(&mut body)?;
        let variables = variables(&mut body)?;
        let reasoning_effort = body.string("reasoning_effort")?;
        ignored.extend(hints::ignored(body)?);
        let talk = Talk { messages, variables, reasoning_effort };
        Ok(Self { options, sampling, top_logprobs, said, ignored, talk })
    }
}

impl Talk {
    pub(crate) fn new(messages: Vec<Message>, reasoning_effort: Option<String>) -> Self {
        Self { messages, variables: Vec::new(), reasoning_effort }
    }

    /// What a renderer makes the prompt of.
    pub(crate) fn task(self, served: &Served, now_unix_s: u64) -> Result<Task, ApiError> {
        let Some(template) = &served.card.template else {
            let message =
                "This model has no chat template. Use /v1/completions, or a model that was trained to chat.";
            return Err(ApiError::invalid("no_chat_template", "model", message));
        };
        let mut variables = self.variables;
        if let Some(effort) = self.reasoning_effort {
            if !template.mentions("reasoning_effort") {
                let message = "This model's template knows no 'reasoning_effort'. Leave it out.";
                return Err(ApiError::unsupported("reasoning_effort", message));
            }
            variables.push(("reasoning_effort".to_owned(), Shown::from(effort)));
        }
        let knows_developers = template.mentions("developer");
        let bytes = self.messages.iter().map(Message::bytes).sum();
        let messages = self.messages.iter().map(|message| message.shown(knows_developers)).collect();
        let conversation = Conversation { messages, tools: None, variables, now_unix_s, bytes };
        Task::rendering(template, &served.model.name, conversation).map_err(unrendered)
    }
}

pub(crate) fn unrendered(error: RenderError) -> ApiError {
    let unavailable =
        |message: &str, after| ApiError::unavailable("rendering_unavailable", message.to_owned(), after);
    let message = match error {
        RenderError::Raised(words) => format!("The model's chat template refused these messages: {words}"),
        RenderError::OutOfBounds => "These messages are more than a chat template may work on.".to_owned(),
        RenderError::Failed(words) => {
            format!("The model's chat template could not render these messages: {words}.")
        }
        RenderError::Refused { again_in } => {
            let message = "This model's chat template has taken more than its bounds several times in a row, and is tried again in a \
                           while. If that goes on, ask another model, and have this one's folder looked at.";
            return unavailable(message, again_in);
        }
        RenderError::Busy => {
            return unavailable(
                "Too many prompts are rendered at the moment. Send the request again.",
                limits::RETRY_AFTER_LOSS,
            );
        }
        RenderError::Lost => {
            return unavailable(
                "The process that rendered the prompt has ended. Send the request again.",
                limits::RETRY_AFTER_LOSS,
            );
        }
        RenderError::NotStarted => {
            let message = "This coordinator could not start the process that renders prompts. Its log says why; if its program was \
                           replaced, start it anew. Another coordinator may serve meanwhile.";
            return unavailable(message, limits::RETRY_AFTER_LOSS);
        }
    };
    ApiError::invalid("invalid_messages", "messages", message)
}

pub(crate) fn untokenised(error: CardError) -> ApiError {
    ApiError::internal(error.to_string())
}

fn logprobs(body: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = body.boolean("logprobs")?.unwrap_or(false);
    let top = body.integer("top_logprobs", 0..=limits::TOP_LOGPROBS_MAX)?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.and_then(|top| u32::try_from(top).ok()).unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "'top_logprobs' is allowed only with 'logprobs': true.";
            Err(ApiError::invalid("invalid_value", "top_logprobs", message))
        }
    }
}

/// With `tool_choice: "none"` no tool may be called: the tools then stay out of the prompt.
pub(crate) fn tools(body: &mut Fields, ignored: &mut Vec<String>) -> Result<(), ApiError> {
    let given = match body.take("tools") {
        Some(Value::Array(tools)) => !tools.is_empty(),
        None => false,
        Some(other) => return Err(wrong_type("tools", "an array of tools", &other)),
    };
    let choice = body.take("tool_choice");
    let none = choice.as_ref().is_some_and(|choice| choice == "none");
    if given && !none {
        let message = "Tools are not supported yet. Leave them out, or set 'tool_choice' to \"none\".";
        return Err(ApiError::unsupported("tools", message));
    }
    // Without tools, "auto" means the same as "none"; a required tool cannot be called.
    if !none && choice.is_some_and(|choice| choice != "auto") {
        let message = "Tool calls are not supported yet. Set 'tool_choice' to \"none\" or leave it out.";
        return Err(ApiError::unsupported("tool_choice", message));
    }
    if given {
        ignored.push("tools".to_owned());
    }
    Ok(())
}

fn response_format(body: &mut Fields) -> Result<(), ApiError> {
    let Some(format) = body.take("response_format") else { return Ok(()) };
    let mut format = Fields::within("response_format", format)?;
    let kind = format.string("type")?.ok_or_else(|| format.missing("type"))?;
    if kind == "text" {
        return Ok(());
    }
    let message =
        "Only the response format 'text' is supported yet: answers are not constrained to JSON or a schema.";
    Err(ApiError::unsupported("response_format", message))
}

fn modalities(body: &mut Fields) -> Result<(), ApiError> {
    match body.take("modalities") {
        None => Ok(()),
        Some(modalities) if modalities == serde_json::json!(["text"]) => Ok(()),
        Some(_) => Err(ApiError::unsupported("modalities", "Only the modality 'text' is supported.")),
    }
}

fn variables(body: &mut Fields) -> Result<Vec<(String, Shown)>, ApiError> {
    let variables = match body.take("chat_template_kwargs") {
        None => return Ok(Vec::new()),
        Some(Value::Object(variables)) => variables,
        Some(other) => return Err(wrong_type("chat_template_kwargs", "an object", &other)),
    };
    if let Some(reserved) = RESERVED.into_iter().find(|name| variables.contains_key(*name)) {
        let path = format!("chat_template_kwargs.{reserved}");
        let message = format!("'{path}' is set by the request itself and cannot be given here.");
        return Err(ApiError::unsupported(path, message));
    }
    let shown = |(name, value): (String, Value)| {
        let value = serde_json::from_value(value)
            .map_err(|_| wrong_type("chat_template_kwargs", "JSON values", &Value::Null))?;
        Ok((name, value))
    };
    variables.into_iter().map(shown).collect()
}
