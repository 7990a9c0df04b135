//! The model store: from where a model is said to be to a folder a runtime can load, and what is known of it.
//!
//! Owns `<data>/models/`: the demo model unpacked from this binary, and what was fetched from a hub. Reads folders of the
//! user's and never writes there. Refuses weights other than safetensors, and code of a model's own.

mod hub_id;
mod demo;
mod hub;
mod fetch_event;
mod model_folder;
mod config;
mod safetensors;
mod facts;
mod parameters;
mod context;
mod kv_cache;
mod footprint;
mod card;
mod error;
mod limits;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

pub(crate) use card::CardFiles;
pub(crate) use error::StoreError;
pub(crate) use facts::ModelFacts;
pub(crate) use footprint::Footprint;

use crate::config::OfferSource;
use crate::environment::{Progress, PythonEnvironment};
use facts::Known;
use hub_id::HubId;
use model_folder::ModelFolder;

#[cfg(test)]
mod tests;

/// Finds and fetches models. Cheap to make; all state but whose turn it is to download is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    models: PathBuf,
    /// Downloads go one after another: two that both saw enough room for themselves would fill the disk, and neither would end.
    downloads: Arc<Mutex<()>>,
}

/// A model on this disk, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreparedModel {
    /// Absolute.
    pub(crate) folder: PathBuf,
    pub(crate) facts: ModelFacts,
    /// What it is reserved for in memory.
    pub(crate) footprint: Footprint,
    pub(crate) card: CardFiles,
}

impl Store {
    pub(crate) fn new(data_folder: &Path) -> Self {
        Self { models: data_folder.join("models"), downloads: Arc::default() }
    }

    /// The model's folder, fetched or unpacked if need be, and judged. Only a download needs the environment. Dropping the
    /// future ends a download.
    pub(crate) async fn resolve(
        &self,
        source: &OfferSource,
        environment: Option<&PythonEnvironment>,
        progress: &Progress,
    ) -> Result<PreparedModel, StoreError> {
        let folder = match source {
            OfferSource::Path(path) if Path::new(path).is_absolute() => PathBuf::from(path),
            OfferSource::Path(path) => return Err(StoreError::RelativePath { path: path.clone() }),
            OfferSource::Hub(id) => {
                hub::place(&self.models, &self.downloads, &HubId::new(id)?, environment, progress).await?
            }
            OfferSource::Demo => demo::place(&self.models, progress).await?,
        };
        progress.tell("reading the model's config and weight headers");
        let read = tokio::task::spawn_blocking(move || prepare(folder));
        read.await.map_err(|error| StoreError::io("reading", &self.models)(std::io::Error::other(error)))?
    }
}

fn prepare(folder: PathBuf) -> Result<PreparedModel, StoreError> {
    let opened = ModelFolder::open(&folder)?;
    let known = Known::of(&opened);
    let card = CardFiles::read(&opened.path)?;
    Ok(PreparedModel { folder, footprint: Footprint::of(&known), facts: known.facts, card })
}
