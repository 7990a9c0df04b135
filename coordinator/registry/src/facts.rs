//! The facts themselves, as they lie in a snapshot.
//!
//! Owns their form. Refuses to show secrets in `Debug`, and to be changed from outside the crate: a reader gets
//! references, and [`crate::Registry::apply`] is the only writer.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::breakers::Breakers;
use crate::rotation::Rotation;
use crate::{ClusterId, ModelName, ModelSource, Placement, Role, TokenId};

/// The founding of the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The name of the cluster.
    pub id: ClusterId,
    /// The certificate of its authority.
    pub ca_certificate_pem: String,
    /// The private key of its authority; empty once it is sealed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca_key_pem: String,
    /// The same, sealed, in lower-case hex: only who has the seal key, which is no fact, can sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_ca_key: Option<String>,
    /// When the plain key was sealed, in milliseconds since 1970. What was written before may hold it; absent: nothing ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_at_unix_ms: Option<u64>,
    /// When it was founded, in milliseconds since 1970.
    pub founded_at_unix_ms: u64,
    /// When the membership of the coordinator that founded it was ended, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder_revoked_at_unix_ms: Option<u64>,
    /// The authority gives way to another one. The certificate and the key above are the former one's until that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// How many rotations are over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rotations: u64,
    /// When the last one ended, in milliseconds since 1970. What was written before holds the former key, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at_unix_ms: Option<u64>,
    /// The number behind all keyed hashes, sealed, in lower-case hex. Absent: it is made of the authority's key, the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_hash_key: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A join token that is out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    #[serde(with = "crate::secret_hash")]
    pub(crate) secret_hash: [u8; 32],
    /// What a joiner becomes.
    pub role: Role,
    /// The first moment at which it is no longer good, in milliseconds since 1970.
    pub expires_at_unix_ms: u64,
    /// How many machines may join with it; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// What it is for, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It was taken back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub revoked: bool,
    /// How many machines became nodes with it.
    #[serde(default)]
    pub used: u32,
}

impl Token {
    /// Nobody has joined with it yet.
    pub(crate) fn fresh(
        secret_hash: [u8; 32],
        role: Role,
        expires_at_unix_ms: u64,
        uses: Option<u32>,
        name: Option<&str>,
    ) -> Self {
        let name = name.map(String::from);
        Token { secret_hash, role, expires_at_unix_ms, uses, name, revoked: false, used: 0 }
    }

    /// No further machine may join with it.
    #[must_use]
    pub fn spent(&self) -> bool {
        self.uses.is_some_and(|uses| self.used >= uses)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("role", &self.role)
            .field("expires_at_unix_ms", &self.expires_at_unix_ms)
            .field("uses", &self.uses)
            .field("used", &self.used)
            .field("name", &self.name)
            .field("revoked", &self.revoked)
            .finish_non_exhaustive()
    }
}

/// A machine that was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What people call it.
    pub name: String,
    /// What it may do; belongs into its certificate.
    pub role: Role,
    /// Fingerprint of its public key, lower-case hex.
    pub public_key: String,
    /// The token it joined with; empty for a coordinator with which another life of the facts began.
    pub token: TokenId,
    /// When it was admitted, in milliseconds since 1970.
    pub admitted_at_unix_ms: u64,
    /// It is no longer a member and never will be.
    #[serde(default)]
    pub revoked: bool,
    /// What it offers; the name is that of the first release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) wanted: BTreeMap<ModelName, ModelSource>,
    /// What it holds; always a part of what it offers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) placed: BTreeMap<ModelName, Placement>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) draining: bool,
    #[serde(default, skip_serializing_if = "Breakers::is_empty")]
    pub(crate) breakers: Breakers,
}

impl Node {
    /// It has nothing yet.
    pub(crate) fn admitted(
        name: &str,
        role: Role,
        public_key: &str,
        token: TokenId,
        admitted_at_unix_ms: u64,
    ) -> Self {
        Node {
            name: name.into(),
            role,
            public_key: public_key.into(),
            token,
            admitted_at_unix_ms,
            revoked: false,
            wanted: BTreeMap::new(),
            placed: BTreeMap::new(),
            budget_bytes: None,
            draining: false,
            breakers: Breakers::default(),
        }
    }
}
