//! Chat templates: from messages to the one text a model was trained to continue.
//!
//! Runs in a renderer (`rendering`), because some work is not counted here: on values that share their parts. Owns the sandbox (no
//! files, no loader, no includes; fuel, stack and output are bounded) and what transformers gives a template: trimmed blocks, loop
//! controls, Python's string methods, `tojson`, `raise_exception`, `strftime_now`. Refuses to repair a template: one that cannot be
//! rendered as transformers renders it is an error with a line number.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value, context};
use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use super::own_stack::on_own_stack;
use super::pyjson::tojson;
use super::strftime::strftime;
use crate::gateway::limits;

/// The only template of each environment.
const NAME: &str = "chat";

/// A compiled chat template.
pub(crate) struct Template {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and their like, as the tokenizer's configuration names them.
    special_tokens: Vec<(String, String)>,
}

/// What a template is rendered over.
#[derive(Serialize, Deserialize)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Value>,
    pub(crate) tools: Option<Value>,
    /// Variables of the client's own (`chat_template_kwargs`).
    pub(crate) variables: Vec<(String, Value)>,
    pub(crate) now_unix_s: u64,
    /// Of the text of the messages.
    pub(crate) bytes: usize,
}

impl Conversation {
    /// The work that it may take.
    fn fuel(&self) -> u64 {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let messages = count(self.messages.len()).saturating_mul(limits::TEMPLATE_FUEL_PER_MESSAGE);
        let bytes = count(self.bytes) / limits::TEMPLATE_BYTES_PER_FUEL;
        let fuel = limits::TEMPLATE_FUEL_BASE.saturating_add(messages).saturating_add(bytes);
        fuel.min(limits::TEMPLATE_FUEL)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("the chat template has {0} bytes; {max} are allowed", max = limits::TEMPLATE_BYTES_MAX)]
    TooLong(usize),
    #[error("the chat template does not compile: {0}")]
    Compile(Error),
    /// The template itself refused the messages.
    #[error("{0}")]
    Raised(String),
    #[error("rendering these messages takes more than the bounds of a chat template")]
    OutOfBounds,
    #[error("the chat template failed in line {line}: {kind}")]
    Render { line: usize, kind: ErrorKind },
}

impl Template {
    pub(crate) fn compile(
        source: &str,
        special_tokens: Vec<(String, String)>,
    ) -> Result<Self, TemplateError> {
        if source.len() > limits::TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong(source.len()));
        }
        let compiled = on_own_stack(limits::TEMPLATE_PARSE_STACK_BYTES, || {
            let mut environment = sandbox()?;
            environment.add_template_owned(NAME, without_training_marks(source))?;
            Ok(environment)
        });
        let environment = compiled.ok_or(TemplateError::OutOfBounds)?.map_err(TemplateError::Compile)?;
        Ok(Self { environment, special_tokens })
    }

    /// The prompt, ending where the assistant's answer begins.
    pub(crate) fn render(&self, conversation: Conversation) -> Result<String, TemplateError> {
        let fuel = conversation.fuel();
        let stack =
            usize::try_from(fuel).unwrap_or(usize::MAX).saturating_mul(limits::TEMPLATE_STACK_BYTES_PER_FUEL);
        let stack = stack.clamp(limits::TEMPLATE_STACK_BYTES_MIN, limits::TEMPLATE_STACK_BYTES_MAX);
        on_own_stack(stack, || self.render_here(conversation, fuel))
            .unwrap_or(Err(TemplateError::OutOfBounds))
    }

    fn render_here(&self, conversation: Conversation, fuel: u64) -> Result<String, TemplateError> {
        let now_unix_s = conversation.now_unix_s;
        let special_tokens =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let variables = conversation.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let context = context! {
            messages => conversation.messages,
            tools => conversation.tools.unwrap_or(Value::from(())),
            documents => Value::from(()),
            add_generation_prompt => true,
            strftime_now => Value::from_function(move |format: &str| strftime(now_unix_s, format)),
            ..Value::from_pairs(special_tokens.chain(variables))
        };
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));
        let template = environment.get_template(NAME).map_err(TemplateError::Compile)?;
        let mut prompt = Bounded::default();
        match template.render_captured_to(context, &mut prompt) {
            // The engine may not notice that a piece did not fit.
            Ok(_) | Err(_) if prompt.full => Err(TemplateError::OutOfBounds),
            Ok(_) => String::from_utf8(prompt.bytes).map_err(|_| TemplateError::OutOfBounds),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn sandbox() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_recursion_limit(limits::TEMPLATE_DEPTH);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.set_unknown_method_callback(python_method);
    environment.set_formatter(|out, state, value| {
        let python = match (value.kind(), value.is_true()) {
            (ValueKind::None, _) => "None",
            (ValueKind::Bool, true) => "True",
            (ValueKind::Bool, false) => "False",
            _ => return minijinja::escape_formatter(out, state, value),
        };
        out.write_str(python).map_err(Error::from)
    });
    Ok(environment)
}

/// The error that carries a template's own words through the engine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message)))
}

/// Methods of Python's strings, lists and dicts; two newer ones are added to those of minijinja's own collection.
fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), method, args) {
        (Some(text), "removeprefix", [prefix]) => {
            Ok(Value::from(prefix.as_str().and_then(|prefix| text.strip_prefix(prefix)).unwrap_or(text)))
        }
        (Some(text), "removesuffix", [suffix]) => {
            Ok(Value::from(suffix.as_str().and_then(|suffix| text.strip_suffix(suffix)).unwrap_or(text)))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// The template's own refusal if there is one in the chain, else where and how the engine failed. Never the engine's detail:
/// that may quote a message.
fn failure(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(Raised(message)) = this.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        cause = this.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::OutOfBounds;
    }
    TemplateError::Render { line: error.line().unwrap_or(0), kind: error.kind() }
}

/// `{% generation %}` blocks mark an answer for training; a rendering shows what is in them.
fn without_training_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        match tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}
