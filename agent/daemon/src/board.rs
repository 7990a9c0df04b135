//! What the rest of the agent may know of the models, as of now.
//!
//! Owns the published picture: reports are made of it and attempts are admitted by it. The loop replaces it as a whole, so no
//! reader ever sees half a change. Refuses writes by anyone else.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::notice::ModelWord;
use crate::preparing::{CardFiles, ModelFacts};
use crate::runtimes::{Runtime, SharedRates};

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
    pub(crate) slots: u32,
    pub(crate) rates: SharedRates,
    pub(crate) pid: u32,
    pub(crate) restarts: u32,
    /// Its present runtime, whatever its state.
    pub(crate) runtime: Option<Arc<Runtime>>,
}

impl Entry {
    /// The runtime, if it can take a request.
    pub(crate) fn ready(&self) -> Option<&Arc<Runtime>> {
        self.runtime.as_ref().filter(|_| self.state == ModelWord::Ready)
    }

    pub(crate) fn running(&self) -> u32 {
        self.runtime.as_ref().map_or(0, |runtime| runtime.running())
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
        let facts = |entry: &Self| (entry.pid, entry.restarts, entry.card.is_some(), entry.runtime.is_some());
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
