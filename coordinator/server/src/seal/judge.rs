//! What a coordinator does about the seal key, from what it and the others hold.
//!
//! Owns the judgement. There is one key in the end, whoever made the first: while the authority's key is plain, the leader's counts,
//! and a leader that has none takes over another's before it makes one. Refuses to seal before every member holds the very key, or
//! to make one while somebody is silent who may have it. Pure.

use std::collections::BTreeMap;

use consensus::ReplicaId;

use super::key::SealKeyId;

/// What is known.
pub(crate) struct View<'a> {
    /// The authority's key is sealed.
    pub(crate) sealed: bool,
    /// The key held here opens it.
    pub(crate) opens: bool,
    /// Every replica could read a sealed key.
    pub(crate) readable: bool,
    pub(crate) own: ReplicaId,
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) held: Option<SealKeyId>,
    pub(crate) members: &'a [ReplicaId],
    /// What each of the others holds; without those that did not answer.
    pub(crate) told: &'a BTreeMap<ReplicaId, Option<SealKeyId>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Rest,
    /// From the first of these that gives one that serves.
    Fetch(Vec<ReplicaId>),
    Make,
    Seal,
}

/// 1. Sealed: who cannot open it asks all who hold a key.
/// 2. Plain, and not readable by all when sealed: nothing.
/// 3. Plain, elsewhere led: the leader's key replaces any other.
/// 4. Plain, led here, no key: another's, or, if all answered and none has one, a new one.
/// 5. Plain, led here, a key: sealed as soon as every member holds it.
pub(crate) fn next(view: &View<'_>) -> Step {
    let holders = || {
        let holding = view.told.iter().filter(|(_, held)| held.is_some());
        holding.map(|(replica, _)| *replica).collect::<Vec<_>>()
    };
    // 1
    if view.sealed {
        let lacks = !view.opens && !holders().is_empty();
        return if lacks { Step::Fetch(holders()) } else { Step::Rest };
    }
    // 2
    let Some(leader) = view.leader.filter(|_| view.readable) else { return Step::Rest };
    // 3
    if leader != view.own {
        let theirs = view.told.get(&leader).copied().flatten();
        let differs = theirs.is_some() && theirs != view.held;
        return if differs { Step::Fetch(vec![leader]) } else { Step::Rest };
    }
    let mut others = view.members.iter().filter(|member| **member != view.own);
    match view.held {
        // 4
        None if !holders().is_empty() => Step::Fetch(holders()),
        None if others.all(|other| view.told.contains_key(other)) => Step::Make,
        None => Step::Rest,
        // 5
        Some(_) if others.all(|other| view.told.get(other) == Some(&view.held)) => Step::Seal,
        Some(_) => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ReplicaId = ReplicaId(1);
    const TWO: ReplicaId = ReplicaId(2);
    const THREE: ReplicaId = ReplicaId(3);
    const A: Option<SealKeyId> = Some([1; 32]);
    const B: Option<SealKeyId> = Some([2; 32]);

    /// Of three, one looks: who leads, what it holds, what the others told.
    fn plain(leader: ReplicaId, held: Option<SealKeyId>, told: &[(ReplicaId, Option<SealKeyId>)]) -> Step {
        let told = told.iter().copied().collect();
        let members = [ONE, TWO, THREE];
        next(&View {
            sealed: false,
            opens: false,
            readable: true,
            own: ONE,
            leader: Some(leader),
            held,
            members: &members,
            told: &told,
        })
    }

    #[test]
    fn the_leader_seals_when_every_member_holds_its_key() {
        assert_eq!(plain(ONE, A, &[(TWO, A), (THREE, A)]), Step::Seal);
        assert_eq!(plain(ONE, A, &[(TWO, A), (THREE, None)]), Step::Rest);
        assert_eq!(plain(ONE, A, &[(TWO, A), (THREE, B)]), Step::Rest, "it will fetch ours");
        assert_eq!(plain(ONE, A, &[(TWO, A)]), Step::Rest, "one is silent");
        assert_eq!(plain(ONE, A, &[(TWO, A), (THREE, A), (ReplicaId(9), None)]), Step::Seal, "no member");
    }

    #[test]
    fn a_leader_without_a_key_takes_anothers_before_it_makes_one() {
        assert_eq!(plain(ONE, None, &[(TWO, None), (THREE, None)]), Step::Make);
        assert_eq!(plain(ONE, None, &[(TWO, None), (THREE, B)]), Step::Fetch(vec![THREE]));
        assert_eq!(plain(ONE, None, &[(TWO, None)]), Step::Rest, "who is silent may have one");
    }

    #[test]
    fn who_does_not_lead_takes_the_leaders_key_and_makes_none() {
        assert_eq!(plain(TWO, None, &[(TWO, A), (THREE, B)]), Step::Fetch(vec![TWO]));
        assert_eq!(plain(TWO, B, &[(TWO, A), (THREE, B)]), Step::Fetch(vec![TWO]));
        assert_eq!(plain(TWO, A, &[(TWO, A), (THREE, B)]), Step::Rest);
        assert_eq!(plain(TWO, None, &[(TWO, None), (THREE, None)]), Step::Rest);
        assert_eq!(plain(TWO, None, &[]), Step::Rest);
    }

    fn other(sealed: bool, opens: bool, readable: bool, leader: Option<ReplicaId>) -> Step {
        let told = BTreeMap::from([(TWO, A), (THREE, B)]);
        next(&View {
            sealed,
            opens,
            readable,
            own: ONE,
            leader,
            held: None,
            members: &[ONE, TWO, THREE],
            told: &told,
        })
    }

    #[test]
    fn once_it_is_sealed_who_cannot_open_it_asks_all_who_hold_a_key() {
        assert_eq!(other(true, true, true, Some(ONE)), Step::Rest);
        assert_eq!(other(true, false, true, None), Step::Fetch(vec![TWO, THREE]));
    }

    #[test]
    fn nothing_happens_before_all_could_read_it_or_while_nobody_leads() {
        assert_eq!(other(false, false, false, Some(ONE)), Step::Rest);
        assert_eq!(other(false, false, true, None), Step::Rest);
    }
}
