//! One record of the log, as bytes. Pure.
//!
//! ```text
//! offset  0  magic    "MLXR"
//!         4  length   u32, of the payload
//!         8  kind     u8: 1 entry, 2 truncate, 3 purge
//!         9  zero     7 bytes
//!        16  index    u64: the entry's; of a truncate, the first removed; of a purge, the last removed
//!        24  term     u64: the entry's, else 0
//!        32  synced   u64: the segment was flushed up to here when this record was written
//!        40  link     16 bytes: checksum of the record (or segment header) before this one
//!        56  checksum 16 bytes: keyed BLAKE3 of bytes 0..56 and the payload
//!        72  payload
//! ```
//!
//! The key is made of the replica and the segment's number, so that bytes of another log or of a recycled block
//! never pass for ours. `link` chains the records: none can be missing, doubled or out of order between two
//! that are intact. `synced` is how recovery tells a damaged record from an unfinished write (see `tail.rs`).

use crate::limits;

/// Length of what precedes the payload.
pub(crate) const HEAD: usize = 72;
const MAGIC: [u8; 4] = *b"MLXR";

/// A checksum, and thereby the name of a record in the chain.
pub(crate) type Sum = [u8; 16];

/// Keys the records of one segment.
#[derive(Clone, Copy)]
pub(crate) struct Key([u8; 32]);

impl Key {
    pub(crate) fn of(replica: u64, segment: u64) -> Key {
        let mut material = [0; 16];
        material[..8].copy_from_slice(&replica.to_le_bytes());
        material[8..].copy_from_slice(&segment.to_le_bytes());
        Key(blake3::derive_key("mlx-serving consensus 2026 log record v1", &material))
    }
}

/// What a record does to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Appends the payload at `index`.
    Entry,
    /// Removes `index` and everything after it.
    Truncate,
    /// Removes everything up to and including `index`; the payload is the caller's name for that point.
    Purge,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Entry => 1,
            Kind::Truncate => 2,
            Kind::Purge => 3,
        }
    }

    fn from_code(code: u8) -> Option<Kind> {
        [Kind::Entry, Kind::Truncate, Kind::Purge].into_iter().find(|kind| kind.code() == code)
    }
}

/// What the log does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) payload: Vec<u8>,
}

/// An intact record found in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) op: Op,
    pub(crate) synced: u64,
    pub(crate) link: Sum,
    pub(crate) sum: Sum,
}

impl Record {
    /// Bytes it takes in the segment.
    pub(crate) fn length(&self) -> u64 {
        HEAD.saturating_add(self.op.payload.len()) as u64
    }
}

/// Appends the record to `out` and returns its checksum.
pub(crate) fn encode(op: &Op, synced: u64, link: Sum, key: Key, out: &mut Vec<u8>) -> Sum {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(op.payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&[op.kind.code(), 0, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&op.index.to_le_bytes());
    out.extend_from_slice(&op.term.to_le_bytes());
    out.extend_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(&link);
    let sum = checksum(key, out.get(start..).unwrap_or_default(), &op.payload);
    out.extend_from_slice(&sum);
    out.extend_from_slice(&op.payload);
    sum
}

/// Reads the record at the start of `bytes`.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn decode(bytes: &[u8], key: Key) -> Result<Record, &'static str> {
    let (Some(head), Some(sum)) = (bytes.get(..56), bytes.get(56..HEAD)) else {
        return Err("a record is cut off in its header");
    };
    if head.get(..4) != Some(MAGIC.as_slice()) {
        return Err("no record starts here");
    }
    let length =
        head.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
    if length > limits::RECORD_BYTES_MAX {
        return Err("the length of a record is not possible");
    }
    let Some(payload) = bytes.get(HEAD..HEAD.saturating_add(length)) else {
        return Err("a record is cut off in its payload");
    };
    let expected = checksum(key, head, payload);
    if sum != expected {
        return Err("the checksum of a record does not match");
    }
    let Some(kind) = head.get(8).copied().and_then(Kind::from_code) else {
        return Err("a record is of a kind this release does not know");
    };
    let mut link = [0; 16];
    link.copy_from_slice(head.get(40..56).unwrap_or(&[0; 16]));
    Ok(Record {
        op: Op { kind, index: number(head, 16), term: number(head, 24), payload: payload.to_vec() },
        synced: number(head, 32),
        link,
        sum: expected,
    })
}

/// Whether a record could start here; cheap, for the search in `tail.rs`.
pub(crate) fn may_start(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

fn checksum(key: Key, head: &[u8], payload: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(head).update(payload);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at.saturating_add(8)).and_then(|bytes| bytes.try_into().ok());
    field.map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Op {
        Op { kind: Kind::Entry, index: 7, term: 3, payload: b"{\"a\":1}".to_vec() }
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut bytes = Vec::new();
        let sum = encode(&sample(), 99, [5; 16], Key::of(1, 2), &mut bytes);
        let record = decode(&bytes, Key::of(1, 2)).unwrap();
        assert_eq!(record, Record { op: sample(), synced: 99, link: [5; 16], sum });
        assert_eq!(record.length(), bytes.len() as u64);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
        let mut bytes = Vec::new();
        encode(&sample(), 0, [0; 16], Key::of(1, 1), &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, Key::of(1, 1)).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut], Key::of(1, 1)).is_err(), "cut {cut}");
        }
    }

    #[test]
    fn a_record_of_another_replica_or_segment_does_not_read() {
        let mut bytes = Vec::new();
        encode(&sample(), 0, [0; 16], Key::of(1, 1), &mut bytes);
        assert!(decode(&bytes, Key::of(2, 1)).is_err());
        assert!(decode(&bytes, Key::of(1, 2)).is_err());
    }
}
