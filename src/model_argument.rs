//! What `--model` means: a folder here, an id on a hub, or the demo model.
//!
//! Owns that distinction and its errors. Refuses what is neither, and says what would be.

use std::path::Path;

use anyhow::Context as _;
use daemon::{Offer, OfferSource};

use crate::exit::{Exit, failure};

/// Reads one `--model` value.
pub(crate) fn parse(argument: &str) -> anyhow::Result<Offer> {
    if argument == "demo" {
        return Ok(Offer::new(OfferSource::Demo)?);
    }
    let path = Path::new(argument);
    if path.is_dir() {
        let folder = path.canonicalize().with_context(|| format!("reading {argument}"))?;
        let folder = folder.to_str().context("the model folder's path is not UTF-8")?;
        return Ok(Offer::new(OfferSource::Path(folder.to_owned()))?);
    }
    if is_hub_id(argument) {
        return Ok(Offer::new(OfferSource::Hub(argument.to_owned()))?);
    }
    let what = if path.exists() { "is a file, not a model folder" } else { "does not exist" };
    Err(failure(
        Exit::NotFound,
        format!(
            "--model {argument} {what}. Give a folder with config.json, tokenizer.json and *.safetensors, \
             a hub id such as mlx-community/Qwen3-4B-4bit, or leave --model out for the built-in demo model"
        ),
    ))
}

/// `owner/name` and nothing that looks like a path.
fn is_hub_id(argument: &str) -> bool {
    let fine = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char))
    };
    match argument.split_once('/') {
        Some((owner, name)) => fine(owner) && fine(name) && !owner.starts_with('~'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_id_is_an_owner_and_a_name() {
        assert!(is_hub_id("mlx-community/Qwen3-4B-4bit"));
        for path in ["./models/x", "../x/y", "~/x", "/models/x", "a/b/c", "model", "a/..", "a//b", "a b/c"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }

    #[test]
    fn a_missing_folder_is_refused_with_the_alternatives() {
        let words = parse("./no/such/folder").expect_err("refused").to_string();
        for part in ["does not exist", "hub id", "demo model", "safetensors"] {
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn a_file_is_not_a_model_folder() {
        let file = tempfile::NamedTempFile::new().expect("scratch");
        let words = parse(file.path().to_str().expect("utf-8")).expect_err("refused").to_string();
        assert!(words.contains("is a file"), "{words}");
    }
}
