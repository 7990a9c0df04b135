//! One answer on its way from token ids to what a client may see.
//!
//! Owns the order of things for one choice: detokenise, look for stop strings, let log probabilities wait for their text, count
//! tokens. Refuses to write anything: it keeps what is fresh until someone takes it. Ending at a stop string ends the generation on
//! its node, as one that has succeeded.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::v1::TokenLogprobs;

use super::logprobs::{Entry, Waiting};
use crate::gateway::limits;
use crate::gateway::metrics::Timeline;
use crate::gateway::text::card::Card;
use crate::gateway::text::detokenizer::{Detokenizer, Start};
use crate::gateway::text::stop::{Scan, StopScanner};
use crate::generation::{Event, Failure, FinishReason, Generation};

/// Text and entries that nobody has sent yet.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<Entry>,
}

impl Fresh {
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.logprobs.clear();
    }
}

/// A place in the waiting line, as finely as it is told: a place that only looks the same is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) ahead: u32,
    pub(crate) eta: Option<About>,
    pub(crate) loading: bool,
}

/// An estimate, never finer than it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Seconds(u64),
    Minutes(u64),
}

impl About {
    /// Rounded up, so that waiting shorter is the surprise.
    pub(crate) fn of(estimate: Duration) -> Self {
        let seconds = estimate.as_secs().saturating_add(u64::from(estimate.subsec_nanos() > 0)).max(1);
        if seconds <= 90 { Self::Seconds(seconds) } else { Self::Minutes(seconds.div_ceil(60)) }
    }
}

/// How far an answer is, as far as the client's response depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was heard yet.
    Unheard,
    Queued(Place),
    Dispatched,
    Answering,
    Finished(FinishReason),
    Failed(Failure),
}

pub(crate) struct Choice {
    card: Arc<Card>,
    /// `None` after the end.
    generation: Option<Generation>,
    inbox: Vec<Event>,
    detokenizer: Detokenizer,
    stops: StopScanner,
    waiting: Option<Waiting>,
    piece: String,
    released_bytes: usize,
    pub(crate) fresh: Fresh,
    pub(crate) stage: Stage,
    /// The scheduler's number.
    pub(crate) request: u64,
    pub(crate) node: Option<u64>,
    pub(crate) affinity: Option<&'static str>,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    /// Tokens sampled for this answer, as far as is known.
    pub(crate) completion_tokens: u32,
    /// Those of them that were sampled for another run, which told what it took.
    pub(crate) resumed_tokens: u32,
    /// All of them, where somebody may have to go on from there.
    pub(crate) journal: Option<Vec<u32>>,
    pub(crate) timeline: Timeline,
}

/// What an answer is made with.
pub(crate) struct Making<'a> {
    pub(crate) card: &'a Arc<Card>,
    pub(crate) stops: &'a [String],
    pub(crate) logprobs: bool,
    pub(crate) start: Start,
    /// Whether its tokens are remembered.
    pub(crate) journal: bool,
}

/// What an answer needs of its prompt.
pub(crate) struct PromptEnd {
    tokens: u32,
    tail: Vec<u32>,
}

impl PromptEnd {
    pub(crate) fn of(prompt: &[u32]) -> Self {
        let tail = prompt.get(prompt.len().saturating_sub(limits::DECODE_WINDOW)..).unwrap_or_default();
        Self { tokens: u32::try_from(prompt.len()).unwrap_or(u32::MAX), tail: tail.to_vec() }
    }
}

impl Choice {
    pub(crate) fn new(
        generation: Generation,
        prompt: PromptEnd,
        making: &Making<'_>,
        timeline: Timeline,
    ) -> Self {
        Self {
            card: making.card.clone(),
            request: generation.request,
            generation: Some(generation),
            inbox: Vec::new(),
            detokenizer: Detokenizer::new(making.card.clone(), making.start, &prompt.tail),
            stops: StopScanner::new(making.stops),
            waiting: making.logprobs.then(Waiting::default),
            piece: String::new(),
            released_bytes: 0,
            fresh: Fresh::default(),
            stage: Stage::Unheard,
            node: None,
            affinity: None,
            prompt_tokens: prompt.tokens,
            cached_tokens: 0,
            completion_tokens: 0,
            resumed_tokens: 0,
            journal: making.journal.then(Vec::new),
            timeline,
        }
    }

    /// Takes in the tokens that another run had. What they say is fresh again.
    pub(crate) fn resume(&mut self, ids: &[u32]) {
        self.read(ids, &[]);
        self.resumed_tokens = self.completion_tokens;
    }

