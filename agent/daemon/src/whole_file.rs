//! A small file that is whole or not there.
//!
//! Owns writing one so that neither a crash nor a full disk leaves half of it: written beside, flushed, and renamed. It is private
//! from its first byte. Refuses to make the folder, whose mode is its owner's matter.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Puts a text in the place of what was there.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    let private = Permissions::from_mode(0o600);
    let file = tempfile::Builder::new().prefix(".part-").permissions(private).tempfile_in(folder);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    });
    written.with_context(|| format!("writing {}", path.display()))
}

/// `None`: there is none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_replaces_the_former_one_and_leaves_no_parts() {
        let folder = tempfile::tempdir().expect("scratch");
        let path = folder.path().join("facts");
        assert_eq!(read(&path).expect("readable"), None);
        for text in ["one", "two"] {
            write(folder.path(), "facts", text).expect("written");
            assert_eq!(read(&path).expect("readable").as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_written_or_read_names_its_path() {
        let folder = tempfile::tempdir().expect("scratch");
        let words = write(&folder.path().join("none"), "facts", "one").expect_err("no folder").to_string();
        assert!(words.contains("none/facts"), "{words}");
        let words = read(folder.path()).expect_err("a folder").to_string();
        assert!(words.contains(&folder.path().display().to_string()), "{words}");
    }
}
