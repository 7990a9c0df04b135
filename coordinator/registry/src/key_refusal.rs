//! Why a command about an API key changed nothing.
//!
//! Owns these reasons and their words: which key, what to do. Refuses to speak to whoever shows a key: these are answers to an
//! administrator.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::KeyId;

/// An API key is not as the command needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyRefusal {
    /// There is no such key.
    Unknown {
        /// The id asked for.
        key: KeyId,
    },
    /// It was revoked.
    Revoked {
        /// The key.
        key: KeyId,
    },
    /// Another key has this id.
    IdTaken {
        /// The id.
        key: KeyId,
    },
    /// It was changed since it was looked at.
    StaleRevision {
        /// The key.
        key: KeyId,
        /// The revision that the change would have made.
        revision: u64,
        /// The one that comes next.
        next: u64,
    },
    /// The secret is not its next one.
    SecretOutOfTurn {
        /// The key.
        key: KeyId,
        /// The number it was given.
        number: u32,
        /// The one that comes next.
        next: u32,
    },
    /// It never had this secret.
    UnknownSecret {
        /// The key.
        key: KeyId,
        /// The number asked for.
        number: u32,
    },
    /// The secret is the only one that it has.
    LastSecret {
        /// The key.
        key: KeyId,
        /// The secret.
        number: u32,
    },
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRefusal::Unknown { key } => {
                write!(f, "there is no API key {key}; see them with `mlx-serving keys ls`")
            }
            KeyRefusal::Revoked { key } => write!(
                f,
                "API key {key} was revoked for ever; make another one with `mlx-serving keys create`"
            ),
            KeyRefusal::IdTaken { key } => {
                write!(f, "another API key has the id {key}; create one with another id")
            }
            KeyRefusal::StaleRevision { key, revision, next } => write!(
                f,
                "API key {key} was changed by somebody else: revision {revision} was to be made, and {next} comes next; \
                 look at it with `mlx-serving keys show` and change it again"
            ),
            KeyRefusal::SecretOutOfTurn { key, number, next } => write!(
                f,
                "secret {number} of API key {key} is out of turn, {next} comes next; look at the key with \
                 `mlx-serving keys show` and ask again"
            ),
            KeyRefusal::UnknownSecret { key, number } => write!(
                f,
                "API key {key} never had a secret {number}; see which it has with `mlx-serving keys show`"
            ),
            KeyRefusal::LastSecret { key, number } => write!(
                f,
                "secret {number} is the only one of API key {key}; add another one first with `mlx-serving keys rotate`, \
                 or end the key with `mlx-serving keys revoke`"
            ),
        }
    }
}
