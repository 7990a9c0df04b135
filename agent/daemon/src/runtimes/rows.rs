//! Which row of a runtime belongs to which attempt.
//!
//! Owns row numbers, the slots of one runtime and the routing of its steps. A cancelled row gives its slot to the next at
//! once, which the runtime starts as soon as it has ended the other, a step later. Refuses attempts beyond the slots, more rows
//! in all than twice the slots (a runtime that ends no cancelled row is stuck), new ones while it drains, and everything after
//! the runtime's end.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frames::RowStep;
use super::outbox::{Loss, Outbox};

/// Why a row could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRow {
    /// Every slot is taken.
    Busy,
    /// The model is to go; what runs may finish.
    Draining,
    /// The runtime is gone.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Rows {
    slots: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    draining: bool,
    closed: bool,
    live: HashMap<u64, Arc<Outbox>>,
    /// Those of them that the runtime was asked to end.
    cancelled: HashSet<u64>,
}

impl Rows {
    pub(crate) fn new(slots: u32) -> Self {
        Self { slots: usize::try_from(slots).unwrap_or(usize::MAX), table: Mutex::default() }
    }

    /// A new row and where its tokens will arrive.
    pub(crate) fn open(&self) -> Result<(u64, Arc<Outbox>), NoRow> {
        let mut table = self.table();
        if table.closed {
            return Err(NoRow::Closed);
        }
        if table.draining {
            return Err(NoRow::Draining);
        }
        let (live, cancelled) = (table.live.len(), table.cancelled.len());
        if live - cancelled >= self.slots || live >= self.slots.saturating_mul(2) {
            return Err(NoRow::Busy);
        }
        let row = table.next;
        table.next += 1;
        let outbox = Arc::new(Outbox::default());
        table.live.insert(row, outbox.clone());
        Ok((row, outbox))
    }

    /// Hands a step's rows to their attempts. A row that nobody owns was ended before; its frames are stale. True when the last
    /// row of a runtime that drains has ended.
    pub(crate) fn route(&self, steps: Vec<RowStep>) -> bool {
        let mut table = self.table();
        let running = !table.live.is_empty();
        for step in steps {
            let ends = step.2.is_some();
            let outbox = if ends { table.end(step.0) } else { table.live.get(&step.0).cloned() };
            if let Some(outbox) = outbox {
                outbox.push(step);
            }
        }
        table.draining && running && table.live.is_empty()
    }

    /// No new row opens. True when none is left already.
    pub(crate) fn drain(&self) -> bool {
        let mut table = self.table();
        table.draining = true;
        table.live.is_empty()
    }

    /// The model is to stay after all.
    pub(crate) fn resume(&self) {
        self.table().draining = false;
    }

    /// The runtime is gone: every row is lost, and no new one opens.
    pub(crate) fn close(&self, loss: Loss) {
        let mut table = self.table();
        table.closed = true;
        table.cancelled.clear();
        for (_, outbox) in table.live.drain() {
            outbox.lose(loss);
        }
    }

    /// Nobody waits for the row any more. True when the runtime has to be told.
    pub(crate) fn cancel(&self, row: u64) -> bool {
        let mut table = self.table();
        table.live.contains_key(&row) && table.cancelled.insert(row)
    }

    /// Rows that the runtime works on, cancelled ones included.
    pub(crate) fn running(&self) -> u32 {
        u32::try_from(self.table().live.len()).unwrap_or(u32::MAX)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn end(&mut self, row: u64) -> Option<Arc<Outbox>> {
        self.cancelled.remove(&row);
        self.live.remove(&row)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::RowFinish;
    use super::super::outbox::RowEnd;
    use super::*;

    fn step(row: u64, ids: &[u32], finish: Option<RowFinish>) -> RowStep {
        RowStep(row, ids.to_vec(), finish, None)
    }

    #[tokio::test]
    async fn each_attempt_gets_its_own_tokens() {
        let rows = Rows::new(2);
        let (a, to_a) = rows.open().expect("a slot");
        let (b, to_b) = rows.open().expect("a slot");
        rows.route(vec![step(b, &[20], None), step(a, &[10], None)]);
        assert_eq!((to_a.pull().await.ids, to_b.pull().await.ids), (vec![10], vec![20]));
    }

    #[test]
    fn a_row_beyond_the_slots_is_refused_until_the_runtime_ends_one() {
        let rows = Rows::new(1);
        let (row, _kept) = rows.open().expect("a slot");
        assert_eq!(rows.open().err(), Some(NoRow::Busy));
        rows.route(vec![step(row, &[], Some(RowFinish::Cancelled))]);
        assert_eq!(rows.running(), 0);
        assert!(rows.open().is_ok_and(|(next, _)| next != row), "a number is never used twice");
    }

    #[test]
    fn a_cancelled_row_gives_its_slot_away_at_once_but_not_without_bound() {
        let rows = Rows::new(1);
        let (first, _) = rows.open().expect("a slot");
        assert!(rows.cancel(first));
        assert!(!rows.cancel(first), "the runtime is told once");
        let (second, _) = rows.open().expect("its slot");
        assert!(rows.cancel(second));
        assert_eq!((rows.open().err(), rows.running()), (Some(NoRow::Busy), 2));
        rows.route(vec![step(first, &[], Some(RowFinish::Cancelled))]);
        assert_eq!(rows.running(), 1);
        assert!(rows.open().is_ok());
        assert!(!rows.cancel(first), "a row that ended is not cancelled");
    }

    #[tokio::test]
    async fn a_runtime_that_goes_loses_every_row_and_takes_no_more() {
        let rows = Rows::new(4);
        let (_, outbox) = rows.open().expect("a slot");
        rows.close(Loss::Garbled);
        assert_eq!(outbox.pull().await.end, Some(RowEnd::Lost(Loss::Garbled)));
        assert_eq!(rows.open().err(), Some(NoRow::Closed));
        assert_eq!(rows.running(), 0);
    }

    #[test]
    fn a_runtime_that_drains_takes_no_row_and_tells_when_its_last_one_has_ended() {
        let rows = Rows::new(4);
        let ((first, _), (second, _)) = (rows.open().expect("a slot"), rows.open().expect("a slot"));
        assert!(!rows.route(vec![step(first, &[], Some(RowFinish::Stop))]));
        assert!(!rows.drain());
        assert_eq!(rows.open().err(), Some(NoRow::Draining));
        assert!(!rows.route(vec![step(second, &[1], None)]));
        assert!(rows.route(vec![step(second, &[], Some(RowFinish::Stop))]));
        assert!(!rows.route(vec![step(second, &[], Some(RowFinish::Stop))]), "told once");
        assert!(rows.drain(), "nothing runs");
    }

    #[test]
    fn a_runtime_that_is_wanted_again_takes_rows_as_before() {
        let rows = Rows::new(4);
        let (first, _) = rows.open().expect("a slot");
        rows.drain();
        rows.resume();
        let (second, _) = rows.open().expect("a slot");
        assert!(!rows.route([first, second].map(|row| step(row, &[], Some(RowFinish::Stop))).to_vec()));
    }

    #[test]
    fn steps_of_unknown_rows_are_dropped() {
        let rows = Rows::new(1);
        rows.route(vec![step(99, &[1], Some(RowFinish::Stop))]);
        assert_eq!(rows.running(), 0);
    }
}
