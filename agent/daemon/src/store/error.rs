//! Why a model cannot be had, and what to do about it.
//!
//! Owns the words, and the judgement whether trying again later may help. No error shows what is in a file.

use std::io;
use std::path::{Path, PathBuf};

use super::safetensors::HeaderError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{id:?} is not a model id; it looks like mlx-community/Qwen3-4B-4bit")]
    BadId { id: String },

    #[error("{path:?} is not an absolute path; give the model folder's full path on this machine")]
    RelativePath { path: String },

    #[error("{} is not a folder on this machine", path.display())]
    NotAFolder { path: PathBuf },

    #[error("{} holds too many files to be a model folder", path.display())]
    TooManyFiles { path: PathBuf },

    #[error("{} has no config.json: it is not a model folder, or only a part of one", path.display())]
    NoConfig { path: PathBuf },

    #[error("{} is not a JSON object, or larger than a config is", path.display())]
    BadConfig { path: PathBuf },

    #[error(
        "{} asks for code of its own ({key}), which is never run; take a version of the model without it",
        path.display()
    )]
    CustomCode { path: PathBuf, key: &'static str },

    #[error("{} has no model*.safetensors{}", path.display(), instead(found.as_deref()))]
    NoWeights { path: PathBuf, found: Option<String> },

    #[error("{} points to a file that is gone; fetch the model again", path.display())]
    BrokenLink { path: PathBuf },

    #[error("{} is incomplete: {file} is missing; fetch the model again", path.display())]
    Missing { path: PathBuf, file: String },

    #[error("{}: {source}", path.display())]
    Weights { path: PathBuf, source: HeaderError },

    #[error("tensor {name} is both in {first} and in another file of {}; the folder mixes two models", path.display())]
    TensorTwice { path: PathBuf, name: String, first: String },

    #[error(
        "{} has no tokenizer.json{}. Write one with `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` \
         of the transformers package, or take a version of the model that has it", path.display(), only(found)
    )]
    NoTokenizer { path: PathBuf, found: Vec<&'static str> },

    #[error("tokenizer, chat template and settings of {} take {bytes} bytes; at most {} are sent", path.display(), proto::CARD_BYTES_MAX)]
    CardTooLarge { path: PathBuf, bytes: u64 },

    #[error(
        "{id} is not on this disk, and there is no Python environment to fetch it with; give a local folder"
    )]
    NoEnvironment { id: String },

    #[error("{text} ({id}: {code})")]
    Hub { id: String, code: String, text: String },

    #[error(
        "the download of {id} got no further for {seconds} seconds and was stopped; what has arrived is kept for the next try"
    )]
    HubSilent { id: String, seconds: u64 },

    #[error("the download of {id} ended unexpectedly: {}", last_lines.last().map_or("it said nothing", String::as_str))]
    HubBroken { id: String, last_lines: Vec<String> },

    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl StoreError {
    /// Whether the same request may succeed later: a network comes back, a folder is completed or mounted.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NotAFolder { .. }
            | Self::NoConfig { .. }
            | Self::NoWeights { .. }
            | Self::BrokenLink { .. }
            | Self::Missing { .. }
            | Self::Weights { .. }
            | Self::NoTokenizer { .. }
            | Self::HubSilent { .. }
            | Self::HubBroken { .. }
            | Self::Io { .. } => true,
            Self::Hub { code, .. } => !matches!(code.as_str(), "bad_id" | "no_weights"),
            Self::BadId { .. }
            | Self::NoEnvironment { .. }
            | Self::RelativePath { .. }
            | Self::TooManyFiles { .. }
            | Self::BadConfig { .. }
            | Self::CustomCode { .. }
            | Self::TensorTwice { .. }
            | Self::CardTooLarge { .. } => false,
        }
    }

    /// For `map_err`: what was done, and where.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// What to do with the weights that are there instead.
fn instead(found: Option<&str>) -> String {
    let Some(found) = found else { return ", nor other weights".to_owned() };
    let extension = Path::new(found).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let advice = match extension {
        "gguf" => {
            "GGUF is llama.cpp's format; take the same model from mlx-community, or convert the original with `mlx_lm.convert`"
        }
        "npz" => "this is MLX's old format; convert the original model with `mlx_lm.convert`",
        "safetensors" => {
            "MLX reads files named model*.safetensors only; take a version of the model in Hugging Face's layout"
        }
        _ => {
            "pickled weights can run code and are not read; convert the original model with `mlx_lm.convert`"
        }
    };
    format!(", only {found}: {advice}")
}

fn only(found: &[&str]) -> String {
    if found.is_empty() { String::new() } else { format!(", only {}", found.join(" and ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_are_named_with_what_to_do() {
        for (found, advice) in [
            ("pytorch_model.bin", "mlx_lm.convert"),
            ("q4.gguf", "llama.cpp"),
            ("weights.npz", "old format"),
            ("consolidated.safetensors", "model*.safetensors only"),
        ] {
            let words =
                StoreError::NoWeights { path: "/m".into(), found: Some(found.to_owned()) }.to_string();
            assert!(words.contains(found) && words.contains(advice), "{words}");
        }
        let none = StoreError::NoWeights { path: "/m".into(), found: None }.to_string();
        assert_eq!(none, "/m has no model*.safetensors, nor other weights");
    }

    #[test]
    fn a_network_may_come_back_and_code_of_its_own_does_not_go_away() {
        let hub =
            |code: &str| StoreError::Hub { id: "a/b".to_owned(), code: code.to_owned(), text: String::new() };
        assert!(hub("unreachable").may_pass() && !hub("bad_id").may_pass());
        assert!(StoreError::NotAFolder { path: "/m".into() }.may_pass());
        assert!(!StoreError::CustomCode { path: "/m".into(), key: "auto_map" }.may_pass());
    }
}
