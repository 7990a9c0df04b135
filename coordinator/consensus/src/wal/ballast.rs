//! A file that is there to be thrown away: when the disk is full, its bytes are what the log goes on with.
//!
//! Between the moment at which somebody fills the disk and the moment at which this is noticed, the log has to take what is
//! under way, and afterwards Raft's own entries. A write that finds the disk full removes the ballast and is done again: it had
//! not been flushed, so nobody was told of it. A flush that fails is never done again. Real bytes rather than an allocation,
//! because a file system that copies on write has no other promise to keep.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::wal::disk::{Disk, DiskFile};
use crate::wal::replace::UNFINISHED;

pub(crate) const NAME: &str = "ballast";

/// Written at once.
static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// A disk with a ballast.
#[derive(Clone)]
pub(crate) struct Ballasted {
    inner: Arc<dyn Disk>,
    bytes: u64,
    /// Held while it is laid or removed.
    laid: Arc<Mutex<bool>>,
}

impl Ballasted {
    /// One that an earlier process laid is there still.
    pub(crate) fn new(inner: Arc<dyn Disk>, bytes: u64) -> Ballasted {
        let laid = inner.names().is_ok_and(|names| names.iter().any(|name| name == NAME));
        Ballasted { inner, bytes, laid: Arc::new(Mutex::new(laid)) }
    }

    pub(crate) fn is_laid(&self) -> bool {
        *self.laid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the ballast, unless it is there. One that does not fit leaves nothing behind.
    pub(crate) fn lay(&self) -> io::Result<()> {
        let mut laid = self.laid.lock().unwrap_or_else(PoisonError::into_inner);
        if *laid {
            return Ok(());
        }
        match self.write() {
            Ok(()) => *laid = true,
            Err(error) => {
                self.inner.remove(&unfinished()).ok();
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        let mut file = self.inner.create(&unfinished())?;
        let mut at = 0;
        while at < self.bytes {
            let left = usize::try_from(self.bytes - at).unwrap_or(PIECE.len());
            let piece = PIECE.get(..left).unwrap_or(&PIECE);
            file.write_at(at, piece)?;
            at = at.saturating_add(piece.len() as u64);
        }
        file.sync()?;
        self.inner.rename(&unfinished(), NAME)?;
        self.inner.sync_names()
    }

    /// Does `write` again without the ballast where there is no room with it.
    fn with_room<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) && self.drop_ballast() => write(),
            ended => ended,
        }
    }

    /// Whether it is gone now and was there before.
    fn drop_ballast(&self) -> bool {
        let mut laid = self.laid.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = *laid && self.inner.remove(NAME).and_then(|()| self.inner.sync_names()).is_ok();
        if gone {
            *laid = false;
            tracing::error!("the disk is full; the registry goes on with its reserve and takes nothing new");
        }
        gone
    }
}

fn unfinished() -> String {
    format!("{NAME}{UNFINISHED}")
}

/// Whether a write failed for want of room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Disk for Ballasted {
    fn names(&self) -> io::Result<Vec<String>> {
        self.inner.names()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.with_room(|| self.inner.create(name))?;
        Ok(Box::new(BallastedFile { file, disk: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(BallastedFile { file: self.inner.open(name)?, disk: self.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with_room(|| self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

struct BallastedFile {
    file: Box<dyn DiskFile>,
    disk: Ballasted,
}

impl DiskFile for BallastedFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let BallastedFile { file, disk } = self;
        disk.with_room(|| file.write_at(offset, bytes))
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.cut(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sim_disk::{Fault, SimDisk};

    const BYTES: u64 = 200 << 10;

    fn ballasted(room: u64) -> (SimDisk, Ballasted) {
        let disk = SimDisk::default();
        disk.hold_at_most(room);
        (disk.clone(), Ballasted::new(Arc::new(disk), BYTES))
    }

    #[test]
    fn a_write_that_finds_no_room_takes_that_of_the_ballast_once() {
        let (disk, ballasted) = ballasted(BYTES + 100);
        ballasted.lay().unwrap();
        assert_eq!(disk.bytes(NAME).len() as u64, BYTES);
        let mut file = ballasted.create("log").unwrap();
        file.write_at(0, &[1; 90]).unwrap();
        assert!(ballasted.is_laid());
        file.write_at(90, &[2; 90]).unwrap();
        assert!(!ballasted.is_laid());
        assert_eq!(disk.bytes("log"), [[1; 90], [2; 90]].concat());
        let error = file.write_at(0, &vec![3; BYTES as usize + 200]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_ballast_that_does_not_fit_leaves_nothing_and_is_laid_when_there_is_room() {
        let (disk, ballasted) = ballasted(BYTES - 1);
        assert!(ballasted.lay().is_err());
        assert_eq!(disk.names().unwrap(), [""; 0]);
        disk.hold_at_most(BYTES);
        ballasted.lay().unwrap();
        ballasted.lay().unwrap();
        assert_eq!(disk.names().unwrap(), [NAME]);
    }

    #[test]
    fn a_flush_that_fails_is_not_done_again() {
        let (disk, ballasted) = ballasted(BYTES + 100);
        ballasted.lay().unwrap();
        let mut file = ballasted.create("log").unwrap();
        file.write_at(0, b"x").unwrap();
        disk.fail(Fault::FlushFails(disk.operations() + 1));
        assert!(file.sync().is_err());
        assert!(ballasted.is_laid());
    }
}
