//! The answers that this coordinator keeps: files by digest, in a folder of its own.
//!
//! Owns that a file is whole and on the disk before anybody is told that it is kept, that nobody but the operator may read it,
//! and the bound on all of them together, for which the oldest goes first. Refuses to know whose answer a file is.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use registry::Digest;

use crate::limits;

#[derive(Clone)]
pub(crate) struct Store {
    folder: PathBuf,
    files: Arc<Mutex<BTreeMap<String, Entry>>>,
    bytes_max: u64,
    /// Numbers the unfinished ones.
    parts: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
struct Entry {
    bytes: u64,
    written: SystemTime,
}

impl Store {
    pub(crate) fn open(folder: PathBuf) -> anyhow::Result<Self> {
        Self::with_room(folder, limits::ANSWERS_BYTES_MAX)
    }

    fn with_room(folder: PathBuf, bytes_max: u64) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("making {}", folder.display()))?;
        let files = list(&folder).with_context(|| format!("reading {}", folder.display()))?;
        Ok(Self { folder, files: Arc::new(Mutex::new(files)), bytes_max, parts: Arc::default() })
    }

    /// Returns when it is on the disk.
    pub(crate) async fn put(&self, digest: Digest, answer: Bytes) -> io::Result<()> {
        let store = self.clone();
        blocking(move || store.write(&digest.to_string(), &answer)).await
    }

    /// `None`: it is not here, or cannot be read.
    pub(crate) async fn get(&self, digest: Digest) -> Option<Bytes> {
        let path = self.folder.join(digest.to_string());
        blocking(move || std::fs::read(path)).await.ok().map(Bytes::from)
    }

    /// Removes what is not wanted, unless it is so young that its job may not have ended yet.
    pub(crate) async fn retain(&self, wanted: impl Fn(&str) -> bool + Send + 'static) {
        let store = self.clone();
        let removed = blocking(move || {
            let old = |entry: &Entry| entry.written.elapsed().is_ok_and(|age| age >= limits::ANSWER_UNNAMED);
            let files = store.lock().clone();
            let unwanted = files.into_iter().filter(|(name, entry)| old(entry) && !wanted(name));
            unwanted.for_each(|(name, _)| store.remove(&name));
            Ok(())
        });
        let _ = removed.await;
    }

    /// Written beside and renamed, so that a crash leaves a whole answer or none.
    fn write(&self, name: &str, answer: &[u8]) -> io::Result<()> {
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let part = self.folder.join(format!("{name}.{number}.part"));
        let written = self.write_part(&part, answer).and_then(|()| {
            std::fs::rename(&part, self.folder.join(name))?;
            File::open(&self.folder)?.sync_all()
        });
        if let Err(error) = written {
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
        let entry = Entry { bytes: answer.len() as u64, written: SystemTime::now() };
        self.lock().insert(name.to_owned(), entry);
        self.make_room();
        Ok(())
    }

    fn write_part(&self, part: &Path, answer: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
        file.write_all(answer)?;
        file.sync_all()
    }

    fn make_room(&self) {
        loop {
            let oldest = {
                let files = self.lock();
                let held: u64 = files.values().map(|entry| entry.bytes).sum();
                let oldest = files.iter().min_by_key(|(_, entry)| entry.written);
                oldest.filter(|_| held > self.bytes_max && files.len() > 1).map(|(name, _)| name.clone())
            };
            let Some(oldest) = oldest else { return };
            tracing::warn!(
                "an answer is removed before its day is over: the kept answers take too much room"
            );
            self.remove(&oldest);
        }
    }

    fn remove(&self, name: &str) {
        match std::fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a kept answer could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is there. What a crash left unfinished goes.
fn list(folder: &Path) -> io::Result<BTreeMap<String, Entry>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.len() != DIGEST_DIGITS || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let _ = std::fs::remove_file(entry.path());
            continue;
        }
        let about = entry.metadata()?;
        let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        files.insert(name, Entry { bytes: about.len(), written });
    }
    Ok(files)
}

/// Of a file's name.
const DIGEST_DIGITS: usize = 64;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[tokio::test]
    async fn an_answer_outlives_the_process_and_only_the_operator_reads_it() {
        let folder = tempfile::tempdir().expect("scratch");
        let path = folder.path().join("answers");
        let store = Store::open(path.clone()).expect("opens");
        store.put(digest(1), Bytes::from_static(b"an answer")).await.expect("kept");
        std::fs::write(path.join("torn.3.part"), b"an ans").expect("written");
        let again = Store::open(path.clone()).expect("opens");
        assert_eq!(again.get(digest(1)).await.as_deref(), Some(b"an answer".as_slice()));
        assert_eq!(again.get(digest(2)).await, None);
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let files: Vec<_> =
            std::fs::read_dir(&path).expect("readable").map(|entry| entry.expect("one").path()).collect();
        assert_eq!(files.len(), 1, "what was torn is gone");
        assert_eq!(mode(&files[0]), 0o600);
    }

    #[tokio::test]
    async fn where_all_together_are_too_large_the_oldest_goes_first() {
        let folder = tempfile::tempdir().expect("scratch");
        let store = Store::with_room(folder.path().to_owned(), 10).expect("opens");
        for byte in 1..=3 {
            store.put(digest(byte), Bytes::from_static(b"12345")).await.expect("kept");
        }
        assert!(store.get(digest(1)).await.is_none());
        assert!(store.get(digest(2)).await.is_some() && store.get(digest(3)).await.is_some());
        // One that is larger than all of the room is kept alone.
        store.put(digest(4), Bytes::from_static(b"12345678901")).await.expect("kept");
        assert!(store.get(digest(3)).await.is_none() && store.get(digest(4)).await.is_some());
    }

    #[tokio::test]
    async fn what_no_job_names_is_removed_unless_it_is_young() {
        let folder = tempfile::tempdir().expect("scratch");
        let store = Store::open(folder.path().to_owned()).expect("opens");
        for byte in 1..=3 {
            store.put(digest(byte), Bytes::from_static(b"a")).await.expect("kept");
        }
        let (old, named) = (digest(1).to_string(), digest(2).to_string());
        for name in [&old, &named] {
            let entry = Entry { bytes: 1, written: SystemTime::now() - limits::ANSWER_UNNAMED };
            store.lock().insert(name.clone(), entry);
        }
        store.retain(move |name| name == named).await;
        let kept = [store.get(digest(1)).await, store.get(digest(2)).await, store.get(digest(3)).await];
        assert_eq!(kept.map(|answer| answer.is_some()), [false, true, true]);
    }
}
