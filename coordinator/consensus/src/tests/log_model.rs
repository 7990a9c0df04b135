//! What the log must hold after any crash, kept beside a real [`Log`]: the state at the last acknowledgement, and the
//! states after each later operation that nobody was told about.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::generator::Generator;
use super::sim_disk::SimDisk;
use crate::error::OpenError;
use crate::wal::extent::{Extent, Purged};
use crate::wal::folder::Folder;
use crate::wal::log::{Contents, Log, Rotation, entry};
use crate::wal::record::{Kind, Op};

/// Segments so small that a few entries fill one.
pub(super) const SMALL: Rotation = Rotation { bytes_max: 900, bytes_worth_purging: 500 };

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) extent: Extent,
    pub(super) entries: BTreeMap<u64, Op>,
}

impl State {
    pub(super) fn of(contents: &Contents) -> State {
        let entries = contents.entries.iter().map(|op| (op.index, op.clone())).collect();
        State { extent: contents.extent.clone(), entries }
    }

    fn apply(&mut self, op: &Op) {
        match op.kind {
            Kind::Entry => {
                self.entries.insert(op.index, op.clone());
                self.extent.last_index = Some(op.index);
            }
            Kind::Truncate => {
                self.entries.retain(|index, _| *index < op.index);
                let purged = self.extent.purged.as_ref().map(|purged| purged.index);
                self.extent.last_index = self.entries.keys().next_back().copied().or(purged);
            }
            Kind::Purge => {
                self.entries.retain(|index, _| *index > op.index);
                self.extent.last_index = self.extent.last_index.max(Some(op.index));
                let name = String::from_utf8(op.payload.clone()).unwrap();
                self.extent.purged = Some(Purged { index: op.index, name });
            }
        }
    }
}

/// The acknowledged state and what may have followed it.
#[derive(Clone, Default)]
pub(super) struct Model {
    /// The first is acknowledged.
    states: Vec<State>,
    /// The first is acknowledged; a second is the vote being saved.
    votes: Vec<Vec<u8>>,
}

impl Model {
    pub(super) fn new() -> Model {
        Model { states: vec![State::default()], votes: vec![Vec::new()] }
    }

    pub(super) fn latest(&self) -> &State {
        self.states.last().unwrap()
    }

    /// Asserts that `contents` is the acknowledged state or a later one that was under way, and goes on from it.
    pub(super) fn check(&mut self, contents: &Contents, what: &str) {
        let found = State::of(contents);
        assert!(self.states.contains(&found), "{what}: {found:#?} is none of {:#?}", self.states);
        assert!(self.votes.contains(&contents.vote), "{what}: vote {:?} of {:?}", contents.vote, self.votes);
        self.states = vec![found];
        self.votes = vec![contents.vote.clone()];
    }

    fn append(&mut self, log: &mut Log, op: &Op) -> io::Result<()> {
        let mut next = self.latest().clone();
        next.apply(op);
        self.states.push(next);
        log.append(op)
    }

    fn acknowledge(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    /// One random operation, to its acknowledgement.
    pub(super) fn step(&mut self, log: &mut Log, generator: &mut Generator) -> io::Result<()> {
        let latest = self.latest().clone();
        let purged = latest.extent.purged.as_ref().map_or(0, |purged| purged.index + 1);
        let next = latest.extent.next_index().unwrap_or(0);
        match generator.below(10) {
            0 => {
                let from = purged + generator.below(next.saturating_sub(purged) + 1);
                self.append(log, &Op { kind: Kind::Truncate, index: from, term: 0, payload: Vec::new() })?;
                log.flush()?;
            }
            1 if next > purged => {
                let upto = purged + generator.below(next - purged);
                let payload = format!("point {upto}").into_bytes();
                self.append(log, &Op { kind: Kind::Purge, index: upto, term: 0, payload })?;
                log.drop_purged()?;
            }
            2 => {
                let vote = format!("vote {}", generator.below(1000)).into_bytes();
                self.votes.push(vote.clone());
                log.save_vote(&vote)?;
                self.votes.remove(0);
            }
            3 => {
                log.save_committed(Some(format!("point {}", generator.below(1000))));
                log.write_committed()?;
            }
            4 => log.flush_mark()?,
            _ => {
                for index in next..next + 1 + generator.below(4) {
                    let payload = vec![b'x'; generator.below(300) as usize];
                    self.append(log, &entry(index, generator.below(9), payload))?;
                }
                log.flush()?;
            }
        }
        self.acknowledge();
        Ok(())
    }
}

pub(super) fn open(disk: &SimDisk) -> Result<(Log, Contents), OpenError> {
    let (folder, _released) = Folder::on(Arc::new(disk.clone()));
    Log::open(folder, 1, SMALL)
}
