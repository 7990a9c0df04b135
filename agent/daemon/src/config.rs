//! What an agent is started with.
//!
//! Owns the settings and the names that offered models get. Refuses nothing itself but a source that no name can be made of;
//! flags, defaults and their help belong to the command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use proto::token::JoinToken;

/// The settings of one agent.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the agent keeps: identity, Python environment, models. One agent at a time.
    pub data_folder: PathBuf,
    /// `host:port` of each coordinator's gRPC side, one at least; each tells the port of its token streams itself, and all tell
    /// of further ones.
    pub coordinators: Vec<String>,
    /// Needed until this Mac has an identity.
    pub token: Option<JoinToken>,
    /// What people call this Mac.
    pub name: String,
    /// Models this Mac shall hold. Empty: those the coordinator remembers.
    pub offers: Vec<Offer>,
    /// Another program in place of our Python runtime, speaking the same frames.
    pub runtime: Option<RuntimeProgram>,
    /// A program with the subcommand `guard`: in production this very binary.
    pub guard_program: PathBuf,
    /// Bytes that runtimes may use in all; `None`: what the GPU may hold.
    pub memory_budget_bytes: Option<u64>,
    /// Answers that one model computes at once; `None`: [`crate::limits::SLOTS_DEFAULT`].
    pub slots: Option<u32>,
}

/// A program that speaks the frames of a runtime; `--socket PATH` is appended to its arguments.
#[derive(Clone, Debug)]
pub struct RuntimeProgram {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
}

/// A model this agent was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The name clients ask for.
    pub model: String,
    pub source: OfferSource,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferSource {
    /// A folder on this Mac.
    Path(String),
    /// An id on a model hub.
    Hub(String),
    /// The model inside the binary.
    Demo,
}

/// No model name can be made of this source.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no model name can be made of {0:?}: give a folder whose name has letters, digits, '.', '_' or '-'")]
pub struct UnnamableSource(pub String);

/// The name under which the model inside the binary is served.
pub const DEMO_MODEL: &str = "mlx-serving-demo";

impl Offer {
    /// Names the model after its source: a hub id is the name, a folder gives its last part.
    pub fn new(source: OfferSource) -> Result<Self, UnnamableSource> {
        let model = match &source {
            OfferSource::Path(path) => {
                folder_name(Path::new(path)).ok_or_else(|| UnnamableSource(path.clone()))?
            }
            OfferSource::Hub(id) => id.clone(),
            OfferSource::Demo => DEMO_MODEL.to_owned(),
        };
        Ok(Self { model, source })
    }
}

/// The last part of a path; inside a hub cache (`models--owner--name/snapshots/<hash>`) the id it was fetched under.
fn folder_name(path: &Path) -> Option<String> {
    let mut parents = path.ancestors().skip(1).filter_map(|folder| folder.file_name()?.to_str());
    if let (Some("snapshots"), Some(repository)) = (parents.next(), parents.next())
        && let Some(id) = repository.strip_prefix("models--")
    {
        return Some(id.replacen("--", "/", 1));
    }
    let name = path.file_name()?.to_str()?;
    let fine = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    let name: String = name.chars().map(|char| if fine(char) { char } else { '-' }).collect();
    let name = name.trim_start_matches(['.', '-']);
    name.chars().any(|char| char.is_ascii_alphanumeric()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> Result<String, UnnamableSource> {
        Offer::new(OfferSource::Path(path.to_owned())).map(|offer| offer.model)
    }

    #[test]
    fn a_folder_gives_its_own_name() {
        assert_eq!(named("/models/Qwen3-4B-4bit"), Ok("Qwen3-4B-4bit".to_owned()));
        assert_eq!(named("/models/My Model (v2)"), Ok("My-Model--v2-".to_owned()));
    }

    #[test]
    fn a_hub_cache_folder_gives_the_id_it_was_fetched_under() {
        let path = "/cache/hub/models--mlx-community--Qwen3-4B-4bit/snapshots/0a1b2c";
        assert_eq!(named(path), Ok("mlx-community/Qwen3-4B-4bit".to_owned()));
    }

    #[test]
    fn a_source_without_a_usable_name_is_refused() {
        for path in ["/", "/models/..", "/models/---"] {
            assert_eq!(named(path), Err(UnnamableSource(path.to_owned())));
        }
    }

    #[test]
    fn the_demo_and_the_hub_name_themselves() {
        assert_eq!(Offer::new(OfferSource::Demo).map(|offer| offer.model), Ok(DEMO_MODEL.to_owned()));
        let hub = Offer::new(OfferSource::Hub("a/b".to_owned()));
        assert_eq!(hub.map(|offer| offer.model), Ok("a/b".to_owned()));
    }
}
