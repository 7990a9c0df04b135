//! The models this coordinator can speak for, and what it knows of each.
//!
//! Owns the gateway's view: facts from the agents' reports and the card (tokenizer and chat template). Refuses to decide where
//! a model runs: that is the scheduler's.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::gateway::text::card::Card;

/// A model that is wanted somewhere or was reported by an agent.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) name: String,
    /// When it became known here, seconds since the epoch; `created` in /v1/models.
    pub(crate) created_unix_s: u64,
    /// `None` until an agent has read the model's files.
    pub(crate) facts: Option<proto::v1::ModelFacts>,
    /// `None` until the tokenizer and template have arrived.
    pub(crate) card: Option<Arc<Card>>,
    /// Names that card; a node with another one under the same model name is not used.
    pub(crate) card_digest: Option<String>,
    /// How many nodes could take a request now.
    pub(crate) nodes_ready: usize,
    /// Why none is ready, in words for a person; empty when one is.
    pub(crate) status: String,
}

impl Model {
    /// Wanted, and no agent has told of it yet.
    pub(crate) fn unseen(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            created_unix_s: 0,
            facts: None,
            card: None,
            card_digest: None,
            nodes_ready: 0,
            status: "no connected node holds it yet".to_owned(),
        }
    }
}

/// Shared, read on each request; written by the agent sessions.
#[derive(Clone, Default)]
pub(crate) struct Catalogue {
    models: Arc<RwLock<BTreeMap<String, Arc<Model>>>>,
}

impl Catalogue {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Puts the new truth in place of the old.
    pub(crate) fn replace(&self, models: BTreeMap<String, Arc<Model>>) {
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }
}
