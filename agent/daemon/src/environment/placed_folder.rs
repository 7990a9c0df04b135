//! Folders of files from inside this binary, put on disk whole or not at all.
//!
//! Owns the temporary sibling, the flush and the rename. A folder found in place is compared with what it should hold, and
//! replaced when it differs: a power cut can leave files that are there and empty.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::file_lock::FileLock;
use super::limits::DIGEST_CHARS;
use super::progress::Progress;

/// Files by their path inside the folder; the paths come from this binary, never from outside.
pub(crate) type Files = Vec<(String, Cow<'static, [u8]>)>;

/// A name that says what the files hold.
pub(crate) fn digest(files: &Files) -> String {
    let parts = files.iter().map(|(path, contents)| (path.as_str(), contents.as_ref()));
    proto::card::digest(parts).chars().take(DIGEST_CHARS).collect()
}

/// Makes sure that `parent/<digest of the files>` holds exactly these contents, and gives its path.
pub(crate) async fn place(parent: &Path, files: Files, progress: &Progress) -> io::Result<PathBuf> {
    let target = parent.join(digest(&files));
    private_folder(parent)?;
    let lock = FileLock::acquire(&parent.join(".lock"), "the same files", progress).await?;
    let placing = move || {
        // The lock goes with the work: a caller who gives up leaves the thread running.
        let _lock = lock;
        if !is_intact(&target, &files) {
            replace(&target, &files)?;
        }
        Ok(target)
    };
    tokio::task::spawn_blocking(placing).await.map_err(io::Error::other)?
}

/// A folder that only its owner may enter, with its parents.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A file that only its owner may read, on disk when this returns.
pub(crate) fn private_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn is_intact(target: &Path, files: &Files) -> bool {
    files
        .iter()
        .all(|(path, contents)| fs::read(target.join(path)).is_ok_and(|found| found == contents.as_ref()))
}

fn replace(target: &Path, files: &Files) -> io::Result<()> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::other("a placed folder has a parent and a name"));
    };
    let making = parent.join(format!(".making-{}", name.to_string_lossy()));
    remove(&making)?;
    private_folder(&making)?;
    for (path, contents) in files {
        let file = making.join(path);
        if let Some(folder) = file.parent() {
            private_folder(folder)?;
        }
        private_file(&file, contents)?;
    }
    remove(target)?;
    fs::rename(&making, target)?;
    // Not every file system can flush a folder; what a power cut undoes is placed again at the next start.
    let _ = File::open(parent).and_then(|parent| parent.sync_all());
    Ok(())
}

/// Removes a folder if it is there.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn files() -> Files {
        vec![
            ("a.py".to_owned(), Cow::Borrowed(b"a".as_slice())),
            ("deep/b.py".to_owned(), Cow::Borrowed(b"bb".as_slice())),
        ]
    }

    fn silent() -> Progress {
        Progress::new(|_| ())
    }

    #[tokio::test]
    async fn files_are_placed_for_their_owner_alone() {
        let scratch = tempfile::tempdir().expect("scratch");
        let parent = scratch.path().join("runtime");
        let target = place(&parent, files(), &silent()).await.expect("placed");
        assert_eq!(target, parent.join(digest(&files())));
        assert_eq!(fs::read(target.join("deep/b.py")).expect("there"), b"bb");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&target), 0o700);
        assert_eq!(mode(&target.join("deep")), 0o700);
        assert_eq!(mode(&target.join("a.py")), 0o600);
    }

    #[tokio::test]
    async fn what_is_in_place_and_whole_stays_untouched() {
        let scratch = tempfile::tempdir().expect("scratch");
        let target = place(scratch.path(), files(), &silent()).await.expect("placed");
        fs::write(target.join("extra"), b"by python").expect("written");
        assert_eq!(place(scratch.path(), files(), &silent()).await.expect("placed"), target);
        assert!(target.join("extra").exists());
    }

    #[tokio::test]
    async fn a_damaged_folder_is_replaced() {
        let scratch = tempfile::tempdir().expect("scratch");
        let target = place(scratch.path(), files(), &silent()).await.expect("placed");
        fs::write(target.join("a.py"), b"").expect("emptied");
        place(scratch.path(), files(), &silent()).await.expect("placed");
        assert_eq!(fs::read(target.join("a.py")).expect("there"), b"a");
    }

    #[tokio::test]
    async fn what_a_crash_left_half_made_is_not_taken_over() {
        let scratch = tempfile::tempdir().expect("scratch");
        let making = scratch.path().join(format!(".making-{}", digest(&files())));
        fs::create_dir_all(&making).expect("made");
        fs::write(making.join("left.py"), b"half").expect("written");
        let target = place(scratch.path(), files(), &silent()).await.expect("placed");
        assert!(!making.exists() && !target.join("left.py").exists());
    }

    #[tokio::test]
    async fn two_at_once_both_find_the_whole_folder() {
        let scratch = tempfile::tempdir().expect("scratch");
        let progress = silent();
        let (first, second) = tokio::join!(
            place(scratch.path(), files(), &progress),
            place(scratch.path(), files(), &progress)
        );
        assert_eq!(first.expect("placed"), second.expect("placed"));
    }

    #[test]
    fn other_contents_have_another_name() {
        let mut other = files();
        other[0].1 = Cow::Borrowed(b"b");
        assert_ne!(digest(&files()), digest(&other));
    }
}
