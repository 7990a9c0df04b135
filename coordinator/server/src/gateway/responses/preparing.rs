//! All the work on a request before anything is started, as for a chat: find the model, render, tokenise, check, wish.
//!
//! Owns this sequence as two plain functions with the renderer between, so that a long text can run where it delays nobody, and the
//! head of the object that is answered. Refuses to start a generation.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::items::{self, Item};
use super::object::Head;
use super::request::Request;
use crate::gateway::Gateway;
use crate::gateway::caller::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::openai::asking::{Ask, PromptField, Served};
use crate::gateway::openai::chat_request::{Talk, unrendered};
use crate::gateway::openai::preparing::Prepared;
use crate::gateway::openai::traits::Origin;
use crate::gateway::shelf::Shelf;
use crate::gateway::text::rendering::Task;

/// A request that only needs to be started.
pub(super) struct Ready {
    pub(super) prepared: Prepared,
    pub(super) head: Head,
    /// All that the model reads but the instructions.
    pub(super) items: Vec<Item>,
}

/// Which response it becomes.
#[derive(Clone)]
pub(super) struct Birth {
    pub(super) id: String,
    pub(super) at_unix_s: u64,
    pub(super) deadline: Instant,
}

/// A request whose prompt is still to be rendered.
pub(super) struct Read {
    /// All of it.
    request: Request,
    served: Served,
    caller: Caller,
    birth: Birth,
}

/// `before` are the items of what it follows.
pub(super) fn read(
    mut request: Request,
    mut before: Vec<Item>,
    shelf: &Shelf,
    caller: Caller,
    birth: Birth,
) -> Result<(Read, Task), ApiError> {
    before.append(&mut request.items);
    request.items = before;
    let served = Served::find(shelf, &request.options.model)?;
    let messages = items::messages(request.instructions.as_deref(), &request.items)?;
    let talk = Talk::new(messages, request.effort.take());
    let task = talk.task(&served, birth.at_unix_s).map_err(of_input)?;
    Ok((Read { request, served, caller, birth }, task))
}

/// Read, rendered and tokenised, each where it delays nobody.
pub(super) async fn ready(
    gateway: &Gateway,
    text: Bytes,
    read: impl FnOnce(&[u8]) -> Result<(Read, Task), ApiError> + Send + 'static,
) -> Result<Ready, ApiError> {
    let (read, task) = gateway.long_texts.run(text, read).await??;
    let prompt = gateway.renderers.render(task).await.map_err(unrendered).map_err(of_input)?;
    gateway.long_texts.run(prompt.into(), |prompt| prepared(read, prompt)).await?
}

fn prepared(read: Read, prompt: &[u8]) -> Result<Ready, ApiError> {
    let Read { request, served, caller, birth } = read;
    let Request { options, sampling, said, mut ignored, items, background, store, echo, .. } = request;
    let prompt = served.tokenised(prompt)?;
    let origin = Origin::new(caller, said, &mut ignored);
    let (deadline, top_logprobs) = (birth.deadline, None);
    let ask = Ask { options: &options, sampling: &sampling, top_logprobs, deadline, origin: &origin };
    let wishes = served.wishes(vec![prompt], ask, PromptField::Input)?;
    let rest = rest(echo, &served, store, origin.service_tier, wishes.first().map(|wish| &wish.sampling));
    let head = Head { id: birth.id, created_at: birth.at_unix_s, background, rest };
    let service_tier = origin.service_tier;
    let prepared =
        Prepared { served, options, logprobs: false, service_tier, ignored, wishes, echoes: Vec::new() };
    Ok(Ready { prepared, head, items })
}

/// What a template does not want is here in another parameter, and so is what it wants to know of reasoning.
fn of_input(error: ApiError) -> ApiError {
    match error.param.as_deref() {
        Some("messages") => ApiError { param: Some("input".to_owned()), ..error },
        Some("reasoning_effort") => ApiError { param: Some("reasoning.effort".to_owned()), ..error },
        Some(_) | None => error,
    }
}

fn rest(
    mut echo: Map<String, Value>,
    served: &Served,
    store: bool,
    service_tier: Option<&'static str>,
    sampling: Option<&proto::v1::Sampling>,
) -> Map<String, Value> {
    echo.extend([
        ("model".to_owned(), json!(served.model.name)),
        ("store".to_owned(), json!(store)),
        ("service_tier".to_owned(), json!(service_tier.unwrap_or("default"))),
        ("temperature".to_owned(), json!(sampling.map(|sampling| plain(sampling.temperature)))),
        ("top_p".to_owned(), json!(sampling.map(|sampling| plain(sampling.top_p)))),
        ("parallel_tool_calls".to_owned(), json!(true)),
        ("tools".to_owned(), json!([])),
        ("text".to_owned(), json!({"format": {"type": "text"}})),
        ("top_logprobs".to_owned(), json!(0)),
        ("truncation".to_owned(), json!("disabled")),
    ]);
    echo
}

/// As it was written: single precision has other decimals behind those that were meant.
fn plain(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}
