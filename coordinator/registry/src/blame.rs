//! Which requests killed runtimes, and which of them may not run for now.
//!
//! Owns the count of deaths by fingerprint and the quarantines, both bounded. Refuses to know the request itself, and to
//! decide when a count is too high: that is the scheduler's.

use alloc::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};
use crate::{Field, Fingerprint, NodeId};

/// One runtime that died. The order is that of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Death {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Where.
    pub node: NodeId,
}

/// What a request is charged with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// A set, so that a death that is reported twice is one.
    #[serde(default)]
    deaths: BTreeSet<Death>,
}

impl Charge {
    /// The deaths, the oldest first; of very many only the last [`limits::DEATHS_PER_CHARGE_MAX`].
    pub fn deaths(&self) -> impl Iterator<Item = &Death> {
        self.deaths.iter()
    }
}

/// A request that may not run for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// When it was decided, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The first moment at which the request may run again, in milliseconds since 1970.
    pub until_unix_ms: u64,
}

/// All charges and quarantines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blame {
    #[serde(default)]
    charges: BTreeMap<Fingerprint, Charge>,
    #[serde(default)]
    quarantines: BTreeMap<Fingerprint, Quarantine>,
}

impl Registry {
    /// A node that was revoked since may still be where the runtime died.
    pub(crate) fn charge(&mut self, fingerprint: Fingerprint, death: Death) -> Result<Reply, Refusal> {
        if !self.nodes.contains_key(&death.node) {
            return Err(Refusal::UnknownNode { node: death.node });
        }
        let charges = &mut self.blame.charges;
        if !charges.contains_key(&fingerprint) {
            make_room(charges, limits::CHARGES_MAX, |charge| charge.deaths.last().copied());
        }
        let deaths = &mut charges.entry(fingerprint).or_default().deaths;
        if deaths.contains(&death) {
            return Ok(Reply::AlreadySo);
        }
        while deaths.len() >= limits::DEATHS_PER_CHARGE_MAX {
            deaths.pop_first();
        }
        deaths.insert(death);
        Ok(Reply::Done)
    }

    pub(crate) fn quarantine(
        &mut self,
        fingerprint: Fingerprint,
        at_unix_ms: u64,
        until_unix_ms: u64,
    ) -> Result<Reply, Refusal> {
        let new = Quarantine { at_unix_ms, until_unix_ms };
        if new.until_unix_ms <= new.at_unix_ms {
            return Err(Refusal::Malformed { what: Field::QuarantineEnd });
        }
        let quarantines = &mut self.blame.quarantines;
        match quarantines.get(&fingerprint) {
            Some(known) if known.until_unix_ms >= new.until_unix_ms => return Ok(Reply::AlreadySo),
            Some(_) => {}
            None => make_room(quarantines, limits::QUARANTINES_MAX, |known| known.until_unix_ms),
        }
        quarantines.insert(fingerprint, new);
        Ok(Reply::Done)
    }

    pub(crate) fn pardon(&mut self, fingerprint: Fingerprint) -> Reply {
        let charged = self.blame.charges.remove(&fingerprint).is_some();
        let quarantined = self.blame.quarantines.remove(&fingerprint).is_some();
        if charged || quarantined { Reply::Done } else { Reply::AlreadySo }
    }

    /// How many runtimes died while the request ran; counted up to [`limits::DEATHS_PER_CHARGE_MAX`].
    #[must_use]
    pub fn deaths(&self, fingerprint: Fingerprint) -> usize {
        self.blame.charges.get(&fingerprint).map_or(0, |charge| charge.deaths.len())
    }

    /// Every request that is charged with a death, by fingerprint.
    pub fn charges(&self) -> impl Iterator<Item = (Fingerprint, &Charge)> {
        self.blame.charges.iter().map(|(fingerprint, charge)| (*fingerprint, charge))
    }

    /// The quarantine that keeps the request from running at this time.
    #[must_use]
    pub fn quarantined(&self, fingerprint: Fingerprint, now_unix_ms: u64) -> Option<&Quarantine> {
        let known = self.blame.quarantines.get(&fingerprint);
        known.filter(|quarantine| now_unix_ms < quarantine.until_unix_ms)
    }

    /// Every quarantine that is remembered, also those that are over, by fingerprint.
    pub fn quarantines(&self) -> impl Iterator<Item = (Fingerprint, &Quarantine)> {
        self.blame.quarantines.iter().map(|(fingerprint, quarantine)| (*fingerprint, quarantine))
    }
}

impl Blame {
    pub(crate) fn is_empty(&self) -> bool {
        self.charges.is_empty() && self.quarantines.is_empty()
    }
}

/// Forgets the entries of least rank until one more fits; of equals the one with the lowest fingerprint.
fn make_room<T, R: Ord>(entries: &mut BTreeMap<Fingerprint, T>, limit: usize, rank: impl Fn(&T) -> R) {
    while entries.len() >= limit {
        let least = entries.iter().min_by_key(|(_, entry)| rank(entry)).map(|(key, _)| *key);
        let Some(least) = least else { break };
        entries.remove(&least);
    }
}
