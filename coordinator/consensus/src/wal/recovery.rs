//! Reading a folder back. It decides and changes nothing; [`crate::wal::log`] carries the decision out.
//!
//! 1. No mark: the folder is new, or its founding was interrupted, or it is not whole (refused).
//! 2. The segments must be one unbroken row that reaches the mark.
//! 3. Every segment but the last must be whole, as the head of the next one says.
//! 4. The last may end in an unfinished write (`tail.rs`); one whose very head is unfinished is dropped.
//! 5. The records are replayed. An index that does not follow, or entries missing since the last purge, are
//!    damage even though every checksum holds.

use std::collections::BTreeMap;
use std::io;

use crate::error::{Damage, OpenError};
use crate::wal::disk::Disk;
use crate::wal::extent::Extent;
use crate::wal::mark::{self, Mark};
use crate::wal::record::{Key, Kind, Op, Sum};
use crate::wal::replace::UNFINISHED;
use crate::wal::sealed::{self, Unsealed};
use crate::wal::segment::{self, Scan};
use crate::wal::tail::{self, Verdict};
use crate::wal::{log, snapshot_file};

/// What a folder holds.
pub(crate) enum Found {
    /// Nothing yet that was ever acknowledged.
    Unfounded,
    Log(Box<Recovered>),
}

/// A log that can be opened.
pub(crate) struct Recovered {
    pub(crate) mark: Mark,
    pub(crate) vote: Vec<u8>,
    /// What the log holds behind its last purge.
    pub(crate) entries: BTreeMap<u64, Op>,
    pub(crate) extent: Extent,
    /// Segments before the last, with the index at which each ends.
    pub(crate) closed: Vec<(u64, Option<u64>)>,
    pub(crate) active: Active,
    /// Files without a meaning: unfinished replacements, a segment without a head.
    pub(crate) leftovers: Vec<String>,
}

/// The last segment.
pub(crate) struct Active {
    pub(crate) number: u64,
    /// The good part; the rest of the file is to be cut.
    pub(crate) bytes: Vec<u8>,
    pub(crate) cut_bytes: u64,
    pub(crate) link: Sum,
}

pub(crate) fn read(disk: &dyn Disk, replica: u64) -> Result<Found, OpenError> {
    let names =
        disk.names().map_err(|source| OpenError::Io { doing: "listing the folder".to_owned(), source })?;
    let Some(mark) = read_file(disk, mark::NAME)? else {
        return unfounded(disk, &names);
    };
    let mark = mark::read(&mark)?;
    let Some(vote) = read_file(disk, log::VOTE)? else {
        return Err(damage(log::VOTE, "it is missing").into());
    };
    let vote = sealed::open(sealed::Kind::Vote, &vote)
        .map_err(|error| error.refuse(sealed::Kind::Vote, log::VOTE, 0))?
        .payload
        .to_vec();
    let mut leftovers: Vec<String> =
        names.iter().filter(|name| name.ends_with(UNFINISHED)).cloned().collect();
    let segments = segments(disk, &names, &mark, &mut leftovers)?;
    let recovered = replay(segments, mark, vote, replica)?;
    Ok(Found::Log(Box::new(Recovered { leftovers, ..recovered })))
}

/// 1. Without a mark nothing was ever acknowledged, unless the mark was taken away.
fn unfounded(disk: &dyn Disk, names: &[String]) -> Result<Found, OpenError> {
    let used = || damage(mark::NAME, "it is missing from a folder that has been used");
    for name in names {
        if name == snapshot_file::NAME {
            return Err(used().into());
        }
        if name == log::VOTE {
            let bytes = read_file(disk, name)?.unwrap_or_default();
            // Founding leaves an intact, empty vote here; anything else is a vote somebody counts on.
            if !sealed::open(sealed::Kind::Vote, &bytes).is_ok_and(|vote| vote.payload.is_empty()) {
                return Err(used().into());
            }
        }
        let Some(number) = segment::number(name) else { continue };
        let bytes = read_file(disk, name)?.unwrap_or_default();
        if number != log::FIRST_SEGMENT
            || segment::scan(number, &bytes).is_ok_and(|scan| !scan.records.is_empty())
        {
            return Err(used().into());
        }
    }
    Ok(Found::Unfounded)
}

/// 2, 3. The segments in order, each but the last known to be whole.
fn segments(
    disk: &dyn Disk,
    names: &[String],
    mark: &Mark,
    leftovers: &mut Vec<String>,
) -> Result<Vec<(Scan, Vec<u8>)>, OpenError> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or(0);
    if last < mark.segment {
        return Err(damage(&segment::name(mark.segment), "it is missing").into());
    }
    let mut scans: Vec<(Scan, Vec<u8>)> = Vec::new();
    for number in numbers {
        let name = segment::name(number);
        let bytes = read_file(disk, &name)?.unwrap_or_default();
        let scan = match segment::scan(number, &bytes) {
            Ok(scan) => scan,
            Err(Unsealed::Damaged(_)) if number == last && unfinished_head(number, &bytes, mark, &scans) => {
                leftovers.push(name);
                continue;
            }
            Err(error) => return Err(error.refuse(sealed::Kind::Segment, &name, 0)),
        };
        if let Some((before, bytes_before)) = scans.last() {
            if before.head.number.checked_add(1) != Some(number) {
                return Err(damage(&name, "the segment before it is missing").into());
            }
            segment::must_be_whole(before, bytes_before.len() as u64, &scan.head)?;
        }
        scans.push((scan, bytes));
    }
    Ok(scans)
}

