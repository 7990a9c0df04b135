//! An answer while it is given: read by any number of clients, each from its beginning and at its own pace.
//!
//! Owns the pieces that have been given, and their bound. Up to the size at which an answer is kept nobody waits for a reader;
//! beyond it what every reader has is let go, whoever comes later comes too late, and the writer waits for the slowest. Refuses
//! to know what an answer is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::response::Parts;
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use crate::limits;

/// How the answer begins, given once.
pub(crate) type Head = Arc<Parts>;

#[derive(Clone)]
pub(crate) struct Record {
    state: Arc<Mutex<State>>,
    /// Something was given, or the end.
    given: watch::Sender<()>,
    /// A reader has gone on, or away.
    taken: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    head: Option<Head>,
    pieces: VecDeque<Bytes>,
    /// The number of the first piece that is held.
    first: usize,
    bytes_held: usize,
    /// Each reader's next piece.
    readers: BTreeMap<u64, usize>,
    last_reader: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// What was given is not all.
    Broken,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Bytes),
    Whole,
    Broken,
}

impl Default for Record {
    fn default() -> Self {
        Self { state: Arc::default(), given: watch::Sender::new(()), taken: watch::Sender::new(()) }
    }
}

impl Record {
    pub(crate) fn begin(&self, head: Parts) {
        self.lock().head = Some(Arc::new(head));
        self.given.send_replace(());
    }

    /// Waits for readers only where the answer is longer than what is kept of one.
    pub(crate) async fn push(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        {
            let mut state = self.lock();
            state.bytes_held += piece.len();
            state.pieces.push_back(piece);
            state.let_go();
        }
        self.given.send_replace(());
        let mut taken = self.taken.subscribe();
        // The sender is this record's.
        let _ = taken.wait_for(|()| self.lock().bytes_held <= limits::ANSWER_BYTES_MAX).await;
    }

    /// All of it was given.
    pub(crate) fn end(&self) {
        self.finish(End::Whole);
    }

    /// What was given is not all, and nothing more comes.
    pub(crate) fn abandon(&self) {
        self.finish(End::Broken);
    }

    /// The first word on the end counts.
    fn finish(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.given.send_replace(());
    }

    /// All that was given so far, unless it is more than is kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let state = self.lock();
        if state.first > 0 {
            return None;
        }
        let mut whole = BytesMut::with_capacity(state.bytes_held);
        state.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Some(whole.freeze())
    }

    /// From the beginning; `None` where that is gone.
    pub(crate) fn read(&self) -> Option<Reading> {
        let given = self.given.subscribe();
        let mut state = self.lock();
        if state.first > 0 {
            return None;
        }
        state.last_reader += 1;
        let reader = state.last_reader;
        state.readers.insert(reader, 0);
        drop(state);
        Some(Reading { record: self.clone(), reader, given })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn let_go(&mut self) {
        while self.bytes_held > limits::ANSWER_BYTES_MAX || self.first > 0 {
            let everybody_has_it = self.readers.values().all(|next| *next > self.first);
            if !everybody_has_it {
                return;
            }
            let Some(piece) = self.pieces.pop_front() else { return };
            self.bytes_held -= piece.len();
            self.first += 1;
        }
    }
}

/// One client's reading of an answer.
pub(crate) struct Reading {
    record: Record,
    reader: u64,
    given: watch::Receiver<()>,
}

impl Reading {
    /// How the answer begins; `None` if it ended before it did.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        loop {
            self.given.mark_unchanged();
            {
                let state = self.record.lock();
                if state.head.is_some() || state.end.is_some() {
                    return state.head.clone();
                }
            }
            self.given.changed().await.ok()?;
        }
    }

    pub(crate) async fn next(&mut self) -> Piece {
        loop {
            self.given.mark_unchanged();
            if let Some(piece) = self.take() {
                self.record.taken.send_replace(());
                return piece;
            }
            if self.given.changed().await.is_err() {
                return Piece::Broken;
            }
        }
    }

    /// What there is without waiting.
    fn take(&mut self) -> Option<Piece> {
        let mut state = self.record.lock();
        let next = state.readers.get(&self.reader).copied().unwrap_or_default();
        let piece = state.pieces.get(next.saturating_sub(state.first)).cloned();
        let Some(piece) = piece else {
            return state.end.map(|end| match end {
                End::Whole => Piece::Whole,
                End::Broken => Piece::Broken,
            });
        };
        state.readers.insert(self.reader, next + 1);
        state.let_go();
        Some(Piece::Bytes(piece))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = self.record.lock();
        state.readers.remove(&self.reader);
        state.let_go();
        drop(state);
        self.record.taken.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: usize = limits::ANSWER_BYTES_MAX / 2 + 1;

    fn big() -> Bytes {
        Bytes::from(vec![7; BIG])
    }

    async fn rest(reading: &mut Reading) -> (Vec<u8>, Piece) {
        let mut read = Vec::new();
        loop {
            match reading.next().await {
                Piece::Bytes(bytes) => read.extend_from_slice(&bytes),
                end @ (Piece::Whole | Piece::Broken) => return (read, end),
            }
        }
    }

    #[tokio::test]
    async fn whoever_comes_later_reads_it_from_its_beginning() {
        let record = Record::default();
        record.push(Bytes::from_static(b"one ")).await;
        let mut early = record.read().expect("it is all there");
        assert_eq!(early.next().await, Piece::Bytes(Bytes::from_static(b"one ")));
        record.push(Bytes::from_static(b"two")).await;
        let mut late = record.read().expect("it is all there");
        record.end();
        record.abandon();
        assert_eq!(rest(&mut early).await, (b"two".to_vec(), Piece::Whole));
        assert_eq!(rest(&mut late).await, (b"one two".to_vec(), Piece::Whole));
        assert_eq!(record.whole().as_deref(), Some(b"one two".as_slice()));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_broken_for_everybody() {
        let record = Record::default();
        let mut waiting = record.read().expect("it is all there");
        assert!(tokio::time::timeout(std::time::Duration::from_millis(1), waiting.head()).await.is_err());
        record.push(Bytes::from_static(b"a")).await;
        record.abandon();
        assert!(waiting.head().await.is_none());
        assert_eq!(rest(&mut waiting).await, (b"a".to_vec(), Piece::Broken));
    }

    #[tokio::test]
    async fn beyond_what_is_kept_the_writer_waits_for_the_slowest_and_nobody_comes_late() {
        let record = Record::default();
        let (mut quick, mut slow) = (record.read().expect("there"), record.read().expect("there"));
        record.push(big()).await;
        let pushing = tokio::spawn({
            let record = record.clone();
            async move { record.push(big()).await }
        });
        quick.next().await;
        quick.next().await;
        assert!(!pushing.is_finished(), "one reader has nothing yet");
        slow.next().await;
        pushing.await.expect("it goes on");
        assert!(record.read().is_none() && record.whole().is_none());
        drop((quick, slow));
        // Nobody reads: it goes on by itself.
        record.push(big()).await;
        record.push(big()).await;
        assert!(record.lock().bytes_held <= limits::ANSWER_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_holds_nobody_up() {
        let record = Record::default();
        let slow = record.read().expect("there");
        record.push(big()).await;
        let pushing = tokio::spawn({
            let record = record.clone();
            async move { record.push(big()).await }
        });
        tokio::task::yield_now().await;
        assert!(!pushing.is_finished());
        drop(slow);
        pushing.await.expect("it goes on");
    }
}
