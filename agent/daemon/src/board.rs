//! What the rest of the agent may know of the models, as of now.
//!
//! Owns the published picture: reports are made of it and attempts are admitted by it. The loop replaces it as a whole, so no
//! reader ever sees half a change. Refuses writes by anyone else.

use std::collections::BTreeMap;
use std::sync::Arc;

use supervisor::At;

use crate::notice::ModelWord;
use crate::preparing::{CardFiles, Footprint, ModelFacts};
use crate::runtimes::{Runtime, SharedFigures};

/// All models by name.
#[derive(Clone, Default)]
pub(crate) struct Board {
    pub(crate) models: BTreeMap<String, Entry>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) state: ModelWord,
    /// Why it waits or failed, in words for a person.
    pub(crate) reason: String,
    pub(crate) permille: u16,
    pub(crate) facts: Option<ModelFacts>,
    pub(crate) card: Option<Arc<CardFiles>>,
    /// Zeros until its folder is read.
    pub(crate) footprint: Footprint,
    pub(crate) slots: u32,
    pub(crate) figures: SharedFigures,
    pub(crate) restarts: u32,
    /// Its present process, whatever its state.
    pub(crate) process: Option<ModelProcess>,
}

/// What is known of a model's process.
#[derive(Clone)]
pub(crate) struct ModelProcess {
    /// Never used twice in the life of an agent.
    pub(crate) incarnation: u32,
    pub(crate) started: At,
    /// Zero until it has connected.
    pub(crate) pid: u32,
    /// From its start until it was ready; zero before.
    pub(crate) load_ms: u32,
    pub(crate) runtime: Arc<Runtime>,
}

impl Entry {
    /// The runtime, if it can take a request.
    pub(crate) fn ready(&self) -> Option<&Arc<Runtime>> {
        self.process.as_ref().map(|process| &process.runtime).filter(|_| self.state == ModelWord::Ready)
    }

    pub(crate) fn running(&self) -> u32 {
        self.process.as_ref().map_or(0, |process| process.runtime.running())
    }
}

impl Entry {
    /// Would a person at the terminal see a difference?
    pub(crate) fn news(&self, former: Option<&Self>) -> bool {
        former.is_none_or(|former| {
            (self.state, &self.reason, self.permille) != (former.state, &former.reason, former.permille)
        })
    }

    fn same(&self, other: &Self) -> bool {
        let process = |entry: &Self| {
            entry.process.as_ref().map(|process| (process.incarnation, process.pid, process.load_ms))
        };
        let facts = |entry: &Self| (entry.restarts, entry.card.is_some(), entry.footprint, process(entry));
        !self.news(Some(other)) && facts(self) == facts(other)
    }
}

impl Board {
    /// Is there anything to report?
    pub(crate) fn differs(&self, former: &Self) -> bool {
        let names = |board: &Self| board.models.keys().cloned().collect::<Vec<_>>();
        let same =
            |(name, entry): (&String, &Entry)| former.models.get(name).is_some_and(|other| entry.same(other));
        names(self) != names(former) || !self.models.iter().all(same)
    }

    pub(crate) fn running(&self) -> u32 {
        self.models.values().map(Entry::running).sum()
    }
}
