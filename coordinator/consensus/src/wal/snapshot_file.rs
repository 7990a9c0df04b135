//! The snapshot: one file, replaced as a whole, holding two sealed blocks. The first says what the snapshot
//! covers, the second is the state, whose format is the cluster's version. Both are the caller's bytes.

use std::io;

use registry::ClusterVersion;

use crate::error::{Damage, OpenError};
use crate::wal::disk::Disk;
use crate::wal::recovery::read_file;
use crate::wal::replace::replace;
use crate::wal::sealed::{self, Kind};

pub(crate) const NAME: &str = "snapshot";

/// An intact snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) meta: Vec<u8>,
    pub(crate) state: Vec<u8>,
}

/// Returns when the snapshot is durable.
pub(crate) fn write(disk: &dyn Disk, version: ClusterVersion, meta: &[u8], state: &[u8]) -> io::Result<()> {
    write_as(disk, NAME, version, meta, state)
}

/// As [`write`], under another name: a backup is a snapshot that lies elsewhere.
pub(crate) fn write_as(
    disk: &dyn Disk,
    name: &str,
    version: ClusterVersion,
    meta: &[u8],
    state: &[u8],
) -> io::Result<()> {
    let mut bytes = sealed::seal(Kind::SnapshotMeta, meta);
    bytes.extend(sealed::seal_format(Kind::SnapshotState, version.0, state));
    replace(disk, name, &bytes)
}

/// Reads the snapshot, if one was ever taken.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<SnapshotFile>, OpenError> {
    read_as(disk, NAME)
}

/// As [`read`], under another name.
pub(crate) fn read_as(disk: &dyn Disk, name: &str) -> Result<Option<SnapshotFile>, OpenError> {
    let Some(bytes) = read_file(disk, name)? else { return Ok(None) };
    let meta = sealed::open(Kind::SnapshotMeta, &bytes)
        .map_err(|error| error.refuse(Kind::SnapshotMeta, name, 0))?;
    let at = meta.length as u64;
    let rest = bytes.get(meta.length..).unwrap_or_default();
    let state = sealed::open(Kind::SnapshotState, rest)
        .map_err(|error| error.refuse(Kind::SnapshotState, name, at))?;
    if state.length != rest.len() {
        let offset = at.saturating_add(state.length as u64);
        let what = "it goes on behind its end".to_owned();
        return Err(Damage { file: name.to_owned(), offset, index: None, what }.into());
    }
    Ok(Some(SnapshotFile { meta: meta.payload.to_vec(), state: state.payload.to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sim_disk::SimDisk;

    #[test]
    fn a_snapshot_reads_back_and_the_newer_replaces_the_older() {
        let disk = SimDisk::default();
        assert_eq!(read(&disk).unwrap(), None);
        for (meta, state) in [("first", "a"), ("second", "b")] {
            write(&disk, ClusterVersion::FIRST, meta.as_bytes(), state.as_bytes()).unwrap();
            let expected = SnapshotFile { meta: meta.into(), state: state.into() };
            assert_eq!(read(&disk).unwrap(), Some(expected));
        }
    }

    #[test]
    fn a_snapshot_of_a_version_that_this_release_does_not_know_is_newer_and_not_damaged() {
        let disk = SimDisk::default();
        for version in 1..=ClusterVersion::NEWEST.0 {
            write(&disk, ClusterVersion(version), b"meta", b"state").unwrap();
            assert!(read(&disk).unwrap().is_some());
        }
        write(&disk, ClusterVersion(ClusterVersion::NEWEST.0 + 1), b"meta", b"state").unwrap();
        assert!(matches!(read(&disk).unwrap_err(), OpenError::Newer { .. }));
    }

    #[test]
    fn bytes_behind_the_end_of_a_snapshot_are_damage_and_so_are_swapped_blocks() {
        let disk = SimDisk::default();
        write(&disk, ClusterVersion::FIRST, b"meta", b"state").unwrap();
        let bytes = disk.bytes(NAME);
        disk.edit(NAME, [bytes.as_slice(), b"x"].concat());
        let damage = read(&disk).unwrap_err().to_string();
        assert!(damage.contains(&format!("snapshot is damaged at byte {}", bytes.len())), "{damage}");
        let swapped =
            [sealed::seal(Kind::SnapshotState, b"state"), sealed::seal(Kind::SnapshotMeta, b"meta")];
        disk.edit(NAME, swapped.concat());
        assert!(read(&disk).is_err());
    }
}