    /// Takes in what has arrived; `Pending` when nothing has, or nothing more will.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(generation) = &mut self.generation else { return Poll::Pending };
        let received = generation.events.poll_recv_many(context, &mut self.inbox, limits::EVENTS_AT_ONCE);
        match received {
            Poll::Pending => return Poll::Pending,
            // The cluster side went away without a last word.
            Poll::Ready(0) => {
                self.end(Stage::Failed(Failure::NodeLost { began: self.completion_tokens > 0 }))
            }
            Poll::Ready(_) => {
                let mut inbox = std::mem::take(&mut self.inbox);
                inbox.drain(..).for_each(|event| self.take(event));
                self.inbox = inbox;
            }
        }
        Poll::Ready(())
    }

    /// Tokens that were sampled for this run.
    pub(crate) fn own_tokens(&self) -> u32 {
        self.completion_tokens.saturating_sub(self.resumed_tokens)
    }

    /// The gateway's own end, when the cluster side has not kept the deadline.
    pub(crate) fn overdue(&mut self) {
        if self.generation.is_some() {
            self.end(Stage::Failed(Failure::DeadlineExceeded));
        }
    }

    fn take(&mut self, event: Event) {
        if self.generation.is_none() {
            return;
        }
        match event {
            Event::Queued { ahead, eta, loading } => {
                self.timeline.queued(loading);
                // An answer that is cut waits for another node; what its client sees of that is a pause.
                if self.completion_tokens > 0 {
                    return;
                }
                self.stage = Stage::Queued(Place { ahead, eta: eta.map(About::of), loading });
            }
            Event::Dispatched { node, affinity, .. } => {
                self.node = Some(node);
                self.affinity = affinity;
                self.timeline.dispatched();
                if self.completion_tokens == 0 {
                    self.stage = Stage::Dispatched;
                }
            }
            Event::Tokens { ids, logprobs } => self.tokens(&ids, &logprobs),
            Event::Finished { reason, usage } => {
                self.piece.clear();
                self.detokenizer.finish(&mut self.piece);
                let scan = self.show(None);
                self.completion_tokens = usage.generated_tokens.max(self.completion_tokens);
                self.cached_tokens = usage.cached_tokens;
                if scan == Scan::GoOn {
                    self.stops.finish(&mut self.fresh.text);
                    if let Some(waiting) = &mut self.waiting {
                        waiting.finish(&mut self.fresh.logprobs);
                    }
                }
                self.end(Stage::Finished(if scan == Scan::Stopped { FinishReason::Stop } else { reason }));
            }
            Event::Failed(failure) => self.end(Stage::Failed(failure)),
        }
    }

    fn tokens(&mut self, ids: &[u32], logprobs: &[TokenLogprobs]) {
        self.timeline.tokens(ids.len());
        self.stage = Stage::Answering;
        self.read(ids, logprobs);
    }

    fn read(&mut self, ids: &[u32], logprobs: &[TokenLogprobs]) {
        if let Some(journal) = &mut self.journal {
            journal.extend_from_slice(ids);
        }
        for (at, id) in ids.iter().enumerate() {
            self.completion_tokens = self.completion_tokens.saturating_add(1);
            self.piece.clear();
            self.detokenizer.push(*id, &mut self.piece);
            if self.show(logprobs.get(at).map(|logprobs| (*id, logprobs))) == Scan::Stopped {
                if let Some(generation) = self.generation.take() {
                    generation.suffices();
                }
                return self.end(Stage::Finished(FinishReason::Stop));
            }
        }
    }

    /// Sends the piece through the stop strings, and its log probabilities after it.
    fn show(&mut self, token: Option<(u32, &TokenLogprobs)>) -> Scan {
        let before = self.fresh.text.len();
        let scan = self.stops.push(&self.piece, &mut self.fresh.text);
        self.released_bytes += self.fresh.text.len() - before;
        if let Some(waiting) = &mut self.waiting {
            if let Some((id, logprobs)) = token {
                waiting.push(&self.card, id, logprobs, &self.piece);
            }
            match scan {
                Scan::GoOn => waiting.release(self.stops.held_bytes(), &mut self.fresh.logprobs),
                Scan::Stopped => waiting.cut(self.released_bytes, &mut self.fresh.logprobs),
            }
        }
        scan
    }

    /// Drops the generation: whatever still runs for it is cancelled.
    fn end(&mut self, stage: Stage) {
        self.generation = None;
        self.timeline.ended(&stage, self.prompt_tokens, self.cached_tokens, self.completion_tokens);
        self.stage = stage;
    }
}
