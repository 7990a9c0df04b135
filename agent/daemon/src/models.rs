//! The models this Mac was asked to hold, by the keys the supervisor knows them under.
//!
//! Owns names, sources, what was learned of each folder, and the words a state is reported in. A name that comes back with
//! another source is another model: the former one leaves under its own key while the new one waits. Refuses decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use supervisor::{ModelKey, ModelState, Wanted};
use tokio_util::task::AbortOnDropHandle;

use crate::config::Offer;
use crate::notice::ModelWord;
use crate::preparing::PreparedModel;
use crate::runtimes::{Runtime, SharedRates};

#[derive(Default)]
pub(crate) struct Models {
    entries: BTreeMap<ModelKey, Model>,
    last_key: u32,
}

pub(crate) struct Model {
    pub(crate) offer: Offer,
    pub(crate) wanted: bool,
    /// Fetching and reading its folder; dropping it gives up.
    pub(crate) preparing: Option<AbortOnDropHandle<()>>,
    /// What the preparation does at the moment.
    pub(crate) preparing_words: String,
    pub(crate) prepared: Option<Arc<PreparedModel>>,
    pub(crate) state: Option<ModelState>,
    pub(crate) permille: u16,
    pub(crate) pid: u32,
    pub(crate) runtime: Option<Arc<Runtime>>,
    /// Kept over restarts: the next process is as fast as the last one.
    pub(crate) rates: SharedRates,
}

impl Models {
    /// Makes exactly these wanted; returns the keys that were not known before.
    pub(crate) fn want(&mut self, offers: Vec<Offer>) -> Vec<ModelKey> {
        for model in self.entries.values_mut() {
            model.wanted = offers.contains(&model.offer);
            if !model.wanted {
                model.preparing = None;
            }
        }
        let mut fresh = Vec::new();
        for offer in offers {
            let known = self.entries.values().any(|model| model.offer == offer);
            if !known {
                self.last_key += 1;
                fresh.push(ModelKey(self.last_key));
                self.entries.insert(ModelKey(self.last_key), Model::new(offer));
            }
        }
        fresh
    }

    /// The wish in the supervisor's terms.
    pub(crate) fn wish(&self) -> Vec<Wanted> {
        let wanted = self.entries.iter().filter(|(_, model)| model.wanted);
        let bytes = |model: &Model| model.prepared.as_ref().map_or(0, |prepared| prepared.footprint_bytes);
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
        let part = |wanted: bool| self.entries.iter().filter(move |(_, model)| model.wanted == wanted);
        part(false).chain(part(true)).map(|(key, model)| (*key, model))
    }

    /// Forgets what is neither wanted nor here.
    pub(crate) fn forget_gone(&mut self) {
        self.entries.retain(|_, model| model.wanted || !matches!(model.state, None | Some(ModelState::Gone)));
    }
}

impl Model {
    fn new(offer: Offer) -> Self {
        Self {
            offer,
            wanted: true,
            preparing: None,
            preparing_words: String::new(),
            prepared: None,
            state: None,
            permille: 0,
            pid: 0,
            runtime: None,
            rates: SharedRates::default(),
        }
    }

    /// The state in one word, and why.
    pub(crate) fn told(&self) -> (ModelWord, String) {
        use supervisor::WaitingFor;
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
            Some(ModelState::Stopping | ModelState::Gone) => (ModelWord::Stopping, String::new()),
            Some(ModelState::Failed { reason, .. }) => (ModelWord::Failed, reason.clone()),
        }
    }

    /// A preparation that got on, or a load.
    pub(crate) fn progress(&self) -> u16 {
        match self.told().0 {
            ModelWord::Waiting | ModelWord::Loading => self.permille,
            ModelWord::Ready => 1_000,
            ModelWord::Starting | ModelWord::Stopping | ModelWord::Failed => 0,
        }
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
