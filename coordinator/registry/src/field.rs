//! The fields of commands that have a rule: the rules that several share, and the words for each.
//!
//! Owns what a text must look like before it becomes a fact. Refuses to repeat a text that breaks its rule, because it may
//! be a stranger's and ends up in a terminal.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::batch_field::BatchField;
use crate::key_field::KeyField;
use crate::limits;
use crate::reply::Refusal;

/// A field with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The id of a cluster.
    ClusterId,
    /// The certificate of the authority.
    CaCertificate,
    /// The private key of the authority.
    CaKey,
    /// The private key of the authority, sealed.
    SealedCaKey,
    /// When a rotation of the authority is over at the latest.
    RotationEnd,
    /// The id of a token.
    TokenId,
    /// How often a token may be used.
    TokenUses,
    /// What a token is for.
    TokenName,
    /// The name of a machine.
    NodeName,
    /// The fingerprint of a public key.
    PublicKey,
    /// The path of a model folder.
    ModelPath,
    /// The id of a model on a hub.
    HubId,
    /// What is reserved for a model.
    PlacementBytes,
    /// The fewest and the most replicas of a model.
    Replicas,
    /// Why a breaker moved.
    BreakerWhy,
    /// When a quarantine ends.
    QuarantineEnd,
    /// The digest of a model card.
    CardDigest,
    /// The golden ids of a model.
    GoldenIds,
    /// Who joins and who leaves the coordinators.
    VoterChange,
    /// The address of a coordinator.
    ReplicaAddress,
    /// Who has the answer of a job.
    JobHolders,
    /// A field of a file or of a batch.
    Batch(BatchField),
    /// A field of an API key, or of what administrators do.
    Key(KeyField),
}

/// Ids end up in file names, URLs and tables.
pub(crate) fn check_id(text: &str, what: Field) -> Result<(), Refusal> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    check(!text.is_empty() && text.len() <= limits::ID_BYTES_MAX && text.bytes().all(allowed), what)
}

/// Lines end up in tables and terminals.
pub(crate) fn check_line(text: &str, bytes_max: usize, what: Field) -> Result<(), Refusal> {
    check(!text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control), what)
}

/// Hashes in their one form, so that equal ones are equal texts.
pub(crate) fn check_hex(text: &str, bytes_max: usize, what: Field) -> Result<(), Refusal> {
    let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    check(!text.is_empty() && text.len() <= bytes_max && hex, what)
}

fn check(fine: bool, what: Field) -> Result<(), Refusal> {
    if fine { Ok(()) } else { Err(Refusal::Malformed { what }) }
}

/// The rule.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id_max = limits::ID_BYTES_MAX;
        match self {
            Field::ClusterId => write!(f, "a cluster id has 1 to {id_max} letters, digits, '_' or '-'"),
            Field::TokenId => write!(f, "a token id has 1 to {id_max} letters, digits, '_' or '-'"),
            Field::CaCertificate | Field::CaKey | Field::SealedCaKey | Field::RotationEnd => {
                authority(*self, f)
            }
            Field::TokenUses => f.write_str("a join token must be good for at least one use"),
            Field::TokenName => write!(
                f,
                "what a join token is for has 1 to {} bytes and no control characters",
                limits::NODE_NAME_BYTES_MAX
            ),
            Field::NodeName => write!(
                f,
                "a machine's name has 1 to {} bytes and no control characters",
                limits::NODE_NAME_BYTES_MAX
            ),
            Field::PublicKey => write!(
                f,
                "a key's fingerprint is 1 to {} digits of lower-case hex",
                limits::FINGERPRINT_BYTES_MAX
            ),
            Field::ModelPath => write!(
                f,
                "a model folder is an absolute path of at most {} bytes without control characters",
                limits::MODEL_PATH_BYTES_MAX
            ),
            Field::HubId => write!(
                f,
                "a hub id is made of letters, digits, '.', '_', '-' and '/', at most {} bytes",
                limits::MODEL_NAME_BYTES_MAX
            ),
            Field::PlacementBytes => f.write_str("a placement must reserve at least one byte"),
            Field::Replicas => f.write_str("a model's fewest replicas must not be more than its most"),
            Field::BreakerWhy => write!(
                f,
                "a breaker's move has a reason of 1 to {} bytes without control characters",
                limits::BREAKER_WHY_BYTES_MAX
            ),
            Field::QuarantineEnd => f.write_str("a quarantine must end after it begins"),
            Field::CardDigest => write!(
                f,
                "the digest of a model card is 1 to {} digits of lower-case hex",
                limits::CARD_DIGEST_BYTES_MAX
            ),
            Field::GoldenIds => {
                write!(f, "the canary's answer has 1 to {} ids", limits::GOLDEN_IDS_MAX)
            }
            Field::VoterChange => write!(
                f,
                "a change of the coordinators must name 1 to {} of them, and none both to stay and to leave",
                limits::REPLICAS_MAX
            ),
            Field::ReplicaAddress => write!(
                f,
                "a coordinator's address has 1 to {} bytes and no control characters",
                limits::REPLICA_ADDRESS_BYTES_MAX
            ),
            Field::JobHolders => {
                write!(f, "a kept answer must be held by 1 to {} coordinators", limits::REPLICAS_MAX)
            }
            Field::Batch(field) => write!(f, "{field}"),
            Field::Key(field) => write!(f, "{field}"),
        }
    }
}

fn authority(field: Field, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (pem_max, sealed_max) = (limits::PEM_BYTES_MAX, limits::SEALED_KEY_BYTES_MAX);
    if field == Field::CaCertificate {
        return write!(f, "the authority's certificate must be PEM of 1 to {pem_max} bytes");
    }
    if field == Field::CaKey {
        return write!(f, "the authority's private key must be PEM of 1 to {pem_max} bytes");
    }
    if field == Field::SealedCaKey {
        return write!(f, "the authority's sealed key is 1 to {sealed_max} digits of lower-case hex");
    }
    let days = limits::ROTATION_MS_MAX / (24 * 3_600_000);
    write!(f, "a rotation of the authority must end after it begins, and within {days} days")
}
