//! The life of one generation on the cluster side: from the queue to its last token.
//!
//! Owns the walk through orders and frames of a single wish: wait, run on a node, begin, perhaps go on elsewhere, end; and the
//! journal of the tokens its client has, from which another node goes on when one dies in the middle of the answer. Refuses to
//! choose nodes or to retry by itself: every attempt is an order of the scheduler, every failure is reported to it. Tells the
//! scheduler of a success at the end of the answer, never at its start.

mod line;

use std::time::Duration;

use proto::v1::{AttemptFrame, AttemptStart, AttemptUsage, Finish};
use scheduler::{AbortReason, Outcome, Refusal, RequestId, Span, Usage};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::line::Line;
use crate::front::Front;
use crate::generation::{Event, Failure, FinishReason, Generation, StartGeneration, Wish};
use crate::leader::{NewRequest, Order};
use crate::limits;
use crate::streams::{AttemptStream, StreamError, Streams};

/// Codes of a runtime (runtime-frames.md) that blame the request itself: another node would say the same.
const CODES_OF_THE_REQUEST: [&str; 4] =
    ["invalid_request", "context_length_exceeded", "unsupported_model", "duplicate_row"];

/// Starts generations on the cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) front: Front,
    pub(crate) streams: Streams,
}

impl StartGeneration for Cluster {
    fn start(&self, mut wish: Wish) -> Generation {
        seed(&mut wish);
        let (line, events) = Line::new(limits::EVENTS_PER_REQUEST, wish.deadline + limits::UNREAD);
        let cancel = CancellationToken::new();
        let request = self.front.next_request();
        let journal = std::mem::take(&mut wish.journal);
        let life = Life { request, cluster: self.clone(), wish, line, running: None, journal };
        let enough = CancellationToken::new();
        tokio::spawn(life.run(cancel.clone(), enough.clone()));
        Generation { request: request.0, events, enough, _cancel: cancel.drop_guard() }
    }
}

struct Life {
    request: RequestId,
    cluster: Cluster,
    wish: Wish,
    line: Line,
    running: Option<Running>,
    /// The tokens that the client has. An attempt goes on behind them.
    journal: Vec<u32>,
}

struct Running {
    attempt: u32,
    node: u64,
    stream: AttemptStream,
    /// Tokens that the client had before it.
    before: usize,
    /// The way to its node is lost: so long the leader has to say what that means.
    lost_until: Option<Instant>,
}

/// Whether the life goes on after an order or a frame.
enum Then {
    GoOn,
    End,
}

impl Life {
    async fn run(mut self, cancel: CancellationToken, enough: CancellationToken) {
        if cancel.run_until_cancelled_owned(self.live()).await.is_some() {
            return;
        }
        let generated = self.generated();
        // The agent hears that it is over before the leader gives the slot to another.
        let attempt = self.running.take().map(|running| running.attempt);
        let front = &self.cluster.front;
        // An attempt that has said nothing has proved nothing.
        match attempt.filter(|_| generated > 0 && enough.is_cancelled()) {
            Some(attempt) => {
                let usage = Usage { generated, held: self.held(), ..Usage::default() };
                front.finished(self.request, attempt, Outcome::Enough, usage).await;
            }
            None => front.cancel(self.request).await,
        }
    }

