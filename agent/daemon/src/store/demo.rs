//! The demo model inside this binary.
//!
//! Owns its embedding and where it is put: a Mac without internet answers its first question with it.

use std::path::{Path, PathBuf};

use rust_embed::RustEmbed;

use super::error::StoreError;
use crate::config::DEMO_MODEL;
use crate::environment::Progress;
use crate::environment::placed_folder::{self, Files};

#[derive(RustEmbed)]
#[folder = "../../python/demo_model/weights"]
struct Embedded;

/// The folder of the demo model, put there if it is not.
pub(super) async fn place(models: &Path, progress: &Progress) -> Result<PathBuf, StoreError> {
    let parent = models.join(DEMO_MODEL);
    progress.tell("unpacking the demo model");
    placed_folder::place(&parent, files(), progress)
        .await
        .map_err(StoreError::io("unpacking the demo model into", &parent))
}

fn files() -> Files {
    Embedded::iter().filter_map(|path| Some((path.to_string(), Embedded::get(&path)?.data))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is added is embedded when this crate is compiled again, which cargo does not see by itself.
    #[test]
    fn the_embedded_model_is_the_one_in_the_tree() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/demo_model/weights");
        let mut in_tree: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (
                    entry.file_name().into_string().expect("utf-8"),
                    std::fs::read(entry.path()).expect("readable"),
                )
            })
            .collect();
        in_tree.sort();
        let mut embedded: Vec<_> =
            files().into_iter().map(|(path, contents)| (path, contents.into_owned())).collect();
        embedded.sort();
        assert!(embedded == in_tree, "touch {} and build again", file!());
    }
}