/// 4. A new segment whose head was never flushed: the mark does not know it and it holds no record.
fn unfinished_head(number: u64, bytes: &[u8], mark: &Mark, before: &[(Scan, Vec<u8>)]) -> bool {
    let Some((before, _)) = before.last() else { return false };
    let key = Key::of(before.head.replica, number);
    let flaw = segment::Flaw::Unreadable("the head is damaged");
    number > mark.segment && tail::judge(bytes, 0, flaw, 0, key) == Verdict::Unfinished
}

/// 4, 5. What the records amount to.
fn replay(
    segments: Vec<(Scan, Vec<u8>)>,
    mark: Mark,
    vote: Vec<u8>,
    replica: u64,
) -> Result<Recovered, OpenError> {
    let mut extent = segments.first().map(|(scan, _)| scan.head.extent.clone()).unwrap_or_default();
    let mut entries = BTreeMap::new();
    let mut closed: Vec<(u64, Option<u64>)> = Vec::new();
    let mut active = None;
    let count = segments.len();
    for (position, (scan, bytes)) in segments.into_iter().enumerate() {
        if scan.head.replica != replica {
            return Err(OpenError::OtherReplica { found: scan.head.replica, wanted: replica });
        }
        let head_extent_fits = scan.head.extent == extent;
        if !head_extent_fits {
            return Err(damage(&segment::name(scan.head.number), "its head does not continue the log").into());
        }
        let mut at = scan.start;
        for record in &scan.records {
            step(&mut entries, &mut extent, &record.op).map_err(|what| Damage {
                offset: at,
                index: Some(record.op.index),
                ..damage(&segment::name(scan.head.number), what)
            })?;
            at = at.saturating_add(record.length());
        }
        if position.saturating_add(1) < count {
            closed.push((scan.head.number, extent.last_index));
        } else {
            active = Some(last(&scan, bytes, &mark)?);
        }
    }
    let active = active.ok_or_else(|| damage(&segment::name(log::FIRST_SEGMENT), "it is missing"))?;
    nothing_missing(&entries, &extent, closed.first().map_or(active.number, |first| first.0))?;
    Ok(Recovered { mark, vote, entries, extent, closed, active, leftovers: Vec::new() })
}

/// 4. Where the last segment ends.
fn last(scan: &Scan, mut bytes: Vec<u8>, mark: &Mark) -> Result<Active, OpenError> {
    let number = scan.head.number;
    let flushed = if mark.segment == number { mark.synced } else { 0 };
    if let Some(flaw) = scan.flaw {
        let key = Key::of(scan.head.replica, number);
        if let Verdict::Damaged(what) = tail::judge(&bytes, scan.end, flaw, flushed, key) {
            return Err(segment::damage(scan, what).into());
        }
    } else if scan.end < flushed {
        return Err(segment::damage(scan, "the file ends before what was acknowledged").into());
    }
    let length = bytes.len() as u64;
    bytes.truncate(usize::try_from(scan.end).unwrap_or(usize::MAX));
    Ok(Active { number, bytes, cut_bytes: length.saturating_sub(scan.end), link: scan.link })
}

/// 5. One record's effect.
fn step(entries: &mut BTreeMap<u64, Op>, extent: &mut Extent, op: &Op) -> Result<(), &'static str> {
    match op.kind {
        Kind::Entry => {
            if extent.next_index().is_some_and(|next| next != op.index) {
                return Err("a log index does not follow the one before it");
            }
            entries.insert(op.index, op.clone());
        }
        Kind::Truncate => drop(entries.split_off(&op.index)),
        Kind::Purge => *entries = entries.split_off(&op.index.saturating_add(1)),
    }
    extent.follow(op);
    Ok(())
}

/// The end of 5: everything from the last purge to the end must be there. Only segments wholly behind a purge are
/// ever removed, so a hole means that a file was taken away.
fn nothing_missing(
    entries: &BTreeMap<u64, Op>,
    extent: &Extent,
    first_segment: u64,
) -> Result<(), OpenError> {
    let purged = extent.purged.as_ref().map(|purged| purged.index);
    let expected = match (purged, extent.last_index) {
        (_, None) => 0,
        (Some(purged), Some(last)) => last.saturating_sub(purged),
        // Never purged: the log starts where its first entry is, in its first segment.
        (None, Some(_)) if first_segment == log::FIRST_SEGMENT => return Ok(()),
        (None, Some(last)) => last.saturating_add(1),
    };
    if entries.len() as u64 == expected {
        return Ok(());
    }
    let index = purged.map_or(0, |purged| purged.saturating_add(1));
    let what = format!("log segments before it are missing ({} of {expected} entries found)", entries.len());
    let file = segment::name(first_segment);
    Err(Damage { file, offset: 0, index: Some(index), what }.into())
}

fn damage(file: &str, what: &str) -> Damage {
    Damage { file: file.to_owned(), offset: 0, index: None, what: what.to_owned() }
}

pub(crate) fn read_file(disk: &dyn Disk, name: &str) -> Result<Option<Vec<u8>>, OpenError> {
    let failed = |source: io::Error| OpenError::Io { doing: format!("reading {name}"), source };
    disk.read(name).map_err(failed)
}
