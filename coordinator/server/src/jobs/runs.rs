//! The runs of jobs in this process.
//!
//! Owns their numbers, and the list of those that go on: a run is on it from before the registry hears of it until after the
//! registry has heard of its end. So a run that the registry knows and the list does not is dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use registry::{JobRun, Life};

use super::record::Record;
use crate::limits;

#[derive(Clone)]
pub(crate) struct Runs {
    replica: u64,
    life: Life,
    going: Arc<Mutex<Going>>,
}

#[derive(Default)]
struct Going {
    last: u64,
    records: BTreeMap<u64, Record>,
}

/// A run that goes on as long as this lives.
pub(crate) struct Running {
    pub(crate) run: JobRun,
    pub(crate) record: Record,
    runs: Runs,
}

impl Runs {
    pub(crate) fn new(replica: u64) -> anyhow::Result<Self> {
        let life = getrandom::u64().context("drawing a number for this life")?;
        Ok(Self { replica, life: Life(life), going: Arc::default() })
    }

    /// `None`: as many go on as may.
    pub(crate) fn begin(&self) -> Option<Running> {
        let mut going = self.lock();
        if going.records.len() >= limits::RUNS_MAX {
            return None;
        }
        going.last += 1;
        let (number, record) = (going.last, Record::default());
        going.records.insert(number, record.clone());
        let run = JobRun { replica: self.replica, life: self.life, number };
        Some(Running { run, record, runs: self.clone() })
    }

    /// What a run of this process answers, if it goes on.
    pub(crate) fn record(&self, run: JobRun) -> Option<Record> {
        let ours = run.replica == self.replica && run.life == self.life;
        self.lock().records.get(&run.number).filter(|_| ours).cloned()
    }

    /// Whether another coordinator would have to be asked about it.
    pub(crate) fn is_elsewhere(&self, run: JobRun) -> bool {
        run.replica != self.replica
    }

    pub(crate) fn goes_on(&self, life: Life, number: u64) -> bool {
        life == self.life && self.lock().records.contains_key(&number)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Going> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever reads it must not wait for ever.
        self.record.abandon();
        self.runs.lock().records.remove(&self.run.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_as_long_as_it_is_held_and_in_one_life_only() {
        let (runs, next_life) = (Runs::new(1).expect("randomness"), Runs::new(1).expect("randomness"));
        let first = runs.begin().expect("room");
        let second = runs.begin().expect("room");
        assert_ne!(first.run, second.run);
        assert!(runs.goes_on(first.run.life, first.run.number));
        assert!(!next_life.goes_on(first.run.life, first.run.number));
        assert!(next_life.record(first.run).is_none() && !next_life.is_elsewhere(first.run));
        let gone = first.run;
        drop(first);
        assert!(!runs.goes_on(gone.life, gone.number) && runs.record(gone).is_none());
        assert!(runs.record(second.run).is_some());
    }

    #[test]
    fn there_are_only_so_many_at_once() {
        let runs = Runs::new(1).expect("randomness");
        let mut going: Vec<_> = std::iter::from_fn(|| runs.begin()).collect();
        assert_eq!(going.len(), limits::RUNS_MAX);
        going.pop();
        assert!(runs.begin().is_some());
    }
}
