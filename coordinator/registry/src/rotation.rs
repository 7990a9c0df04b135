//! The authority gives way to another one, without a moment in which a member trusts nobody.
//!
//! Owns the two that there are meanwhile, who has a certificate of the new one, and when the former is trusted no more: when every
//! member has moved, when what it signed has run out, or when an operator abandons who has not. One at a time. Refuses to know
//! keys and certificates from within: that the new one is certified by the former is for the proposer to be sure of, who made it.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ca_refusal::CaRefusal;
use crate::facts::Cluster;
use crate::field::{Field, check_hex};
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};
use crate::sealing::{check_pem, check_sealed};
use crate::{NodeId, Role};

/// Among the members of a rotation: the coordinator that founded the cluster, which was never admitted. No node has this number.
pub const FOUNDER: NodeId = NodeId(0);

/// What happens to the rotation of a number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaStep {
    /// It begins: the new authority signs from here on, and both are trusted.
    Begin {
        /// The new authority's certificate.
        ca_certificate_pem: String,
        /// Its key, certified by the former authority, for whoever knows only that one.
        cross_certificate_pem: String,
        /// Its private key, sealed; lower-case hex.
        sealed_ca_key: String,
        /// The number behind all keyed hashes, sealed. It was made of the first authority's key, which will be gone; kept when
        /// there is none yet.
        sealed_hash_key: String,
        /// What the former authority signed has run out by then.
        until_unix_ms: u64,
    },
    /// These members show certificates of the new authority and trust it.
    Move {
        /// By the numbers of their nodes; the founder is 0.
        members: BTreeSet<NodeId>,
    },
    /// The former authority is trusted no more.
    End {
        /// Whoever has not moved is given up.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        abandon: bool,
    },
}

impl fmt::Debug for CaStep {
    /// Without keys and certificates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaStep::Begin { until_unix_ms, .. } => {
                f.debug_struct("Begin").field("until_unix_ms", until_unix_ms).finish_non_exhaustive()
            }
            CaStep::Move { members } => f.debug_struct("Move").field("members", members).finish(),
            CaStep::End { abandon } => f.debug_struct("End").field("abandon", abandon).finish(),
        }
    }
}

/// A rotation that is under way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// One more than that of the one before; the first is 1.
    pub number: u64,
    /// The new authority's certificate.
    pub ca_certificate_pem: String,
    /// Its key, certified by the former authority.
    pub cross_certificate_pem: String,
    /// Its private key, sealed; lower-case hex.
    pub sealed_ca_key: String,
    /// When it began, in milliseconds since 1970.
    pub began_at_unix_ms: u64,
    /// What the former authority signed has run out by then.
    pub until_unix_ms: u64,
    /// Who shows certificates of the new authority and trusts it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub moved: BTreeSet<NodeId>,
}

impl Registry {
    pub(crate) fn rotate(&mut self, number: u64, step: &CaStep, at: u64) -> Result<Reply, Refusal> {
        let (last, under_way) = {
            let cluster = self.cluster.as_ref().ok_or(Refusal::NotFounded)?;
            (cluster.rotations, cluster.rotation.as_ref().map(|rotation| rotation.number))
        };
        if number <= last {
            return Ok(Reply::AlreadySo);
        }
        match (step, under_way) {
            (CaStep::Begin { .. }, Some(known)) if known == number => Ok(Reply::AlreadySo),
            (CaStep::Begin { .. }, None) if number == last.saturating_add(1) => self.begin(number, step, at),
            (CaStep::Move { members }, Some(known)) if known == number => self.moved(members),
            (CaStep::End { abandon }, Some(known)) if known == number => self.end(*abandon, at),
            (CaStep::Begin { .. } | CaStep::Move { .. } | CaStep::End { .. }, _) => {
                Err(Refusal::Ca(CaRefusal::OutOfTurn { number, last, under_way }))
            }
        }
    }

    /// Everybody who holds a certificate.
    fn certified(&self) -> impl Iterator<Item = NodeId> {
        let founder = !self.is_founder_revoked() && !self.is_replica_removed(replica_of(FOUNDER));
        let holds = |(id, node): (NodeId, &crate::Node)| {
            let holds = match node.role {
                Role::Agent => !node.revoked,
                Role::Coordinator => !node.revoked && !self.is_replica_removed(replica_of(id)),
                Role::Client => false,
            };
            holds.then_some(id)
        };
        founder.then_some(FOUNDER).into_iter().chain(self.nodes().filter_map(holds))
    }

