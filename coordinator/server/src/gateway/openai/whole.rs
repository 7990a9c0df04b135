//! Answers in one piece: `chat.completion` and `text_completion`.
//!
//! Owns their shapes, with every key that the SDKs' types have.

use serde::Serialize;

use super::choice::{Choice, Stage};
use super::chunks::{Head, reason};
use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use super::usage::Usage;

#[derive(Serialize)]
pub(crate) struct Whole<'a, C> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<C>,
    usage: Usage,
}

#[derive(Serialize)]
pub(crate) struct ChatChoice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
}

#[derive(Serialize)]
pub(crate) struct CompletionChoice<'a> {
    text: String,
    index: usize,
    logprobs: Option<CompletionLogprobs<'a>>,
    finish_reason: Option<&'static str>,
}

impl<'a> Whole<'a, ChatChoice<'a>> {
    pub(crate) fn chat(head: &'a Head, choices: &'a [Choice], logprobs: bool, usage: Usage) -> Self {
        let choice = |(index, choice): (usize, &'a Choice)| ChatChoice {
            index,
            message: Message { role: "assistant", content: &choice.fresh.text, refusal: None },
            logprobs: logprobs.then(|| ChatLogprobs::new(&choice.fresh.logprobs)),
            finish_reason: finish_reason(choice),
        };
        Self { head, choices: choices.iter().enumerate().map(choice).collect(), usage }
    }
}

impl<'a> Whole<'a, CompletionChoice<'a>> {
    pub(crate) fn completion(
        head: &'a Head,
        choices: &'a [Choice],
        echoes: &[Option<String>],
        logprobs: bool,
        usage: Usage,
    ) -> Self {
        let choice = |(index, choice): (usize, &'a Choice)| CompletionChoice {
            text: [echoes.get(index).and_then(Option::as_deref).unwrap_or(""), &choice.fresh.text].concat(),
            index,
            logprobs: logprobs.then(|| CompletionLogprobs::new(&choice.fresh.logprobs)),
            finish_reason: finish_reason(choice),
        };
        Self { head, choices: choices.iter().enumerate().map(choice).collect(), usage }
    }
}

fn finish_reason(choice: &Choice) -> Option<&'static str> {
    match &choice.stage {
        Stage::Finished(why) => Some(reason(*why)),
        Stage::Unheard | Stage::Queued(_) | Stage::Dispatched | Stage::Answering | Stage::Failed(_) => None,
    }
}
