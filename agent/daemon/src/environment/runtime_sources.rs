//! The runtime's Python sources inside this binary.
//!
//! Owns their embedding and where they are put. Only `.py` files count: what Python leaves beside them is neither shipped nor
//! part of the version.

use std::io;
use std::path::{Path, PathBuf};

use rust_embed::RustEmbed;

use super::placed_folder::{self, Files};
use super::progress::Progress;

const PACKAGE: &str = "mlx_runtime";

#[derive(RustEmbed)]
#[folder = "../../python/mlx_runtime"]
struct Embedded;

/// Puts the sources below the data folder; gives the folder for PYTHONPATH.
pub(super) async fn place(data_folder: &Path, progress: &Progress) -> io::Result<PathBuf> {
    placed_folder::place(&data_folder.join("runtime"), files(), progress).await
}

fn files() -> Files {
    let sources = Embedded::iter().filter(|path| path.ends_with(".py"));
    sources.filter_map(|path| Some((format!("{PACKAGE}/{path}"), Embedded::get(&path)?.data))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is added to the package is embedded when this crate is compiled again, which cargo does not see by itself.
    #[test]
    fn the_embedded_sources_are_those_in_the_tree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let mut in_tree = Vec::new();
        collect(&root.join(PACKAGE), &root, &mut in_tree);
        in_tree.sort();
        let mut embedded: Vec<_> =
            files().into_iter().map(|(path, contents)| (path, contents.into_owned())).collect();
        embedded.sort();
        let names =
            |files: &[(String, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(names(&embedded), names(&in_tree), "touch {} and build again", file!());
        assert!(embedded == in_tree, "touch {} and build again", file!());
    }

    fn collect(folder: &Path, root: &Path, files: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, root, files);
            } else if path.extension().is_some_and(|extension| extension == "py") {
                let name = path.strip_prefix(root).expect("below").to_str().expect("utf-8").to_owned();
                files.push((name, std::fs::read(&path).expect("readable")));
            }
        }
    }

    #[tokio::test]
    async fn the_package_can_be_found_where_the_sources_are_put() {
        let data = tempfile::tempdir().expect("scratch");
        let python_path = place(data.path(), &Progress::new(|_| ())).await.expect("placed");
        assert!(python_path.starts_with(data.path().join("runtime")));
        assert!(python_path.join("mlx_runtime/__init__.py").is_file());
        assert!(python_path.join("mlx_runtime/__main__.py").is_file());
    }
}
