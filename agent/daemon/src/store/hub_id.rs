//! A model's id on a hub.
//!
//! Owns the rule for ids, because they become folder names: a model named `..` once cost a program of this kind its data
//! folder. Refuses everything that is not plainly `owner/name`.

use std::fmt;

use super::error::StoreError;
use super::limits::ID_PART_CHARS_MAX;

/// `owner/name`; safe as a relative path of two folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubId(String);

/// Unfinished downloads carry this ending, so no model may.
const UNFINISHED: &str = ".partial";

impl HubId {
    pub(super) fn new(id: &str) -> Result<Self, StoreError> {
        let fine = id.split('/').count() == 2 && id.split('/').all(is_plain) && !id.ends_with(UNFINISHED);
        if fine { Ok(Self(id.to_owned())) } else { Err(StoreError::BadId { id: id.to_owned() }) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a hub allows in a name, which also cannot climb, hide, or be an option of a program.
fn is_plain(part: &str) -> bool {
    part.len() <= ID_PART_CHARS_MAX
        && part.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !part.contains("..")
        && part.chars().all(|char| char.is_ascii_alphanumeric() || "._-".contains(char))
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_an_owner_and_a_name() {
        for id in ["mlx-community/Qwen3-4B-4bit", "a/b", "0x/phi_3.5-mini"] {
            assert_eq!(HubId::new(id).expect("an id").to_string(), id);
        }
    }

    #[test]
    fn an_id_that_could_leave_its_folder_or_be_an_option_is_refused() {
        let long = format!("a/{}", "x".repeat(ID_PART_CHARS_MAX + 1));
        let ids = [
            "",
            "..",
            "a/..",
            "../a",
            "/a",
            "a/",
            "a//b",
            "a/b/c",
            "bare",
            ".hidden/b",
            "a/.b",
            "-o/b",
            "a/-b",
            "a /b",
            "a/b\0",
            "a\\b",
            "ä/b",
            "a/b..c",
            "a/b.partial",
            "~/a",
            "C:/a",
            &long,
        ];
        for id in ids {
            let words = HubId::new(id).expect_err(id).to_string();
            assert!(words.contains("mlx-community/"), "{words}");
        }
    }

    proptest! {
        #[test]
        fn every_accepted_id_is_two_plain_folders(id in "[a-zA-Z0-9._/ -]{0,24}") {
            if let Ok(id) = HubId::new(&id) {
                let parts: Vec<_> = Path::new(id.as_str()).components().collect();
                prop_assert_eq!(parts.len(), 2);
                prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(!id.as_str().starts_with('-'));
            }
        }
    }
}
