//! The models this Mac was asked to hold or to keep prepared, by the keys the supervisor knows them under.
//!
//! Owns names, sources, what was learned of each folder, and the words a state is reported in. The supervisor hears only of
//! those to be held; preparing is the same for all. A name that comes back with another source is another model: the former one
//! leaves under its own key while the new one waits. Refuses decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use supervisor::{ModelKey, ModelState, Wanted};
use tokio_util::task::AbortOnDropHandle;

use crate::board::ModelProcess;
use crate::config::Offer;
use crate::notice::ModelWord;
use crate::preparing::PreparedModel;
use crate::runtimes::SharedFigures;

/// One of the coordinator's wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) offer: Offer,
    pub(crate) desire: Desire,
}

/// What is wished for a model. Of two wishes for one model the greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Desire {
    /// It is not wanted any more.
    Gone,
    /// It shall be prepared, so that it could be loaded.
    Offered,
    /// It shall be in memory.
    Held,
}

#[derive(Default)]
pub(crate) struct Models {
    entries: BTreeMap<ModelKey, Model>,
    last_key: u32,
}

pub(crate) struct Model {
    pub(crate) offer: Offer,
    pub(crate) desire: Desire,
    /// Fetching and reading its folder; dropping it gives up.
    pub(crate) preparing: Option<AbortOnDropHandle<()>>,
    /// What the preparation does at the moment.
    pub(crate) preparing_words: String,
    pub(crate) prepared: Option<Arc<PreparedModel>>,
    /// Why it could not be, the last time.
    pub(crate) unprepared: Option<String>,
    pub(crate) state: Option<ModelState>,
    pub(crate) permille: u16,
    pub(crate) process: Option<ModelProcess>,
    /// Kept over restarts: the next process is as fast as the last one.
    pub(crate) figures: SharedFigures,
}

impl Models {
    /// Follows exactly these wishes; returns the keys to prepare: what was not known before, and what could not be prepared and
    /// is now to be held.
    pub(crate) fn want(&mut self, wishes: &[Wish]) -> Vec<ModelKey> {
        for Wish { offer, .. } in wishes {
            if !self.entries.values().any(|model| model.offer == *offer) {
                self.last_key += 1;
                self.entries.insert(ModelKey(self.last_key), Model::new(offer.clone()));
            }
        }
        let mut to_prepare = Vec::new();
        for (key, model) in &mut self.entries {
            let mine = wishes.iter().filter(|wish| wish.offer == model.offer);
            if model.desire(mine.map(|wish| wish.desire).max().unwrap_or(Desire::Gone)) {
                to_prepare.push(*key);
            }
        }
        to_prepare
    }

    /// The wish in the supervisor's terms.
    pub(crate) fn wish(&self) -> Vec<Wanted> {
        let wanted = self.entries.iter().filter(|(_, model)| model.desire == Desire::Held);
        let bytes = |model: &Model| model.prepared.as_ref().map_or(0, |prepared| prepared.footprint.bytes);
        wanted.map(|(key, model)| Wanted { model: *key, bytes: bytes(model) }).collect()
    }

    pub(crate) fn get(&self, key: ModelKey) -> Option<&Model> {
        self.entries.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: ModelKey) -> Option<&mut Model> {
        self.entries.get_mut(&key)
    }

    /// Wanted ones last, so that a map by name ends up with them.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (ModelKey, &Model)> {
        let part = |wanted: bool| self.entries.iter().filter(move |(_, model)| model.wanted() == wanted);
        part(false).chain(part(true)).map(|(key, model)| (*key, model))
    }

    /// Forgets what is neither wanted nor here.
    pub(crate) fn forget_gone(&mut self) {
        self.entries.retain(|_, model| model.wanted() || model.resident());
    }
}

impl Model {
    fn new(offer: Offer) -> Self {
        Self {
            offer,
            desire: Desire::Gone,
            preparing: None,
            preparing_words: String::new(),
            prepared: None,
            unprepared: None,
            state: None,
            permille: 0,
            process: None,
            figures: SharedFigures::default(),
        }
    }

    /// Whether it has to be prepared, from the beginning or once more.
    fn desire(&mut self, desire: Desire) -> bool {
        let former = std::mem::replace(&mut self.desire, desire);
        if desire == Desire::Gone {
            self.preparing = None;
        }
        let untried = self.preparing.is_none() && self.prepared.is_none() && self.unprepared.is_none();
        let anew = former != Desire::Held && desire == Desire::Held && self.unprepared.take().is_some();
        desire != Desire::Gone && (untried || anew)
    }

    fn wanted(&self) -> bool {
        self.desire != Desire::Gone
    }

    /// Known to the supervisor.
    fn resident(&self) -> bool {
        !matches!(self.state, None | Some(ModelState::Gone))
    }

    /// The state in one word, and why.
    pub(crate) fn told(&self) -> (ModelWord, String) {
        use supervisor::WaitingFor;
        if self.desire == Desire::Offered && !self.resident() {
            return self.told_offered();
        }
        match &self.state {
            None | Some(ModelState::Waiting { for_: WaitingFor::Footprint }) => {
                (ModelWord::Waiting, self.preparing_words.clone())
            }
            Some(ModelState::Waiting { for_: WaitingFor::Backoff { reason, .. } }) => {
                (ModelWord::Waiting, format!("it will be started again: {reason}"))
            }
            Some(ModelState::Waiting { for_: WaitingFor::Memory { needed, free } }) => {
                let (needed, free) = (mebibytes(*needed), mebibytes(*free));
                (
                    ModelWord::Waiting,
                    format!("it needs {needed} MiB, {free} MiB of this Mac's budget are free"),
                )
            }
            Some(ModelState::Waiting { for_: for_ @ WaitingFor::Processes { .. } }) => {
                (ModelWord::Waiting, for_.to_string())
            }
            Some(ModelState::Starting) => (ModelWord::Starting, String::new()),
            Some(ModelState::Loading) => (ModelWord::Loading, String::new()),
            Some(ModelState::Ready { .. }) => (ModelWord::Ready, String::new()),
            Some(ModelState::Draining) => {
                (ModelWord::Stopping, "its running answers may finish first".to_owned())
            }
            Some(ModelState::Stopping | ModelState::Gone) => (ModelWord::Stopping, String::new()),
            Some(ModelState::Failed { reason, .. }) => (ModelWord::Failed, reason.clone()),
        }
    }

    fn told_offered(&self) -> (ModelWord, String) {
        match (&self.prepared, &self.unprepared) {
            (Some(_), _) => (ModelWord::Offered, String::new()),
            (None, Some(reason)) => (ModelWord::Failed, reason.clone()),
            (None, None) => (ModelWord::Waiting, self.preparing_words.clone()),
        }
    }

    /// A preparation that got on, or a load.
    pub(crate) fn progress(&self) -> u16 {
        match self.told().0 {
            ModelWord::Waiting | ModelWord::Loading => self.permille,
            ModelWord::Ready => 1_000,
            ModelWord::Starting | ModelWord::Stopping | ModelWord::Failed | ModelWord::Offered => 0,
        }
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
