//! What a row has produced and its stream has not taken yet.
//!
//! Owns the hand-over from the reader of a runtime, which must never wait, to one stream, which waits whenever its client
//! does. Tokens that wait are joined into one piece, never dropped; an answer is bounded by its `max_tokens`, and so is what
//! can wait here. Refuses nothing: pieces after the end are ignored.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frames::{Logprobs, RowExtra, RowFinish, RowStep};

/// Everything that waited.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) ids: Vec<u32>,
    pub(crate) logprobs: Vec<Logprobs>,
    pub(crate) end: Option<RowEnd>,
}

/// How a row ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowEnd {
    /// The runtime said so.
    Finished(RowFinish, RowExtra),
    /// The runtime is gone; what it would have said is lost.
    Lost(Loss),
}

/// How a runtime was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its process ended, or had to be ended.
    #[default]
    Ended,
    /// It made no progress and was killed.
    Hung,
    /// What it sent was no frame, and it was killed.
    Garbled,
}

/// One writer, one reader.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Piece>,
    arrived: Notify,
}

impl Outbox {
    /// Takes in what a step produced for this row.
    pub(crate) fn push(&self, step: RowStep) {
        let RowStep(_, ids, finish, extra) = step;
        let mut extra = extra.unwrap_or_default();
        let mut waiting = self.waiting();
        waiting.ids.extend(ids);
        waiting.logprobs.append(&mut extra.logprobs);
        if let Some(finish) = finish {
            waiting.end.get_or_insert(RowEnd::Finished(finish, extra));
        }
        let worth_a_wake = !waiting.ids.is_empty() || waiting.end.is_some();
        drop(waiting);
        if worth_a_wake {
            self.arrived.notify_one();
        }
    }

    /// Nothing more will come.
    pub(crate) fn lose(&self, loss: Loss) {
        self.waiting().end.get_or_insert(RowEnd::Lost(loss));
        self.arrived.notify_one();
    }

    /// All that waits, as soon as anything does. Cancel-safe: what is not returned stays.
    pub(crate) async fn pull(&self) -> Piece {
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.ids.is_empty() || waiting.end.is_some() {
                    return std::mem::take(&mut waiting);
                }
            }
            self.arrived.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Piece> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(ids: &[u32], finish: Option<RowFinish>) -> RowStep {
        RowStep(7, ids.to_vec(), finish, None)
    }

    #[tokio::test]
    async fn tokens_that_wait_are_joined_not_dropped() {
        let outbox = Outbox::default();
        outbox.push(step(&[1], None));
        outbox.push(step(&[2, 3], None));
        outbox.push(step(&[4], Some(RowFinish::Length)));
        let piece = outbox.pull().await;
        assert_eq!(piece.ids, [1, 2, 3, 4]);
        assert_eq!(piece.end, Some(RowEnd::Finished(RowFinish::Length, RowExtra::default())));
    }

    #[tokio::test]
    async fn logprobs_stay_beside_their_tokens() {
        let outbox = Outbox::default();
        for id in [5, 6] {
            let extra = RowExtra { logprobs: vec![(-1.0, vec![(id, -1.0)])], ..RowExtra::default() };
            outbox.push(RowStep(7, vec![id], None, Some(extra)));
        }
        let piece = outbox.pull().await;
        assert_eq!((piece.ids.len(), piece.logprobs.len()), (2, 2));
        assert_eq!(piece.logprobs[1].1, [(6, -1.0)]);
    }

    #[tokio::test]
    async fn tokens_before_a_loss_are_still_handed_over() {
        let outbox = Outbox::default();
        outbox.push(step(&[1], None));
        outbox.lose(Loss::Hung);
        outbox.lose(Loss::Ended);
        let piece = outbox.pull().await;
        assert_eq!((piece.ids.as_slice(), piece.end), ([1].as_slice(), Some(RowEnd::Lost(Loss::Hung))));
    }

    #[tokio::test]
    async fn an_end_is_not_changed_by_a_later_loss() {
        let outbox = Outbox::default();
        outbox.push(step(&[], Some(RowFinish::Stop)));
        outbox.lose(Loss::Ended);
        assert_eq!(outbox.pull().await.end, Some(RowEnd::Finished(RowFinish::Stop, RowExtra::default())));
    }

    #[tokio::test]
    async fn an_empty_step_wakes_nobody() {
        let outbox = Outbox::default();
        outbox.push(step(&[], None));
        let pulled = futures_util::FutureExt::now_or_never(outbox.pull());
        assert_eq!(pulled, None);
    }
}
