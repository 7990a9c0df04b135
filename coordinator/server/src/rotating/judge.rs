//! What a coordinator does about a rotation, from the facts, from what it sees, and from the time.
//!
//! Owns the judgement. Every coordinator tells whom it sees under the new authority; whoever leads ends the rotation, so the next
//! leader ends what the one before did not. Refuses to end it while somebody is awaited whose certificate may last. Pure.

use std::collections::BTreeSet;

use registry::{CaStep, NodeId, Rotation};

/// What is known.
pub(crate) struct View<'a> {
    pub(crate) rotation: &'a Rotation,
    /// Members that have not moved, by the facts.
    pub(crate) awaited: &'a BTreeSet<NodeId>,
    /// Whom this coordinator sees under the new authority, and itself if it is.
    pub(crate) seen: &'a BTreeSet<NodeId>,
    pub(crate) leads: bool,
    pub(crate) now_unix_ms: u64,
}

/// 1. Whom it sees and the facts await: they have moved.
/// 2. Led here, and nobody is awaited or time is up: it ends.
/// 3. Otherwise nothing.
pub(crate) fn next(view: &View<'_>) -> Option<CaStep> {
    // 1
    let members: BTreeSet<_> = view.awaited.intersection(view.seen).copied().collect();
    if !members.is_empty() {
        return Some(CaStep::Move { members });
    }
    // 2
    let over = view.awaited.is_empty() || view.now_unix_ms >= view.rotation.until_unix_ms;
    // 3
    (view.leads && over).then_some(CaStep::End { abandon: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(awaited: &[u64], seen: &[u64], leads: bool, now_unix_ms: u64) -> Option<CaStep> {
        let rotation = Rotation {
            number: 1,
            ca_certificate_pem: String::new(),
            cross_certificate_pem: String::new(),
            sealed_ca_key: String::new(),
            began_at_unix_ms: 10,
            until_unix_ms: 20,
            moved: BTreeSet::new(),
        };
        let set = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
        let (awaited, seen) = (set(awaited), set(seen));
        next(&View { rotation: &rotation, awaited: &awaited, seen: &seen, leads, now_unix_ms })
    }

    fn moved(nodes: &[u64]) -> Option<CaStep> {
        Some(CaStep::Move { members: nodes.iter().copied().map(NodeId).collect() })
    }

    const END: Option<CaStep> = Some(CaStep::End { abandon: false });

    #[test]
    fn whoever_sees_a_member_tells_of_it_once() {
        for leads in [false, true] {
            assert_eq!(judged(&[0, 1, 2], &[0, 2, 7], leads, 11), moved(&[0, 2]));
            assert_eq!(judged(&[1], &[0, 2], leads, 11), None, "the facts know");
        }
    }

    #[test]
    fn the_leader_ends_it_when_nobody_is_awaited_and_nobody_else_does() {
        assert_eq!(judged(&[], &[0, 1], true, 11), END);
        assert_eq!(judged(&[], &[0, 1], false, 11), None);
    }

    #[test]
    fn who_is_away_is_awaited_until_the_last_certificate_has_run_out() {
        assert_eq!(judged(&[3], &[], true, 19), None);
        assert_eq!(judged(&[3], &[], true, 20), END);
        assert_eq!(judged(&[3], &[], false, 20), None);
        // A leader whose clock was set far back waits too long, never too short.
        assert_eq!(judged(&[3], &[], true, 0), None);
        assert_eq!(judged(&[3], &[3], true, 20), moved(&[3]), "the last one counts still");
    }
}
