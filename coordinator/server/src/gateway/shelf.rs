//! The models that one caller may know of.
//!
//! Owns the view of the catalogue under a key's list of models. A model that is not on it is not there: neither in a list, nor
//! by its name, nor as a hint in an error.

use std::sync::Arc;

use super::access::Who;
use crate::catalogue::{Catalogue, Model};

#[derive(Clone)]
pub(crate) struct Shelf {
    catalogue: Catalogue,
    who: Who,
}

impl Shelf {
    pub(crate) fn of(catalogue: &Catalogue, who: &Who) -> Self {
        Self { catalogue: catalogue.clone(), who: who.clone() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.catalogue.get(name).filter(|model| self.who.may_ask(&model.name))
    }

    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let mut models = self.catalogue.all();
        models.retain(|model| self.who.may_ask(&model.name));
        models
    }
}
