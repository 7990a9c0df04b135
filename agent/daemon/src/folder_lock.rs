//! One agent per data folder.
//!
//! Owns the lock that says so. The system releases it with the process, however that ends. Refuses to wait: two agents with one
//! identity would push each other out of the cluster for ever.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// Held until dropped.
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    pub(crate) fn take(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("agent.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!("another agent runs with {}: stop it, or use another --home", folder.display())
        })?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_on_the_same_folder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().expect("scratch");
        let first = FolderLock::take(folder.path()).expect("free");
        let words = FolderLock::take(folder.path()).err().expect("refused").to_string();
        assert!(words.contains("another agent"), "{words}");
        drop(first);
        assert!(FolderLock::take(folder.path()).is_ok());
    }
}
