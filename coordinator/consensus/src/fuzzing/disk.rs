//! A folder in memory. Everything on it is durable at once: losing power is for `tests/sim_disk.rs`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::wal::disk::{Disk, DiskFile};

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<Files>>);

impl MemoryDisk {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files().insert(name.to_owned(), bytes);
    }

    fn file(&self, name: &str) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { disk: self.clone(), name: name.to_owned() })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    name: String,
}

impl DiskFile for MemoryFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut files = self.disk.files();
        let file = files.entry(self.name.clone()).or_default();
        let end = start.saturating_add(bytes.len());
        if file.len() < end {
            file.resize(end, 0);
        }
        file.splice(start..end, bytes.iter().copied());
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.disk.files().entry(self.name.clone()).or_default().truncate(length);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().get(name).cloned())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.put(name, Vec::new());
        Ok(self.file(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let there = self.files().contains_key(name);
        if there { Ok(self.file(name)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let bytes = self.files().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.put(to, bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
