//! Where the sockets of runtimes are.
//!
//! Owns one private folder per agent process, below the system's folder for temporary files because a socket's path must be
//! short (macOS: 104 bytes), which a home folder rarely is; and its removal, by the next agent if this one is killed. Refuses
//! folders that are too deep, and says what helps.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::UnixListener;

use crate::limits;

pub(crate) struct RunFolder(TempDir);

/// A listener whose path goes away with it.
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
}

const PREFIX: &str = "mlxs-";
/// In the data folder: where the present or the last agent has its sockets.
const NOTE: &str = "run-folder";

impl RunFolder {
    /// The caller holds the data folder's lock, so the former agent is gone and what it left is nobody's.
    pub(crate) fn make(data_folder: &Path) -> anyhow::Result<Self> {
        let note = data_folder.join(NOTE);
        if let Some(left) = fs::read_to_string(&note).ok().map(PathBuf::from).filter(|left| is_ours(left)) {
            let _ = fs::remove_dir_all(left);
        }
        let private = fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir();
        let folder = folder.context("making a folder for the sockets of runtimes")?;
        fs::write(&note, folder.path().as_os_str().as_bytes())
            .with_context(|| format!("writing {}", note.display()))?;
        Ok(Self(folder))
    }

    /// One socket for one runtime.
    pub(crate) fn listen(&self, number: u64) -> anyhow::Result<Socket> {
        let path = self.0.path().join(number.to_string());
        anyhow::ensure!(
            path.as_os_str().len() <= limits::SOCKET_PATH_BYTES_MAX,
            "{} is too long for a socket: set TMPDIR to a shorter folder",
            path.display()
        );
        let listener =
            UnixListener::bind(&path).with_context(|| format!("listening at {}", path.display()))?;
        Ok(Socket { listener, path })
    }
}

/// Whatever the note says, nothing else is ever removed.
fn is_ours(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes()));
    named && path.parent() == Some(&std::env::temp_dir())
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_are_private_and_leave_nothing_behind() {
        let data = tempfile::tempdir().expect("scratch");
        let folder = RunFolder::make(data.path()).expect("a folder");
        let path = folder.0.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        let socket = folder.listen(1).expect("a socket");
        assert!(socket.path.exists());
        drop(socket);
        assert_eq!(fs::read_dir(&path).expect("readable").count(), 0);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_agent_left_is_removed_by_the_next() {
        let data = tempfile::tempdir().expect("scratch");
        let mut killed = RunFolder::make(data.path()).expect("a folder");
        killed.0.disable_cleanup(true);
        let left = killed.0.path().to_owned();
        drop(killed);
        assert!(left.exists());
        let _next = RunFolder::make(data.path()).expect("a folder");
        assert!(!left.exists());
    }

    #[test]
    fn a_note_that_names_anything_else_removes_nothing() {
        let (data, precious) = (tempfile::tempdir().expect("scratch"), tempfile::tempdir().expect("scratch"));
        let inside = precious.path().join("mlxs-1");
        fs::create_dir(&inside).expect("made");
        for named in [precious.path(), &inside, &std::env::temp_dir(), Path::new("/"), Path::new("")] {
            fs::write(data.path().join(NOTE), named.as_os_str().as_bytes()).expect("written");
            drop(RunFolder::make(data.path()).expect("a folder"));
        }
        assert!(inside.exists());
    }
}