    /// Who has not moved, in the rotation that is under way.
    #[must_use]
    pub fn awaited(&self) -> BTreeSet<NodeId> {
        let rotation = self.cluster.as_ref().and_then(|cluster| cluster.rotation.as_ref());
        let Some(rotation) = rotation else { return BTreeSet::new() };
        self.certified().filter(|member| !rotation.moved.contains(member)).collect()
    }

    fn begin(&mut self, number: u64, step: &CaStep, at: u64) -> Result<Reply, Refusal> {
        let CaStep::Begin {
            ca_certificate_pem,
            cross_certificate_pem,
            sealed_ca_key,
            sealed_hash_key,
            until_unix_ms,
        } = step
        else {
            // No other step begins one.
            return Ok(Reply::AlreadySo);
        };
        check_pem(ca_certificate_pem, Field::CaCertificate)?;
        check_pem(cross_certificate_pem, Field::CaCertificate)?;
        check_sealed(sealed_ca_key)?;
        check_hex(sealed_hash_key, limits::SEALED_KEY_BYTES_MAX, Field::SealedCaKey)?;
        let lasts = until_unix_ms.saturating_sub(at);
        if lasts == 0 || lasts > limits::ROTATION_MS_MAX {
            return Err(Refusal::Malformed { what: Field::RotationEnd });
        }
        let cluster = self.cluster.as_mut().ok_or(Refusal::NotFounded)?;
        if cluster.sealed_ca_key.is_none() {
            return Err(Refusal::Ca(CaRefusal::NotSealed));
        }
        if cluster.ca_certificate_pem == *ca_certificate_pem {
            return Err(Refusal::Malformed { what: Field::CaCertificate });
        }
        cluster.sealed_hash_key.get_or_insert_with(|| sealed_hash_key.clone());
        cluster.rotation = Some(Rotation {
            number,
            ca_certificate_pem: ca_certificate_pem.clone(),
            cross_certificate_pem: cross_certificate_pem.clone(),
            sealed_ca_key: sealed_ca_key.clone(),
            began_at_unix_ms: at,
            until_unix_ms: *until_unix_ms,
            moved: BTreeSet::new(),
        });
        Ok(Reply::Done)
    }

    /// Who is no member is passed over: it may have been revoked since.
    fn moved(&mut self, members: &BTreeSet<NodeId>) -> Result<Reply, Refusal> {
        let news: BTreeSet<_> = self.awaited().intersection(members).copied().collect();
        let cluster = self.cluster.as_mut().ok_or(Refusal::NotFounded)?;
        let Some(rotation) = cluster.rotation.as_mut().filter(|_| !news.is_empty()) else {
            return Ok(Reply::AlreadySo);
        };
        rotation.moved.extend(news);
        Ok(Reply::Done)
    }

    /// Decides in this order: an operator said so; time is up; nobody is missing. Otherwise not.
    fn end(&mut self, abandon: bool, at: u64) -> Result<Reply, Refusal> {
        let missing = self.awaited().len();
        let cluster = self.cluster.as_mut().ok_or(Refusal::NotFounded)?;
        let over = |rotation: &Rotation| abandon || at >= rotation.until_unix_ms || missing == 0;
        let Some(rotation) = cluster.rotation.take_if(|rotation| over(rotation)) else {
            return Err(Refusal::Ca(CaRefusal::Awaited { missing }));
        };
        cluster.succeed(rotation, at);
        Ok(Reply::Done)
    }
}

impl Cluster {
    /// The one authority from now on. Nothing of the former one stays among the facts.
    fn succeed(&mut self, rotation: Rotation, at: u64) {
        self.ca_certificate_pem = rotation.ca_certificate_pem;
        self.sealed_ca_key = Some(rotation.sealed_ca_key);
        self.ca_key_pem = String::new();
        self.rotations = rotation.number;
        self.rotated_at_unix_ms = Some(at);
    }
}

/// A coordinator votes under the number after its node's, as its certificate says.
fn replica_of(node: NodeId) -> u64 {
    node.0.saturating_add(1)
}
