//! The authority's key among the facts: plain, as it was founded by older releases, or sealed.
//!
//! Owns the founding, which writes the key, and its change from plain to sealed, never back; another authority comes by `rotation.rs`. Refuses
//! to know the seal key, so it cannot tell whether a sealed key opens: that is for the proposer to be sure of, who sealed it.

use alloc::string::String;

use crate::facts::Cluster;
use crate::field::{Field, check_hex, check_id};
use crate::limits;
use crate::registry::Registry;
use crate::reply::{Refusal, Reply};
use crate::{ClusterId, ClusterVersion};

/// The authority's key as a founding brings it.
pub(crate) enum Key<'a> {
    Plain(&'a str),
    Sealed(&'a str),
}

impl Registry {
    pub(crate) fn found(
        &mut self,
        id: &ClusterId,
        certificate: &str,
        key: &Key<'_>,
        at: u64,
    ) -> Result<Reply, Refusal> {
        if self.cluster.is_some() {
            return Err(Refusal::AlreadyFounded);
        }
        check_id(&id.0, Field::ClusterId)?;
        check_pem(certificate, Field::CaCertificate)?;
        let (plain, sealed) = match key {
            Key::Plain(key) => {
                check_pem(key, Field::CaKey)?;
                (String::from(*key), None)
            }
            Key::Sealed(key) => {
                check_sealed(key)?;
                self.cluster_version = self.cluster_version.max(ClusterVersion::THIRD);
                (String::new(), Some(String::from(*key)))
            }
        };
        self.cluster = Some(Cluster {
            id: id.clone(),
            ca_certificate_pem: String::from(certificate),
            ca_key_pem: plain,
            sealed_ca_key: sealed,
            sealed_at_unix_ms: None,
            founded_at_unix_ms: at,
            founder_revoked_at_unix_ms: None,
            rotation: None,
            rotations: 0,
            rotated_at_unix_ms: None,
            sealed_hash_key: None,
        });
        Ok(Reply::Done)
    }

    /// Two leaders in a row may both seal: the first word stands, since the key may have been thrown away that opens the second.
    pub(crate) fn seal(&mut self, sealed: &str, at: u64) -> Result<Reply, Refusal> {
        check_sealed(sealed)?;
        let cluster = self.cluster.as_mut().ok_or(Refusal::NotFounded)?;
        if cluster.sealed_ca_key.is_some() {
            return Ok(Reply::AlreadySo);
        }
        cluster.sealed_ca_key = Some(String::from(sealed));
        cluster.sealed_at_unix_ms = Some(at);
        cluster.ca_key_pem = String::new();
        Ok(Reply::Done)
    }
}

/// Only the size is looked at; whether it is PEM was the proposer's to find out, who made it.
pub(crate) fn check_pem(pem: &str, what: Field) -> Result<(), Refusal> {
    let fine = !pem.is_empty() && pem.len() <= limits::PEM_BYTES_MAX;
    if fine { Ok(()) } else { Err(Refusal::Malformed { what }) }
}

pub(crate) fn check_sealed(key: &str) -> Result<(), Refusal> {
    check_hex(key, limits::SEALED_KEY_BYTES_MAX, Field::SealedCaKey)
}
