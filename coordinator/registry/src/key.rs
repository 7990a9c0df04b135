//! An API key as it is known: what it is called, what it may do, and the hashes of its secrets.
//!
//! Owns the form of a key on disk and whether a secret is one of its own. Refuses to hold a secret, and to show even the hash
//! of one in `Debug`.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::allowance::Allowance;
use crate::{ModelName, secret_hash};

/// What a key lets its holder do. None of them contains another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Ask models.
    Inference,
    /// See how the cluster is: status, queue, explanations, metrics.
    Read,
    /// Change what the cluster knows, keys among it.
    Admin,
}

impl Scope {
    /// Every scope, in the order in which they are listed.
    pub const ALL: [Scope; 3] = [Scope::Inference, Scope::Read, Scope::Admin];

    /// The scope's name, as on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Inference => "inference",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an operator decides about a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What people call it.
    pub name: String,
    /// What it may do; at least one.
    pub scopes: BTreeSet<Scope>,
    /// The models it may ask; absent: every one. They need not be offered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<ModelName>>,
    /// The first moment at which it is no longer good, in milliseconds since 1970; absent: it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_unix_ms: Option<u64>,
    /// How much it may ask for.
    #[serde(default, skip_serializing_if = "Allowance::is_unlimited")]
    pub allowance: Allowance,
}

impl Grant {
    /// Whether the key may ask this model.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|allowed| allowed.as_str() == model))
    }

    /// Its time is over.
    #[must_use]
    pub fn has_expired(&self, now_unix_ms: u64) -> bool {
        self.expires_at_unix_ms.is_some_and(|expires| now_unix_ms >= expires)
    }
}

/// One of the secrets that open a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySecret {
    #[serde(with = "crate::secret_hash")]
    pub(crate) hash: [u8; 32],
    /// When it was made, in milliseconds since 1970.
    pub made_at_unix_ms: u64,
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySecret").field("made_at_unix_ms", &self.made_at_unix_ms).finish_non_exhaustive()
    }
}

/// An API key, good or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What it may do.
    pub grant: Grant,
    /// One more with each change of the grant.
    #[serde(default)]
    pub revision: u64,
    /// When it was made, in milliseconds since 1970.
    pub made_at_unix_ms: u64,
    /// By number; none when it is revoked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) secrets: BTreeMap<u32, KeySecret>,
    /// The number of the last secret that was made, live or not.
    #[serde(default)]
    pub(crate) last_secret: u32,
    /// When it was revoked, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_unix_ms: Option<u64>,
}

impl ApiKey {
    /// It opens nothing, and never will again.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked_at_unix_ms.is_some()
    }

    /// Its live secrets, by number.
    pub fn secrets(&self) -> impl Iterator<Item = (u32, &KeySecret)> {
        self.secrets.iter().map(|(number, secret)| (*number, secret))
    }

    /// The number that its next secret will have.
    #[must_use]
    pub fn next_secret(&self) -> u32 {
        self.last_secret.saturating_add(1)
    }

    /// Whether this is the hash of one of its live secrets. Takes the same time wherever they differ.
    #[must_use]
    pub fn opens_with(&self, hash: &[u8; 32]) -> bool {
        self.secrets.values().fold(false, |opens, secret| opens | secret_hash::same(&secret.hash, hash))
    }
}
