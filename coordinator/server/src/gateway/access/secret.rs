//! An API key as text: `mlx_<id>_<secret>`.
//!
//! Owns making one and the hash under which the registry keeps its secret. The secret is 256 random bits, so a fast hash is
//! enough: there is nothing to guess. Refuses to show a secret in `Debug`.

use std::fmt;

use registry::KeyId;

use crate::authority;

const PREFIX: &str = "mlx_";
/// Tells this use of the hash from any other.
const HASH_CONTEXT: &str = "mlx-serving 2026 API key secret";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// A secret that was just made. Shown once, to the one who asked for it.
pub(crate) struct NewSecret {
    pub(crate) text: String,
    pub(crate) hash: [u8; 32],
}

/// An id that no key has yet, but for an accident that the registry would notice.
pub(crate) fn fresh_id() -> anyhow::Result<KeyId> {
    Ok(KeyId(authority::random_hex::<ID_BYTES>()?))
}

pub(crate) fn fresh_secret(id: &str) -> anyhow::Result<NewSecret> {
    let secret = authority::random_hex::<SECRET_BYTES>()?;
    Ok(NewSecret { text: format!("{PREFIX}{id}_{secret}"), hash: hash(id, &secret) })
}

/// A key as a client shows it.
pub(crate) struct ShownKey {
    pub(crate) id: KeyId,
    secret: String,
}

impl ShownKey {
    /// `None`: it has another form, so it is nobody's key.
    pub(crate) fn parse(shown: &[u8]) -> Option<Self> {
        let (id, secret) = std::str::from_utf8(shown).ok()?.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: KeyId(id.to_owned()), secret: secret.to_owned() })
    }

    pub(crate) fn hash(&self) -> [u8; 32] {
        hash(&self.id.0, &self.secret)
    }
}

impl fmt::Debug for ShownKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ShownKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The id is a part of it: a secret opens the key it was made for and no other.
fn hash(id: &str, secret: &str) -> [u8; 32] {
    blake3::derive_key(HASH_CONTEXT, format!("{id}_{secret}").as_bytes())
}
