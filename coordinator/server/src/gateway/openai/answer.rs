//! All answers to one request: started together, polled together, gone together.
//!
//! Owns when a response may begin: a refusal must still be able to set the status, so headers wait until it is clear that
//! something was taken on. Dropping it cancels every generation that still runs.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Instant;

use registry::Used;

use super::choice::{Choice, Making, PromptEnd, Stage};
use super::usage::Usage;
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::gateway::metrics::{ModelMetrics, Timeline};
use crate::gateway::passing::Meter;
use crate::generation::{Failure, StartGeneration, Wish};

pub(crate) struct Answer {
    pub(crate) choices: Vec<Choice>,
    /// Answers to the same prompt stand together; the prompt counts once.
    per_prompt: usize,
    deadline: tokio::time::Instant,
    /// Hears what was taken, when it is over.
    meter: Option<Meter>,
}

impl Answer {
    /// Starts every wish. `n` of them in a row have the same prompt.
    pub(crate) fn start(
        generations: &dyn StartGeneration,
        wishes: Vec<Wish>,
        n: u32,
        making: &Making<'_>,
        asked: Instant,
        meter: Option<Meter>,
    ) -> Self {
        let metrics = wishes.first().map(|wish| ModelMetrics::of(&wish.model));
        let deadline = wishes.first().map_or_else(tokio::time::Instant::now, |wish| wish.deadline);
        let start = |(wish, metrics): (Wish, ModelMetrics)| {
            let (prompt, journal) = (PromptEnd::of(&wish.prompt), wish.journal.clone());
            let timeline = Timeline::new(metrics, asked);
            let mut choice = Choice::new(generations.start(wish), prompt, making, timeline);
            choice.resume(&journal);
            choice
        };
        let choices = wishes.into_iter().zip(metrics.into_iter().cycle()).map(start).collect();
        Self { choices, per_prompt: usize::try_from(n).unwrap_or(1).max(1), deadline, meter }
    }

    /// Takes in what has arrived for any choice.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut polled = Poll::Pending;
        for choice in &mut self.choices {
            if choice.poll(context).is_ready() {
                polled = Poll::Ready(());
            }
        }
        polled
    }

    /// Until the response may begin. A failure before that has a status of its own.
    pub(crate) async fn settle(&mut self) -> Result<(), ApiError> {
        let settled = poll_fn(|context| self.poll_until(context, Self::is_settled));
        // A node that takes its time over a long prompt: the headers go out, comments follow.
        let _ = tokio::time::timeout(limits::KEEP_ALIVE, settled).await;
        self.failure().map_or(Ok(()), |failure| Err(ApiError::from(failure.clone())))
    }

    /// Until every choice has ended.
    pub(crate) async fn complete(&mut self) -> Result<(), ApiError> {
        let latest = self.deadline + limits::DEADLINE_GRACE;
        let ended = poll_fn(|context| {
            self.poll_until(context, |answer| answer.ended() || answer.failure().is_some())
        });
        if tokio::time::timeout_at(latest, ended).await.is_err() {
            self.overdue();
        }
        self.failure().map_or(Ok(()), |failure| Err(ApiError::from(failure.clone())))
    }

    pub(crate) fn ended(&self) -> bool {
        self.choices.iter().all(|choice| matches!(choice.stage, Stage::Finished(_)))
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.choices.iter().find_map(|choice| match &choice.stage {
            Stage::Failed(failure) => Some(failure),
            Stage::Unheard | Stage::Queued(_) | Stage::Dispatched | Stage::Answering | Stage::Finished(_) => {
                None
            }
        })
    }

    /// Ends what the cluster side should have ended by now.
    pub(crate) fn end_if_overdue(&mut self) {
        if tokio::time::Instant::now() >= self.deadline + limits::DEADLINE_GRACE {
            self.overdue();
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let sum =
            |count: fn(&Choice) -> u32| self.choices.iter().map(|choice| u64::from(count(choice))).sum();
        let once = |count: fn(&Choice) -> u32| {
            self.choices.iter().step_by(self.per_prompt).map(|choice| u64::from(count(choice))).sum()
        };
        Usage::new(
            once(|choice| choice.prompt_tokens),
            once(|choice| choice.cached_tokens),
            sum(|choice| choice.completion_tokens),
        )
    }

    /// What its key has used by now: prompts that a node had, each once, and every token that came.
    fn used(&self) -> Used {
        let prompts = self.choices.chunks(self.per_prompt);
        let worked_on = prompts.filter(|choices| choices.iter().any(|choice| choice.node.is_some()));
        let prompts: Vec<_> = worked_on.filter_map(|choices| choices.first()).collect();
        let tokens = |count: u32| u64::from(count);
        Used {
            requests: u64::from(!prompts.is_empty()),
            prompt_tokens: prompts.iter().map(|choice| tokens(choice.prompt_tokens)).sum(),
            answer_tokens: self.choices.iter().map(|choice| tokens(choice.own_tokens())).sum(),
        }
    }

    /// Nodes that worked on it, each once.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<_> = self.choices.iter().filter_map(|choice| choice.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// What drew it to its nodes, each once.
    pub(crate) fn affinities(&self) -> Vec<&'static str> {
        let mut affinities: Vec<_> = self.choices.iter().filter_map(|choice| choice.affinity).collect();
        affinities.sort_unstable();
        affinities.dedup();
        affinities
    }

    /// The scheduler's numbers, one for each choice.
    pub(crate) fn requests(&self) -> Vec<u64> {
        self.choices.iter().map(|choice| choice.request).collect()
    }

    /// Every choice was heard of, and one of them waits in the queue or has something to show.
    fn is_settled(&self) -> bool {
        let heard = self.choices.iter().all(|choice| choice.stage != Stage::Unheard);
        let begun = self.choices.iter().any(|choice| match choice.stage {
            Stage::Queued(_) | Stage::Answering | Stage::Finished(_) | Stage::Failed(_) => true,
            Stage::Unheard | Stage::Dispatched => false,
        });
        (heard && begun) || self.failure().is_some()
    }

    fn poll_until(&mut self, context: &mut Context<'_>, reached: impl Fn(&Self) -> bool) -> Poll<()> {
        while !reached(self) {
            if self.poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    fn overdue(&mut self) {
        self.choices.iter_mut().for_each(Choice::overdue);
    }
}

impl Drop for Answer {
    /// However it ended: in full, cut, or because its client hung up.
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter.tell(self.used());
        }
    }
}
