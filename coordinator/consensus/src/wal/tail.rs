//! What stands behind the last good record of the last segment: an unfinished write, or damage. Pure.
//!
//! Decided in this order:
//! 1. An intact record out of its place is damage: interrupted writes do not produce intact records elsewhere.
//! 2. Below the mark is damage: the mark is only moved after a flush.
//! 3. An intact record further on that was written when everything up to this point was already flushed (its
//!    `synced` field says so) proves damage, even when the mark is old.
//! 4. Anything else is the rest of a batch whose flush never returned. It may hold intact records (the machine
//!    can write the later of two pages first); none of them was acknowledged, and all are cut.

use crate::wal::record::{self, Key};
use crate::wal::segment::Flaw;

/// What to do at the flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Cut the segment here.
    Unfinished,
    /// Refuse to open, for this reason.
    Damaged(&'static str),
}

/// Judges the flaw at `at` in a segment that is flushed up to `flushed` as far as the mark knows.
pub(crate) fn judge(segment: &[u8], at: u64, flaw: Flaw, flushed: u64, key: Key) -> Verdict {
    if flaw == Flaw::Misplaced {
        return Verdict::Damaged(flaw.words());
    }
    if at < flushed {
        return Verdict::Damaged(flaw.words());
    }
    if flushed_later(segment, at, key) {
        return Verdict::Damaged(flaw.words());
    }
    Verdict::Unfinished
}

/// Whether some record after `at` was written when everything up to beyond `at` was flushed.
fn flushed_later(segment: &[u8], at: u64, key: Key) -> bool {
    let from = usize::try_from(at).unwrap_or(usize::MAX).saturating_add(1);
    (from..segment.len()).any(|offset| {
        let rest = segment.get(offset..).unwrap_or_default();
        record::may_start(rest) && record::decode(rest, key).is_ok_and(|record| record.synced > at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::{Kind, Op, encode};

    const KEY: fn() -> Key = || Key::of(1, 1);

    /// Three records of which the second is damaged; the third was written with `synced` flushed.
    fn damaged_middle(synced: impl Fn(u64) -> u64) -> (Vec<u8>, u64) {
        let op = |index| Op { kind: Kind::Entry, index, term: 1, payload: b"{}".to_vec() };
        let mut bytes = Vec::new();
        let first = encode(&op(1), 0, [0; 16], KEY(), &mut bytes);
        let at = bytes.len();
        let second = encode(&op(2), 0, first, KEY(), &mut bytes);
        let third = synced(bytes.len() as u64);
        encode(&op(3), third, second, KEY(), &mut bytes);
        bytes[at + 5] ^= 1;
        (bytes, at as u64)
    }

    const CUT: Flaw = Flaw::Unreadable("cut");

    #[test]
    fn damage_below_the_mark_is_refused_whatever_follows() {
        let (bytes, at) = damaged_middle(|_| 0);
        assert_eq!(judge(&bytes, at, CUT, at + 1, KEY()), Verdict::Damaged("cut"));
        assert_eq!(judge(&bytes[..at as usize], at, CUT, at + 1, KEY()), Verdict::Damaged("cut"));
    }

    #[test]
    fn damage_before_a_record_of_a_later_batch_is_refused_even_with_an_old_mark() {
        let (bytes, at) = damaged_middle(|flushed| flushed);
        assert_eq!(judge(&bytes, at, CUT, 0, KEY()), Verdict::Damaged("cut"));
    }

    #[test]
    fn a_hole_inside_the_last_batch_is_an_unfinished_write() {
        let (bytes, at) = damaged_middle(|_| 0);
        assert_eq!(judge(&bytes, at, CUT, at, KEY()), Verdict::Unfinished);
    }

    #[test]
    fn an_intact_record_out_of_place_is_damage() {
        let (bytes, at) = damaged_middle(|_| 0);
        assert!(matches!(judge(&bytes, at, Flaw::Misplaced, 0, KEY()), Verdict::Damaged(_)));
    }
}
