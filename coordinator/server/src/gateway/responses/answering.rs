//! One try at an answer in the background, shown in steps.
//!
//! Owns that nothing is shown before it lies on two disks and the registry names it, and that whoever goes on begins behind it. A step
//! is what came within about a second: more of them would say the same to more disks.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Instant;

use super::kept::Progress;
use super::object::End;
use super::telling::{Stop, Teller};
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::openai::answer::Answer;
use crate::gateway::openai::choice::{Choice, Making, Stage};
use crate::gateway::openai::handlers::unix_s;
use crate::gateway::openai::preparing::Prepared;
use crate::gateway::passing::Meter;
use crate::gateway::text::detokenizer::Start;

/// What is shown, and what will be with the next step.
pub(super) struct Shown {
    pub(super) begun: bool,
    pub(super) progress: Progress,
    /// It has more than the registry knows.
    is_ahead: bool,
    begun_at: tokio::time::Instant,
    next: tokio::time::Instant,
}

impl Shown {
    pub(super) fn of(progress: Option<Progress>) -> Self {
        let now = tokio::time::Instant::now();
        let (begun, progress) = (progress.is_some(), progress.unwrap_or_default());
        Self { begun, progress, is_ahead: false, begun_at: now, next: now }
    }

    /// Takes in what has come. The tokens are those whose text is in the pieces, or is held back behind them.
    fn take(&mut self, choice: &mut Choice) {
        if choice.node.is_some() && !self.begun {
            self.begun = true;
            self.is_ahead = true;
        }
        let known = self.progress.tokens.len();
        if let Some(fresh) = choice.journal.as_deref().and_then(|all| all.get(known..)) {
            self.is_ahead |= !fresh.is_empty();
            self.progress.tokens.extend_from_slice(fresh);
        }
        if !choice.fresh.text.is_empty() {
            self.progress.deltas.push(std::mem::take(&mut choice.fresh.text));
            self.is_ahead = true;
        }
    }

    /// What comes meanwhile is taken in: an answer that nobody reads would keep its place on a node for as long as a disk is full.
    async fn step(&mut self, teller: &Teller, answer: &mut Answer) -> Result<(), Stop> {
        let mut keeping = pin!(teller.keep(&self.progress));
        loop {
            tokio::select! {
                kept = &mut keeping => break kept?,
                () = poll_fn(|context| answer.poll(context)) => {}
                () = tokio::time::sleep(limits::KEEP_ALIVE) => answer.end_if_overdue(),
            }
        }
        self.is_ahead = false;
        let now = tokio::time::Instant::now();
        let pause = (now - self.begun_at) / limits::SHOWN_STEPS;
        self.next = now + pause.clamp(limits::SHOWN_EVERY, limits::SHOWN_EVERY_MAX);
        Ok(())
    }
}

pub(super) async fn answer(
    teller: &Teller,
    mut prepared: Prepared,
    meter: Option<Meter>,
    asked: Instant,
    shown: &mut Shown,
) -> Result<End, Stop> {
    let wishes = std::mem::take(&mut prepared.wishes);
    let (card, stops) = (&prepared.served.card, &prepared.options.stops);
    let making = Making { card, stops, logprobs: false, start: Start::Fresh, journal: true };
    let generations = teller.gateway.generations.as_ref();
    let mut answer = Answer::start(generations, wishes, 1, &making, asked, meter);
    let resumed =
        answer.choices.iter_mut().map(|choice| std::mem::take(&mut choice.fresh.text)).collect::<String>();
    if resumed != shown.progress.deltas.concat() {
        return Err(Stop::Failed(changed()));
    }
    loop {
        for choice in &mut answer.choices {
            shown.take(choice);
        }
        if let Some(failure) = answer.failure() {
            return Err(Stop::Failed(ApiError::from(failure.clone())));
        }
        if let Some(end) = end(&answer) {
            return Ok(end);
        }
        tokio::select! {
            () = poll_fn(|context| answer.poll(context)) => {}
            () = tokio::time::sleep_until(shown.next), if shown.is_ahead => {
                shown.step(teller, &mut answer).await?;
            }
            () = tokio::time::sleep(limits::KEEP_ALIVE) => answer.end_if_overdue(),
        }
    }
}

fn end(answer: &Answer) -> Option<End> {
    let choice = answer.choices.first()?;
    match &choice.stage {
        Stage::Finished(reason) => Some(End::finished(*reason, &answer.usage(), unix_s())),
        Stage::Unheard | Stage::Queued(_) | Stage::Dispatched | Stage::Answering | Stage::Failed(_) => None,
    }
}

/// The tokens do not say any more what they said: the model has another tokenizer by now.
fn changed() -> ApiError {
    ApiError::refused(
        axum::http::StatusCode::CONFLICT,
        "model_changed",
        "The model was replaced by another one while it answered. Send the request again.",
    )
}
