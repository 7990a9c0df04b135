//! One file of the log: its name, its head, and reading its records up to the first that is not right. Pure.

use serde::{Deserialize, Serialize};

use crate::error::{Damage, OpenError};
use crate::wal::extent::Extent;
use crate::wal::record::{self, Key, Record, Sum};
use crate::wal::sealed::{self, Kind, Unsealed};

/// What a segment says of itself and of the log before it. The head of a segment is only written when the segment
/// before it is flushed to its end, so `previous` proves the whole of that file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) replica: u64,
    pub(crate) number: u64,
    pub(crate) previous: Option<Previous>,
    /// The log at the start of this segment.
    pub(crate) extent: Extent,
}

/// How the segment before ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Previous {
    pub(crate) length: u64,
    pub(crate) link: Sum,
}

/// A segment's records up to its end or its first flaw.
pub(crate) struct Scan {
    pub(crate) head: Head,
    /// Length of the head: where the records start.
    pub(crate) start: u64,
    pub(crate) records: Vec<Record>,
    /// Where the last good record ends.
    pub(crate) end: u64,
    /// Checksum of the last good record, or of the head.
    pub(crate) link: Sum,
    pub(crate) flaw: Option<Flaw>,
}

/// What stands at `Scan::end`, if not the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Bytes that are no intact record: damage, or a write that was not finished.
    Unreadable(&'static str),
    /// An intact record that does not follow the one before it. No interrupted write leaves this.
    Misplaced,
}

impl Flaw {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Flaw::Unreadable(what) => what,
            Flaw::Misplaced => "a record does not follow the one before it",
        }
    }
}

pub(crate) fn name(number: u64) -> String {
    format!("log-{number:012}")
}

/// The number in a segment's name, if it is one.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?;
    let number: u64 = digits.parse().ok()?;
    (self::name(number) == *name).then_some(number)
}

/// The bytes of a head, and the checksum that the first record links to.
pub(crate) fn encode_head(head: &Head) -> Result<(Vec<u8>, Sum), serde_json::Error> {
    let bytes = sealed::seal(Kind::Segment, &serde_json::to_vec(head)?);
    let mut sum = [0; 16];
    sum.copy_from_slice(bytes.get(24..sealed::HEAD).unwrap_or(&[0; 16]));
    Ok((bytes, sum))
}

/// Reads a segment's head and its records.
///
/// # Errors
/// The head is not intact or not of this segment; the caller decides whether it had to be.
pub(crate) fn scan(number: u64, bytes: &[u8]) -> Result<Scan, Unsealed> {
    let sealed = sealed::open(Kind::Segment, bytes)?;
    let head: Head = serde_json::from_slice(sealed.payload)
        .map_err(|_| Unsealed::Damaged("the head cannot be decoded"))?;
    if head.number != number {
        return Err(Unsealed::Damaged("the file is another segment under this name"));
    }
    let key = Key::of(head.replica, number);
    let mut scan = Scan {
        head,
        start: sealed.length as u64,
        records: Vec::new(),
        end: sealed.length as u64,
        link: sealed.sum,
        flaw: None,
    };
    while scan.flaw.is_none() {
        let rest = bytes.get(scan.end as usize..).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        match record::decode(rest, key) {
            Err(what) => scan.flaw = Some(Flaw::Unreadable(what)),
            Ok(record) if record.link != scan.link => scan.flaw = Some(Flaw::Misplaced),
            Ok(record) => {
                scan.end = scan.end.saturating_add(record.length());
                scan.link = record.sum;
                scan.records.push(record);
            }
        }
    }
    Ok(scan)
}

/// Checks that `scan`, which another segment follows, is whole.
pub(crate) fn must_be_whole(scan: &Scan, length: u64, next: &Head) -> Result<(), OpenError> {
    if let Some(flaw) = scan.flaw {
        return Err(damage(scan, flaw.words()).into());
    }
    match &next.previous {
        Some(previous) if previous.length == length && previous.link == scan.link => Ok(()),
        Some(_) => Err(damage(scan, "it ends elsewhere than the next segment says").into()),
        None => Err(damage(scan, "the next segment says that it is the first").into()),
    }
}

/// Damage at the end of the good part of a segment.
pub(crate) fn damage(scan: &Scan, what: &str) -> Damage {
    let mut extent = scan.head.extent.clone();
    for record in &scan.records {
        extent.follow(&record.op);
    }
    Damage {
        file: name(scan.head.number),
        offset: scan.end,
        index: extent.next_index(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::{Kind as RecordKind, Op, encode};

    fn head(number: u64, previous: Option<Previous>) -> Head {
        Head { replica: 1, number, previous, extent: Extent::default() }
    }

    /// A segment with two entries.
    fn sample() -> Vec<u8> {
        let (mut bytes, mut link) = encode_head(&head(3, None)).unwrap();
        for index in 0..2 {
            let op = Op { kind: RecordKind::Entry, index, term: 1, payload: b"{}".to_vec() };
            let synced = bytes.len() as u64;
            link = encode(&op, synced, link, Key::of(1, 3), &mut bytes);
        }
        bytes
    }

    #[test]
    fn only_names_that_we_would_write_are_segments() {
        assert_eq!(number(&name(42)), Some(42));
        assert_eq!(number(&name(u64::MAX)), Some(u64::MAX));
        for other in ["log", "log-", "log-42", "log-000000000042.new", "log-+00000000042", "mark", "vote"] {
            assert_eq!(number(other), None, "{other}");
        }
    }

    #[test]
    fn a_whole_segment_scans_to_its_end() {
        let bytes = sample();
        let scan = scan(3, &bytes).unwrap();
        assert_eq!((scan.records.len(), scan.end, scan.flaw), (2, bytes.len() as u64, None));
    }

    #[test]
    fn a_segment_under_the_name_of_another_is_refused() {
        assert!(matches!(scan(4, &sample()), Err(Unsealed::Damaged(_))));
    }

    #[test]
    fn a_doubled_record_is_intact_but_misplaced() {
        let bytes = sample();
        let second = scan(3, &bytes).unwrap().records[1].length() as usize;
        let doubled = [bytes.as_slice(), &bytes[bytes.len() - second..]].concat();
        assert_eq!(scan(3, &doubled).unwrap().flaw, Some(Flaw::Misplaced));
    }

    #[test]
    fn a_left_out_record_is_noticed_by_the_one_behind_it() {
        let bytes = sample();
        let whole = scan(3, &bytes).unwrap();
        let (start, first) = (whole.start as usize, whole.records[0].length() as usize);
        let without = [&bytes[..start], &bytes[start + first..]].concat();
        assert_eq!(scan(3, &without).unwrap().flaw, Some(Flaw::Misplaced));
    }

    #[test]
    fn the_next_head_convicts_a_segment_that_ends_a_whole_record_early() {
        let bytes = sample();
        let whole = scan(3, &bytes).unwrap();
        let next = head(4, Some(Previous { length: whole.end, link: whole.link }));
        must_be_whole(&whole, bytes.len() as u64, &next).unwrap();
        let early = &bytes[..bytes.len() - whole.records[1].length() as usize];
        let short = scan(3, early).unwrap();
        assert_eq!(short.flaw, None);
        let refused = must_be_whole(&short, early.len() as u64, &next).unwrap_err().to_string();
        assert!(refused.contains("it ends elsewhere than the next segment says"), "{refused}");
        assert!(must_be_whole(&whole, whole.end, &head(4, None)).is_err());
    }
}
