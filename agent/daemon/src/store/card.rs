//! The files a coordinator needs to speak for a model: tokenizer, chat template, and their settings.
//!
//! Owns which files these are, their bound and the digest that names them. Refuses a model without `tokenizer.json`: without
//! it no coordinator can count or cut its tokens.

use std::path::Path;

use bytes::Bytes;

use super::error::StoreError;
use super::model_folder::read_bounded;

const TOKENIZER: &str = "tokenizer.json";

/// In the order of their names.
const FILES: [&str; 7] = [
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    TOKENIZER,
    "tokenizer_config.json",
];

/// Tokenizers in other forms, which explain a folder without `tokenizer.json`.
const OTHER_FORMS: [&str; 4] = ["tokenizer.model", "vocab.json", "merges.txt", "tiktoken.model"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CardFiles {
    /// [`proto::card::digest`] of the files.
    pub(crate) digest: String,
    pub(crate) files: Vec<(String, Bytes)>,
}

impl CardFiles {
    pub(super) fn read(folder: &Path) -> Result<Self, StoreError> {
        Self::read_within(folder, u64::try_from(proto::CARD_BYTES_MAX).unwrap_or(u64::MAX))
    }

    fn read_within(folder: &Path, bytes_max: u64) -> Result<Self, StoreError> {
        let mut files: Vec<(String, Bytes)> = Vec::new();
        let mut bytes = 0_u64;
        for name in FILES {
            let contents = match read_bounded(&folder.join(name), bytes_max.saturating_sub(bytes)) {
                Ok(contents) => contents,
                Err(StoreError::BadConfig { path }) => {
                    let size = std::fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or_default();
                    return Err(StoreError::CardTooLarge {
                        path: folder.to_owned(),
                        bytes: bytes.saturating_add(size),
                    });
                }
                Err(error) => return Err(error),
            };
            if let Some(contents) = contents {
                bytes = bytes.saturating_add(u64::try_from(contents.len()).unwrap_or(u64::MAX));
                files.push((name.to_owned(), Bytes::from(contents)));
            }
        }
        if !files.iter().any(|(name, _)| name == TOKENIZER) {
            let found = OTHER_FORMS.into_iter().filter(|name| folder.join(name).exists()).collect();
            return Err(StoreError::NoTokenizer { path: folder.to_owned(), found });
        }
        let digest =
            proto::card::digest(files.iter().map(|(name, contents)| (name.as_str(), contents.as_ref())));
        Ok(Self { digest, files })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("scratch");
        for (name, contents) in files {
            fs::write(folder.path().join(name), contents).expect("written");
        }
        folder
    }

    fn names(card: &CardFiles) -> Vec<&str> {
        card.files.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn only_files_of_the_card_are_read() {
        let folder = folder(&[
            ("tokenizer.json", "{}"),
            ("config.json", "{}"),
            ("secret.json", "{}"),
            ("model.safetensors", ""),
        ]);
        let card = CardFiles::read(folder.path()).expect("a card");
        assert_eq!(names(&card), ["config.json", "tokenizer.json"]);
        assert_eq!(
            card.digest,
            proto::card::digest([("config.json", b"{}".as_slice()), ("tokenizer.json", b"{}")])
        );
    }

    #[test]
    fn another_chat_template_is_another_card() {
        let one = folder(&[("tokenizer.json", "{}"), ("chat_template.jinja", "a")]);
        let other = folder(&[("tokenizer.json", "{}"), ("chat_template.jinja", "b")]);
        let digest = |folder: &tempfile::TempDir| CardFiles::read(folder.path()).expect("a card").digest;
        assert_ne!(digest(&one), digest(&other));
        assert_eq!(digest(&one), digest(&one));
    }

    #[test]
    fn a_missing_tokenizer_names_what_is_there_and_what_to_do() {
        let folder = folder(&[("config.json", "{}"), ("tokenizer.model", ""), ("merges.txt", "")]);
        let words = CardFiles::read(folder.path()).expect_err("refused").to_string();
        assert!(
            words.contains("only tokenizer.model and merges.txt") && words.contains("save_pretrained"),
            "{words}"
        );
    }

    #[test]
    fn a_card_is_bounded_as_a_whole() {
        let folder = folder(&[("config.json", "{}"), ("tokenizer.json", "{    }")]);
        assert!(CardFiles::read_within(folder.path(), 8).is_ok());
        let error = CardFiles::read_within(folder.path(), 7).expect_err("refused");
        assert!(matches!(error, StoreError::CardTooLarge { bytes: 8, .. }), "{error}");
    }

    #[test]
    fn links_are_followed_as_in_a_hubs_cache() {
        let blobs = folder(&[("0a1b", "{}")]);
        let snapshot = folder(&[]);
        std::os::unix::fs::symlink(blobs.path().join("0a1b"), snapshot.path().join("tokenizer.json"))
            .expect("linked");
        assert_eq!(names(&CardFiles::read(snapshot.path()).expect("a card")), ["tokenizer.json"]);
        fs::remove_file(blobs.path().join("0a1b")).expect("removed");
        let error = CardFiles::read(snapshot.path()).expect_err("refused");
        assert!(matches!(error, StoreError::BrokenLink { .. }), "{error}");
    }
}
