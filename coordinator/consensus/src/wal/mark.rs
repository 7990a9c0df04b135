//! The mark: how far the log is known to be flushed, and what is known to be committed.
//!
//! A log alone cannot tell a torn last write from a damaged last record: both are bytes that do not add up at the
//! end of a file. The first was never acknowledged and must be cut, the second was and must not be. The mark is
//! the missing knowledge. After each successful flush of the log, and before anybody is told, the flushed length
//! is written here; recovery then refuses damage below it and cuts above it.
//!
//! The mark is written but not flushed with each batch: a flush of its own would halve the rate of commits. It is
//! flushed when the writer has been idle for [`crate::limits::MARK_FLUSH_IDLE`], at each new segment and at
//! shutdown. So it is exact after a process dies, and after the machine dies it is at most a burst of commits
//! old. An old mark only ever makes recovery more lenient about the end of the log, and there the `synced` field
//! of each record still convicts damage that a later batch was written behind.
//!
//! Two slots are written in turn, each within one sector, so that an interrupted write leaves the other. The
//! committed index rides along: it is a hint that saves re-applying later, and is never flushed for its own sake.

use std::io;

use serde::{Deserialize, Serialize};

use crate::error::{Damage, OpenError};
use crate::wal::disk::{Disk, DiskFile};
use crate::wal::replace::replace;
use crate::wal::sealed::{self, Kind};

pub(crate) const NAME: &str = "mark";
const SLOT: usize = 4096;
const SLOTS: usize = 2;

/// What one slot says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Counts writes; the slot with the higher number is newer.
    pub(crate) serial: u64,
    /// The segment being written.
    pub(crate) segment: u64,
    /// Its flushed length.
    pub(crate) synced: u64,
    /// The caller's name for the last committed entry.
    pub(crate) committed: Option<String>,
}

/// The mark's file, open for writing.
pub(crate) struct MarkFile {
    file: Box<dyn DiskFile>,
    current: Mark,
    flushed: bool,
}

/// Reads the newer intact slot.
pub(crate) fn read(bytes: &[u8]) -> Result<Mark, OpenError> {
    let mut newest: Option<Mark> = None;
    let mut first_error = None;
    for slot in 0..SLOTS {
        let block = bytes.get(slot.saturating_mul(SLOT)..).unwrap_or_default();
        match sealed::open(Kind::Mark, block) {
            Ok(sealed) => {
                let mark: Option<Mark> = serde_json::from_slice(sealed.payload).ok();
                let newer =
                    mark.filter(|mark| newest.as_ref().is_none_or(|newest| mark.serial > newest.serial));
                newest = newer.or(newest);
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match (newest, first_error) {
        (Some(mark), _) => Ok(mark),
        (None, Some(error)) => Err(error.refuse(Kind::Mark, NAME, 0)),
        (None, None) => Err(missing("neither slot can be decoded").into()),
    }
}

/// The mark is not there or says nothing.
pub(crate) fn missing(what: &str) -> Damage {
    Damage { file: NAME.to_owned(), offset: 0, index: None, what: what.to_owned() }
}

/// Writes the first mark of a new folder; its presence is what makes the folder founded.
pub(crate) fn found(disk: &dyn Disk, mark: &Mark) -> io::Result<()> {
    let mut bytes = slot_bytes(mark)?;
    bytes.resize(SLOT.saturating_mul(SLOTS), 0);
    replace(disk, NAME, &bytes)
}

impl MarkFile {
    pub(crate) fn open(disk: &dyn Disk, current: Mark) -> io::Result<MarkFile> {
        Ok(MarkFile { file: disk.open(NAME)?, current, flushed: false })
    }

    pub(crate) fn current(&self) -> &Mark {
        &self.current
    }

    /// Writes `mark` over the older slot, with the next serial number.
    pub(crate) fn write(&mut self, mark: Mark) -> io::Result<()> {
        let serial = self.current.serial.saturating_add(1);
        let mark = Mark { serial, ..mark };
        let slot = serial % SLOTS as u64;
        self.file.write_at(slot.saturating_mul(SLOT as u64), &slot_bytes(&mark)?)?;
        self.current = mark;
        self.flushed = false;
        Ok(())
    }

    pub(crate) fn flushed(&self) -> bool {
        self.flushed
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.flushed {
            self.file.sync()?;
            self.flushed = true;
        }
        Ok(())
    }
}

fn slot_bytes(mark: &Mark) -> io::Result<Vec<u8>> {
    let bytes = sealed::seal(Kind::Mark, &serde_json::to_vec(mark)?);
    if bytes.len() > SLOT {
        return Err(io::Error::other("the mark does not fit its slot"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(first: &Mark, second: &Mark) -> Vec<u8> {
        let mut bytes = slot_bytes(first).unwrap();
        bytes.resize(SLOT, 0);
        bytes.extend(slot_bytes(second).unwrap());
        bytes
    }

    fn mark(serial: u64) -> Mark {
        Mark { serial, segment: 1, synced: serial * 100, committed: Some("{}".to_owned()) }
    }

    #[test]
    fn the_newer_slot_counts_and_either_one_serves_when_the_other_is_damaged() {
        let bytes = slots(&mark(4), &mark(5));
        assert_eq!(read(&bytes).unwrap(), mark(5));
        for (damaged, left) in [(0, mark(5)), (SLOT, mark(4))] {
            let mut bytes = bytes.clone();
            bytes[damaged + 30] ^= 1;
            assert_eq!(read(&bytes).unwrap(), left);
        }
    }

    #[test]
    fn a_mark_without_an_intact_slot_is_refused() {
        let mut bytes = slots(&mark(4), &mark(5));
        bytes[50] ^= 1;
        bytes[SLOT + 50] ^= 1;
        assert!(matches!(read(&bytes), Err(OpenError::Damaged(damage)) if damage.file == NAME));
        assert!(matches!(read(&[]), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn a_slot_stays_within_one_sector_with_the_longest_names() {
        let committed = Some(r#"{"leader_id":18446744073709551615,"index":18446744073709551615}"#.to_owned());
        let longest = Mark { serial: u64::MAX, segment: u64::MAX, synced: u64::MAX, committed };
        assert!(slot_bytes(&longest).unwrap().len() <= 512);
    }
}
