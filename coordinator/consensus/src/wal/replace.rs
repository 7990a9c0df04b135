//! Replaces a whole file so that a crash leaves either the old or the new one: write beside it, flush, rename,
//! flush the names. Used for the vote, the snapshot and the founding of the mark.

use std::io;

use crate::wal::disk::Disk;

/// Ending of a replacement that is not finished.
pub(crate) const UNFINISHED: &str = ".new";

pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let mut file = disk.create(&unfinished)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.rename(&unfinished, name)?;
    disk.sync_names()
}