    async fn live(&mut self) {
        let mut orders = self.cluster.front.submit(self.new_request()).await;
        loop {
            let then = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => self.fail(Failure::ShuttingDown),
                },
                frame = next_frame(&mut self.running) => match frame {
                    Ok(frame) => self.take(frame).await,
                    Err(error) => self.attempt_failed(outcome_of(&error), &error.to_string()).await,
                },
            };
            match then {
                Then::GoOn => {}
                Then::End => return,
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Then {
        match order {
            Order::Wait { ahead, eta, loading } => {
                self.running = None;
                self.emit(Event::Queued { ahead, eta, loading }).await
            }
            Order::Run { attempt, node, affinity, prefill_chunk } => {
                self.open(attempt, node, affinity, prefill_chunk).await
            }
            Order::Refused { refusal, words } => {
                let failure = failure_of(refusal, &self.wish.model, &words, !self.journal.is_empty());
                self.fail(failure)
            }
            Order::Stop(AbortReason::DeadlineExceeded) => self.fail(Failure::DeadlineExceeded),
            // Claims have lines of their own.
            Order::Verdict(_) => Then::GoOn,
        }
    }

    async fn open(&mut self, attempt: u32, node: u64, affinity: &'static str, prefill_chunk: u32) -> Then {
        // Frames of the old attempt end here, with its stream.
        self.running = None;
        let before = self.journal.len();
        // The node before died with the word that this was all.
        if before > 0 && self.left() == 0 {
            return self.complete(attempt, FinishReason::Length, AttemptUsage::default()).await;
        }
        let opened = self.cluster.streams.open(node, &self.start(attempt, prefill_chunk)).await;
        match opened {
            Ok(stream) => {
                self.running = Some(Running { attempt, node, stream, before, lost_until: None });
                self.emit(Event::Dispatched { node, attempt, affinity: Some(affinity) }).await
            }
            Err(error) => self.report(attempt, node, 0, outcome_of(&error), &error.to_string()).await,
        }
    }

    async fn take(&mut self, frame: AttemptFrame) -> Then {
        if !frame.ids.is_empty() {
            if self.generated() == 0 {
                self.line.begin();
                self.cluster.front.began(self.request, frame.attempt).await;
            }
            self.journal.extend_from_slice(&frame.ids);
            if let Then::End = self.emit(Event::Tokens { ids: frame.ids, logprobs: frame.logprobs }).await {
                return Then::End;
            }
        }
        let reason = match Finish::try_from(frame.finish) {
            Ok(Finish::Unspecified) => return Then::GoOn,
            Ok(Finish::Stop) => FinishReason::Stop,
            Ok(Finish::Length) => FinishReason::Length,
            Ok(Finish::Failed) | Err(_) => return self.failed_by_runtime(frame.code, frame.text).await,
        };
        self.complete(frame.attempt, reason, frame.usage.unwrap_or_default()).await
    }

    /// `usage` is that of the last attempt.
    async fn complete(&mut self, attempt: u32, reason: FinishReason, usage: AttemptUsage) -> Then {
        let taken = Usage { held: self.held(), ..taken(&usage) };
        self.cluster.front.finished(self.request, attempt, Outcome::Completed, taken).await;
        // What the client pays for is what it got, and perhaps a stop token, which is sampled and not delivered; a runtime that
        // counts otherwise is not believed.
        let got = narrow(self.journal.len());
        let told = usage.generated_tokens.saturating_add(got.saturating_sub(self.generated()));
        let usage = AttemptUsage { generated_tokens: told.clamp(got, got.saturating_add(1)), ..usage };
        self.line.end(Event::Finished { reason, usage });
        Then::End
    }

    async fn failed_by_runtime(&mut self, code: String, text: String) -> Then {
        if CODES_OF_THE_REQUEST.contains(&code.as_str()) {
            let attempt = self.running.as_ref().map_or(0, |running| running.attempt);
            let nothing = Usage::default();
            self.cluster.front.finished(self.request, attempt, Outcome::Rejected, nothing).await;
            return self.fail(Failure::Rejected { code, text });
        }
        self.attempt_failed(outcome_of_code(&code), &code).await
    }

    async fn attempt_failed(&mut self, outcome: Outcome, why: &str) -> Then {
        let generated = self.generated();
        let attempt = self.running.as_ref().map_or(0, |running| running.attempt);
        // The client has all it asked for; only the word that this was all is lost.
        if generated > 0 && self.left() == 0 {
            let usage = AttemptUsage { generated_tokens: generated, ..AttemptUsage::default() };
            return self.complete(attempt, FinishReason::Length, usage).await;
        }
        let Some(running) = self.running.take() else { return Then::GoOn };
        self.report(attempt, running.node, generated, outcome, why).await
    }

    /// Tells the scheduler, whose next order decides. The client waits, whatever it has by then.
    async fn report(&mut self, attempt: u32, node: u64, generated: u32, outcome: Outcome, why: &str) -> Then {
        // A runtime that took it and then turns it away has failed it.
        let outcome = match outcome {
            Outcome::Busy if generated > 0 => Outcome::Failed(scheduler::Failure::Internal),
            Outcome::Completed
            | Outcome::Enough
            | Outcome::ClientGone
            | Outcome::Rejected
            | Outcome::Busy
            | Outcome::NotThere
            | Outcome::Failed(_) => outcome,
        };
        let request = self.request.0;
        if outcome == Outcome::NotThere && generated == 0 {
            // It comes back for as long as this gateway does not reach the node, whose loss was told once.
            tracing::debug!(request, attempt, node, why, "an attempt never came to be");
        } else {
            tracing::warn!(request, attempt, node, ?outcome, why, "an attempt ended early");
        }
        let usage = Usage { generated, ..Usage::default() };
        self.cluster.front.finished(self.request, attempt, outcome, usage).await;
        Then::GoOn
    }

    /// Tokens of the attempt that runs.
    fn generated(&self) -> u32 {
        let before = self.running.as_ref().map_or(self.journal.len(), |running| running.before);
        narrow(self.journal.len().saturating_sub(before))
    }

    /// Tokens that may still come.
    fn left(&self) -> u32 {
        self.wish.max_tokens.saturating_sub(narrow(self.journal.len()))
    }

    /// How long its client kept the attempt from going on, since its first token.
    fn held(&self) -> Span {
        Span(u64::try_from(self.line.held().as_micros()).unwrap_or(u64::MAX))
    }

    fn fail(&mut self, failure: Failure) -> Then {
        self.running = None;
        self.line.end(Event::Failed(failure));
        Then::End
    }

    /// A client that stays and does not read is waited for until nobody waits for the answer.
    async fn emit(&mut self, event: Event) -> Then {
        if self.line.tell(event).await {
            return Then::GoOn;
        }
        self.running = None;
        self.cluster.front.cancel(self.request).await;
        self.fail(Failure::DeadlineExceeded)
    }

    fn new_request(&self) -> NewRequest {
        NewRequest {
            request: self.request,
            model: self.wish.model.clone(),
            prompt_tokens: narrow(self.wish.prompt.len().saturating_add(self.journal.len())),
            max_tokens: self.left().max(1),
            arrived: Instant::now(),
            deadline: self.wish.deadline,
            traits: self.wish.traits.clone(),
        }
    }

    fn start(&self, attempt: u32, prefill_chunk: u32) -> AttemptStart {
        AttemptStart {
            request: self.request.0,
            attempt,
            model: self.wish.model.clone(),
            prompt: [self.wish.prompt.as_slice(), &self.journal].concat(),
            max_tokens: self.left(),
            sampling: Some(self.wish.sampling.clone()),
            stop_ids: self.wish.stop_ids.clone(),
            top_logprobs: self.wish.top_logprobs,
            cache_salt: self.wish.traits.cache_salt.clone(),
            prefill_chunk,
            generated: narrow(self.journal.len()),
        }
    }
}

/// An answer that is cut goes on as it would have: every draw comes of a seed, the client's or one of ours.
fn seed(wish: &mut Wish) {
    let sampling = &mut wish.sampling;
    if sampling.temperature > 0.0 && sampling.seed.is_none() {
        // Without a source of randomness the runtime draws its own; only a cut answer would notice.
        sampling.seed = getrandom::u64().ok();
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Cancel-safe. A lost way is told late: if the whole node is lost, the leader charges that to all that ran there, each still in its
/// place.
async fn next_frame(running: &mut Option<Running>) -> Result<AttemptFrame, StreamError> {
    let Some(running) = running else { return std::future::pending().await };
    if running.lost_until.is_none() {
        match running.stream.next().await {
            Err(StreamError::Lost) => running.lost_until = Some(Instant::now() + limits::NODE_LOST_FIRST),
            told @ (Ok(_) | Err(_)) => return told,
        }
    }
    if let Some(until) = running.lost_until {
        tokio::time::sleep_until(until).await;
    }
    Err(StreamError::Lost)
}

/// What the end of an attempt says of the node, by the runtime's or the agent's code.
fn outcome_of_code(code: &str) -> Outcome {
    match code {
        "busy" => Outcome::Busy,
        "not_loaded" => Outcome::NotThere,
        "runtime_lost" => Outcome::Failed(scheduler::Failure::RuntimeExit),
        "runtime_hung" => Outcome::Failed(scheduler::Failure::Hang),
        "runtime_garbled" => Outcome::Failed(scheduler::Failure::Corrupt),
        _ => Outcome::Failed(scheduler::Failure::Internal),
    }
}

fn outcome_of(error: &StreamError) -> Outcome {
    match error {
        StreamError::NotConnected | StreamError::Lost => Outcome::NotThere,
        StreamError::Timeout | StreamError::Broken(_) => Outcome::Failed(scheduler::Failure::Reset),
        StreamError::Garbled(_) => Outcome::Failed(scheduler::Failure::Corrupt),
    }
}

fn taken(usage: &AttemptUsage) -> Usage {
    Usage {
        generated: usage.generated_tokens,
        cached_tokens: usage.cached_tokens,
        prefill: Span::from_ms(usage.prefill_ms.into()),
        held: Span::ZERO,
    }
}

/// `words` say why there is no capacity; `began` = the client has tokens.
fn failure_of(refusal: Refusal, model: &str, words: &str, began: bool) -> Failure {
    let duration = |span: Span| Duration::from_micros(span.0);
    match refusal {
        Refusal::Shed { retry_after } => Failure::Overloaded { retry_after: duration(retry_after) },
        Refusal::Quarantined => Failure::Quarantined,
        // Only an operator can change it.
        Refusal::NoCapacity(_) => {
            let words = format!("The model '{model}' cannot be loaded: {words}.");
            Failure::NoCapacity { words, retry_after: None }
        }
        Refusal::QueueFull { retry_after } => Failure::QueueFull { retry_after: duration(retry_after) },
        Refusal::DeadlineUnreachable { needed } => Failure::DeadlineUnreachable { needed: duration(needed) },
        Refusal::Expired => Failure::DeadlineExceeded,
        Refusal::NodeLost => Failure::NodeLost { began },
        // Request numbers are made here, one after another: a duplicate is a fault of this process, not of the client.
        Refusal::Duplicate => {
            Failure::Rejected { code: "internal".to_owned(), text: "request number reused".to_owned() }
        }
    }
}

#[cfg(test)]
mod tests;
