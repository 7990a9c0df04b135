//! The line from a generation to its client.
//!
//! Owns the order of events, a place for the last word, and how long the line was full because the client did not read. The last
//! word is told however full the line is: who comes back late hears how it ended, and not that something was lost. Refuses to wait
//! for a reader longer than anybody waits for the answer.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};

use crate::generation::Event;

pub(super) struct Line {
    events: mpsc::Sender<Event>,
    /// The place of the last word, until that is told.
    last: Option<mpsc::OwnedPermit<Event>>,
    /// A reader is waited for until then.
    latest: Instant,
    held: Duration,
    /// It is full, and somebody stands here.
    full_since: Option<Instant>,
}

impl Line {
    /// With room for so many events, and a last one.
    pub(super) fn new(room: usize, latest: Instant) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(room.saturating_add(1));
        let last = events.clone().try_reserve_owned().ok();
        (Self { events, last, latest, held: Duration::ZERO, full_since: None }, receiver)
    }

    /// Whether it found room in time. A closed receiver is a client that is gone: the cancel token is about to say so too.
    pub(super) async fn tell(&mut self, event: Event) -> bool {
        let event = match self.events.try_send(event) {
            Ok(()) => return true,
            Err(TrySendError::Full(event)) => event,
            Err(TrySendError::Closed(_)) => return std::future::pending().await,
        };
        self.full_since = Some(Instant::now());
        let told = timeout_at(self.latest, self.events.send(event)).await;
        self.held = self.held();
        self.full_since = None;
        match told {
            Ok(Ok(())) => true,
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => false,
        }
    }

    /// The last word: of two, the first.
    pub(super) fn end(&mut self, event: Event) {
        if let Some(last) = self.last.take() {
            last.send(event);
        }
    }

    /// An attempt begins: what held up others does not count.
    pub(super) fn begin(&mut self) {
        self.held = Duration::ZERO;
    }

    /// How long it was full since [`Self::begin`], also when whoever stands here was interrupted.
    pub(super) fn held(&self) -> Duration {
        self.held.saturating_add(self.full_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Failure;

    fn event(ahead: u32) -> Event {
        Event::Queued { ahead, eta: None, loading: false }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn full() -> (Line, mpsc::Receiver<Event>) {
        let (line, events) = Line::new(1, Instant::now() + 60 * SECOND);
        line.events.try_send(event(1)).expect("room for one");
        (line, events)
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_which_a_reader_holds_it_up_is_counted_from_a_beginning_on() {
        let (mut line, mut events) = full();
        for ahead in [2, 3] {
            let reading = async {
                tokio::time::sleep(9 * SECOND).await;
                events.recv().await
            };
            let (told, _) = tokio::join!(line.tell(event(ahead)), reading);
            assert!(told);
            // A fast one costs nothing.
            tokio::time::sleep(SECOND).await;
        }
        assert_eq!(line.held(), 18 * SECOND);
        line.begin();
        assert_eq!(line.held(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_interrupted_while_he_stands_there_has_stood_there() {
        let (mut line, _events) = full();
        let interrupted = tokio::time::timeout(9 * SECOND, line.tell(event(2))).await;
        assert!(interrupted.is_err());
        assert_eq!(line.held(), 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_line_has_a_place_for_one_last_word() {
        let (mut line, mut events) = full();
        assert!(!line.tell(event(2)).await, "nobody read in time");
        line.end(Event::Failed(Failure::DeadlineExceeded));
        line.end(Event::Failed(Failure::ShuttingDown));
        drop(line);
        assert_eq!(events.recv().await, Some(event(1)));
        assert_eq!(events.recv().await, Some(Event::Failed(Failure::DeadlineExceeded)));
        assert_eq!(events.recv().await, None);
    }
}
