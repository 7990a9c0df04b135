//! The fields that administrators fill, and the words for their rules.
//!
//! Owns what belongs to API keys and to the audit trail. Refuses to check: that is done where the field is used.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A field of an API key, or of what administrators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyField {
    /// The id of an API key.
    Id,
    /// The name of an API key.
    Name,
    /// The scopes of an API key.
    Scopes,
    /// The models of an API key.
    Models,
    /// The bounds of what an API key may ask for.
    Allowance,
    /// What a gateway tells of usage.
    Usage,
    /// Who asked for a change.
    By,
    /// The words for a change.
    Action,
    /// What is noted in the audit trail.
    Audited,
}

/// The rule.
impl fmt::Display for KeyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id_max = limits::ID_BYTES_MAX;
        match self {
            KeyField::Id => write!(f, "the id of an API key is 1 to {id_max} digits of lower-case hex"),
            KeyField::Name => write!(
                f,
                "the name of an API key has 1 to {} bytes and no control characters",
                limits::KEY_NAME_BYTES_MAX
            ),
            KeyField::Scopes => {
                f.write_str("an API key must have at least one of the scopes inference, read and admin")
            }
            KeyField::Models => write!(
                f,
                "the list of an API key's models has 1 to {} names; without a list it may ask every model",
                limits::MODELS_PER_KEY_MAX
            ),
            KeyField::Allowance => write!(
                f,
                "each bound of what an API key may ask for is a number from 1 to {}, or absent",
                limits::ALLOWANCE_MAX
            ),
            KeyField::Usage => write!(
                f,
                "a report of usage has a number from 1 on, and 1 to {} keys",
                limits::USAGE_KEYS_MAX
            ),
            KeyField::By => {
                write!(f, "who asked for a change has a name of 1 to {id_max} letters, digits, '_' or '-'")
            }
            KeyField::Action => write!(
                f,
                "what was asked for has 1 to {} bytes without control characters",
                limits::AUDIT_ACTION_BYTES_MAX
            ),
            KeyField::Audited => f.write_str("what the audit trail notes must be a command of its own"),
        }
    }
}
