//! A sealed block: bytes that carry their kind, format, length and checksum. Segment headers, the mark, the vote
//! and snapshots are sealed blocks; log records have a header of their own (`record.rs`).
//!
//! ```text
//! offset  0  kind      8 bytes
//!         8  format    u32, little endian like every number
//!        12  zero      u32
//!        16  length    u64, of the payload
//!        24  checksum  first 16 bytes of the BLAKE3 of bytes 0..24 and the payload
//!        40  payload
//! ```

use registry::ClusterVersion;

use crate::error::{Damage, OpenError};

/// Length of what precedes the payload.
pub(crate) const HEAD: usize = 40;

/// What a block is for. Part of the checksum: a vote renamed to a snapshot does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Segment,
    Mark,
    Vote,
    SnapshotMeta,
    SnapshotState,
}

impl Kind {
    fn tag(self) -> &'static [u8; 8] {
        match self {
            Kind::Segment => b"mlxs.log",
            Kind::Mark => b"mlxs.mrk",
            Kind::Vote => b"mlxs.vot",
            Kind::SnapshotMeta => b"mlxs.snm",
            Kind::SnapshotState => b"mlxs.sns",
        }
    }

    /// The format this release writes, and the newest it reads. That of a state is the version of the cluster when it was
    /// written.
    fn format(self) -> u32 {
        match self {
            Kind::Segment | Kind::Mark | Kind::Vote | Kind::SnapshotMeta => 1,
            // A release that does not speak the cluster's version refuses the file before it looks into it.
            Kind::SnapshotState => ClusterVersion::NEWEST.0,
        }
    }
}

/// An intact block at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sealed<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) sum: [u8; 16],
    /// Bytes the block takes, head included.
    pub(crate) length: usize,
}

/// Why bytes are not an intact block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsealed {
    /// What is wrong, in words.
    Damaged(&'static str),
    /// An intact block of a later release.
    Newer(u32),
}

impl Unsealed {
    /// The error for a block that must be intact.
    pub(crate) fn refuse(self, kind: Kind, file: &str, offset: u64) -> OpenError {
        match self {
            Unsealed::Damaged(what) => OpenError::Damaged(Damage {
                file: file.to_owned(),
                offset,
                index: None,
                what: what.to_owned(),
            }),
            Unsealed::Newer(found) => OpenError::Newer { file: file.to_owned(), found, known: kind.format() },
        }
    }
}

pub(crate) fn seal(kind: Kind, payload: &[u8]) -> Vec<u8> {
    seal_format(kind, kind.format(), payload)
}

pub(crate) fn seal_format(kind: Kind, format: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD.saturating_add(payload.len()));
    bytes.extend_from_slice(kind.tag());
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    let sum = checksum(&bytes, payload);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(payload);
    bytes
}

/// Reads the block at the start of `bytes`; what follows it is the caller's.
pub(crate) fn open(kind: Kind, bytes: &[u8]) -> Result<Sealed<'_>, Unsealed> {
    let (Some(head), Some(sum)) = (bytes.get(..24), bytes.get(24..HEAD)) else {
        return Err(Unsealed::Damaged("it is shorter than a header"));
    };
    let length = number(head, 16).and_then(|length| usize::try_from(length).ok());
    let Some(end) = length.and_then(|length| length.checked_add(HEAD)) else {
        return Err(Unsealed::Damaged("the header is not one of ours"));
    };
    let Some(payload) = bytes.get(HEAD..end) else {
        return Err(Unsealed::Damaged("it ends before its content does"));
    };
    let expected = checksum(head, payload);
    if sum != expected {
        return Err(Unsealed::Damaged("the checksum does not match"));
    }
    if head.get(..8) != Some(kind.tag().as_slice()) {
        return Err(Unsealed::Damaged("it is a file of another kind"));
    }
    // Looked at after the checksum, so that a flipped bit is damage and never "a newer release".
    let format = head.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    if format > kind.format() {
        return Err(Unsealed::Newer(format));
    }
    Ok(Sealed { payload, sum: expected, length: end })
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(payload);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    bytes.get(at..end)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_block_opens_and_leaves_what_follows_alone() {
        let mut bytes = seal(Kind::Vote, b"payload");
        let length = bytes.len();
        bytes.extend_from_slice(b"rest");
        let sealed = open(Kind::Vote, &bytes).unwrap();
        assert_eq!((sealed.payload, sealed.length), (b"payload".as_slice(), length));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_block_is_noticed() {
        let bytes = seal(Kind::Mark, br#"{"synced":17}"#);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open(Kind::Mark, &flipped), Err(Unsealed::Damaged(_))), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(matches!(open(Kind::Mark, &bytes[..cut]), Err(Unsealed::Damaged(_))), "cut {cut}");
        }
    }

    #[test]
    fn a_block_of_another_kind_or_of_a_newer_release_is_refused_as_such() {
        let vote = seal(Kind::Vote, b"x");
        assert!(matches!(open(Kind::Mark, &vote), Err(Unsealed::Damaged("it is a file of another kind"))));
        assert_eq!(open(Kind::Vote, &seal_format(Kind::Vote, 2, b"x")), Err(Unsealed::Newer(2)));
    }
}
