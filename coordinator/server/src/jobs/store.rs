//! What this coordinator keeps of answers or of files: files by digest, in a folder of its own.
//!
//! Owns that a file is whole and on the disk before anybody is told that it is kept, that nobody but the operator may read it,
//! and the bound on all of them together: the oldest goes first, or nothing more comes in. Refuses to know whose answer a file is.

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
    full: Full,
    /// Numbers the unfinished ones.
    parts: Arc<AtomicU64>,
}

/// What happens where all files together have so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Full {
    /// The oldest goes.
    OldestGoes(u64),
    /// Nothing more is taken.
    Refuses(u64),
}

#[derive(Clone, Copy)]
struct Entry {
    bytes: u64,
    written: SystemTime,
}

impl Store {
    pub(crate) fn open(folder: PathBuf, full: Full) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("making {}", folder.display()))?;
        let files = list(&folder).with_context(|| format!("reading {}", folder.display()))?;
        Ok(Self { folder, files: Arc::new(Mutex::new(files)), full, parts: Arc::default() })
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
            let names: Vec<_> = store.lock().keys().filter(|name| !wanted(name)).cloned().collect();
            // What somebody has put there anew meanwhile is young.
            names.iter().for_each(|name| store.remove_if(name, old));
            Ok(())
        });
        let _ = removed.await;
    }

    /// Written beside and renamed, so that a crash leaves a whole answer or none.
    fn write(&self, name: &str, answer: &[u8]) -> io::Result<()> {
        if let Full::Refuses(bytes_max) = self.full
            && self.held().saturating_add(answer.len() as u64) > bytes_max
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let part = self.folder.join(format!("{name}.{number}.part"));
        let written = self.write_part(&part, answer).and_then(|()| self.rename(&part, name, answer.len()));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
        if let Full::OldestGoes(bytes_max) = self.full {
            self.make_room(bytes_max);
        }
        File::open(&self.folder)?.sync_all()
    }

    /// The list and the folder change together, so that nobody removes what has just come.
    fn rename(&self, part: &Path, name: &str, bytes: usize) -> io::Result<()> {
        let mut files = self.lock();
        std::fs::rename(part, self.folder.join(name))?;
        files.insert(name.to_owned(), Entry { bytes: bytes as u64, written: SystemTime::now() });
        Ok(())
    }

    fn write_part(&self, part: &Path, answer: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
        file.write_all(answer)?;
        file.sync_all()
    }

    fn held(&self) -> u64 {
        self.lock().values().map(|entry| entry.bytes).sum()
    }

    fn make_room(&self, bytes_max: u64) {
        loop {
            let oldest = {
                let files = self.lock();
                let held: u64 = files.values().map(|entry| entry.bytes).sum();
                let oldest = files.iter().min_by_key(|(_, entry)| entry.written);
                oldest.filter(|_| held > bytes_max && files.len() > 1).map(|(name, _)| name.clone())
            };
            let Some(oldest) = oldest else { return };
            tracing::warn!(
                "an answer is removed before its day is over: the kept answers take too much room"
            );
            self.remove_if(&oldest, |_| true);
        }
    }

    fn remove_if(&self, name: &str, may_go: impl Fn(&Entry) -> bool) {
        let mut files = self.lock();
        if !files.get(name).is_some_and(may_go) {
            return;
        }
        match std::fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "what is kept no more could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
        files.remove(name);
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

    const ROOM: Full = Full::OldestGoes(1 << 20);

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[tokio::test]
    async fn an_answer_outlives_the_process_and_only_the_operator_reads_it() {
        let folder = tempfile::tempdir().expect("scratch");
        let path = folder.path().join("answers");
        let store = Store::open(path.clone(), ROOM).expect("opens");
        store.put(digest(1), Bytes::from_static(b"an answer")).await.expect("kept");
        std::fs::write(path.join("torn.3.part"), b"an ans").expect("written");
        let again = Store::open(path.clone(), ROOM).expect("opens");
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
        let store = Store::open(folder.path().to_owned(), Full::OldestGoes(10)).expect("opens");
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
    async fn where_files_are_kept_what_does_not_fit_is_refused_and_nothing_goes() {
        let folder = tempfile::tempdir().expect("scratch");
        let store = Store::open(folder.path().to_owned(), Full::Refuses(10)).expect("opens");
        for byte in 1..=2 {
            store.put(digest(byte), Bytes::from_static(b"12345")).await.expect("kept");
        }
        let refused = store.put(digest(3), Bytes::from_static(b"1")).await.expect_err("full");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert!(store.get(digest(1)).await.is_some() && store.get(digest(2)).await.is_some());
    }

    #[tokio::test]
    async fn what_no_job_names_is_removed_unless_it_is_young() {
        let folder = tempfile::tempdir().expect("scratch");
        let store = Store::open(folder.path().to_owned(), ROOM).expect("opens");
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
