//! One owner at a time, across processes.
//!
//! Owns an advisory lock on a file, taken with `flock`: the system gives it back when its last holder ends, however it ends.
//! Refuses to block a thread: waiting is polling, so that a caller who gives up is gone at once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::limits::LOCK_RETRY;
use super::progress::Progress;

/// Held until dropped, and by every child that got it as its standard input.
#[derive(Debug)]
pub(crate) struct FileLock(File);

impl FileLock {
    /// Waits for the lock; a wait is told once.
    pub(crate) async fn acquire(path: &Path, what: &str, progress: &Progress) -> io::Result<Self> {
        // Never removed: a lock file that can vanish can be held twice.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
            if !told {
                progress.tell(format!("waiting for another process that prepares {what}"));
                told = true;
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
    }

    /// The lock as a child's (empty) standard input: if this process is killed, the lock outlives it until the child, which
    /// still writes below the locked folder, has ended too.
    pub(crate) fn as_stdin(&self) -> io::Result<Stdio> {
        self.0.try_clone().map(Stdio::from)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::progress::recorded;
    use super::*;

    #[tokio::test]
    async fn a_second_owner_waits_for_the_first_and_says_so() {
        let folder = tempfile::tempdir().expect("scratch");
        let path = folder.path().join(".lock");
        let (progress, steps) = recorded();
        let first = FileLock::acquire(&path, "x", &progress).await.expect("free");
        let (waiting_path, waiting) = (path.clone(), progress.clone());
        let second = tokio::spawn(async move { FileLock::acquire(&waiting_path, "x", &waiting).await });
        while steps.lock().expect("not poisoned").is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        second.await.expect("no panic").expect("free");
        let words = steps.lock().expect("not poisoned")[0].words.clone();
        assert_eq!(words, "waiting for another process that prepares x");
    }

    #[tokio::test]
    async fn a_child_that_has_the_lock_as_standard_input_keeps_it() {
        let folder = tempfile::tempdir().expect("scratch");
        let path = folder.path().join(".lock");
        let lock = FileLock::acquire(&path, "x", &Progress::new(|_| ())).await.expect("free");
        let mut child = Command::new("sleep")
            .arg("600")
            .stdin(lock.as_stdin().expect("duplicated"))
            .spawn()
            .expect("a child");
        drop(lock);
        let other = File::open(&path).expect("there");
        assert_eq!(flock(&other, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert_eq!(flock(&other, FlockOperation::NonBlockingLockExclusive), Ok(()));
    }
}
