//! A streamed answer: server-sent events, written when tokens arrive and never later.
//!
//! Owns the order of chunks, the comments that keep a silent connection alive, and the difference between an answer that ended
//! and one that broke: a broken one sends an error and then fails the body, so that the connection is cut and no client takes it
//! for complete. What waits already leaves in one write; no timer runs for a token. Dropping it, because the client hung up,
//! cancels the generations.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Interval, MissedTickBehavior};

use super::answer::Answer;
use super::choice::{About, Place, Stage};
use super::chunks::Chunks;
use crate::gateway::error::ApiError;
use crate::gateway::limits;
use crate::generation::Failure;

pub(crate) struct EventStream<C> {
    answer: Answer,
    chunks: C,
    /// For each choice: how much of its story has been written.
    told: Vec<Told>,
    state: State,
    out: BytesMut,
    keep_alive: Interval,
    /// Something was written since the last tick.
    spoke: bool,
}

#[derive(Clone, Copy, Default)]
struct Told {
    place: Option<Place>,
    begun: bool,
    ended: bool,
}

enum State {
    Running,
    /// The error is written; it leaves before the connection is cut.
    Breaking,
    Cutting,
    Over,
}

/// Why the body failed. It reaches our own log at most: the client sees the cut.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut")]
pub(crate) struct Broken;

impl<C: Chunks> EventStream<C> {
    pub(crate) fn new(answer: Answer, mut chunks: C) -> Self {
        // Twice in the longest silence, because a tick only knows that something was said since the one before.
        let half = limits::KEEP_ALIVE / 2;
        let mut keep_alive = tokio::time::interval_at(tokio::time::Instant::now() + half, half);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let told = vec![Told::default(); answer.choices.len()];
        let mut out = BytesMut::with_capacity(limits::STREAM_BUFFER_BYTES);
        chunks.open(&mut out);
        Self { answer, chunks, told, state: State::Running, out, keep_alive, spoke: false }
    }

    fn write_fresh(&mut self) {
        for (index, (choice, told)) in self.answer.choices.iter_mut().zip(&mut self.told).enumerate() {
            if let Stage::Queued(place) = &choice.stage
                && told.place != Some(*place)
            {
                told.place = Some(*place);
                write_place(place, &mut self.out);
            }
            let finished = match &choice.stage {
                Stage::Finished(reason) => Some(*reason),
                Stage::Unheard
                | Stage::Queued(_)
                | Stage::Dispatched
                | Stage::Answering
                | Stage::Failed(_) => None,
            };
            if !told.begun && (finished.is_some() || !choice.fresh.is_empty()) {
                told.begun = true;
                self.chunks.begin(index, &mut self.out);
            }
            if !choice.fresh.is_empty() {
                self.chunks.delta(index, &choice.fresh, &mut self.out);
                choice.fresh.clear();
            }
            if let Some(reason) = finished.filter(|_| !told.ended) {
                told.ended = true;
                self.chunks.end(index, reason, &mut self.out);
            }
        }
    }

    fn write_end(&mut self) {
        self.chunks.usage(&self.answer.usage(), &mut self.out);
        self.chunks.done(&mut self.out);
        self.state = State::Over;
    }

    fn write_failure(&mut self, failure: Failure) {
        self.chunks.failed(&ApiError::mid_stream(failure), &mut self.out);
        self.state = State::Breaking;
    }

    /// Half of the longest silence has passed, and perhaps all of it: proof of life, and the place in the line for those who wait.
    fn tick(&mut self) {
        self.answer.end_if_overdue();
        if std::mem::take(&mut self.spoke) {
            return;
        }
        let places = self.answer.choices.iter().filter_map(|choice| match &choice.stage {
            Stage::Queued(place) => Some(*place),
            Stage::Unheard | Stage::Dispatched | Stage::Answering | Stage::Finished(_) | Stage::Failed(_) => {
                None
            }
        });
        match places.max_by_key(|place| place.ahead) {
            Some(place) => write_place(&place, &mut self.out),
            None => self.out.extend_from_slice(b": keep-alive\n\n"),
        }
    }

    fn poll_running(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            let polled = self.answer.poll(context);
            self.write_fresh();
            if let Some(failure) = self.answer.failure().cloned() {
                self.write_failure(failure);
            } else if self.answer.ended() {
                self.write_end();
                if self.out.is_empty() {
                    // Its last word comes from somewhere else.
                    return Poll::Ready(Bytes::new());
                }
            } else if self.out.is_empty() && polled.is_pending() {
                if self.keep_alive.poll_tick(context).is_pending() {
                    return Poll::Pending;
                }
                self.tick();
            }
            if !self.out.is_empty() {
                self.spoke = true;
                return Poll::Ready(self.out.split().freeze());
            }
        }
    }
}

impl<C: Chunks> Stream for EventStream<C> {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.state {
            State::Running => {
                self.poll_running(context).map(|bytes| (!bytes.is_empty()).then_some(Ok(bytes)))
            }
            State::Breaking => {
                // The server flushes when the body has nothing more at the moment.
                self.state = State::Cutting;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            State::Cutting => {
                self.state = State::Over;
                Poll::Ready(Some(Err(Broken)))
            }
            State::Over => Poll::Ready(None),
        }
    }
}

/// `: position 3, about 12 s`, with `loading the model` before it where that is what takes the time.
fn write_place(place: &Place, out: &mut BytesMut) {
    let mut out = out.writer();
    let loading = if place.loading { "loading the model, " } else { "" };
    // Writing to memory cannot fail.
    let _ = write!(out, ": {loading}position {}", u64::from(place.ahead) + 1);
    let _ = match place.eta {
        None => Ok(()),
        Some(About::Seconds(seconds)) => write!(out, ", about {seconds} s"),
        Some(About::Minutes(minutes)) => write!(out, ", about {minutes} min"),
    };
    let _ = out.write_all(b"\n\n");
}
