//! The key of whoever can read this coordinator's folder: it opens everything, as long as this process lives.
//!
//! Owns making it at each start and recognising it. Memory keeps its hash only, the file is the one copy of its text.

use registry::KeyId;

use super::secret::{NewSecret, ShownKey, fresh_secret};

/// In place of an id; no id of the registry has such letters.
const ID: &str = "local";

pub(crate) struct LocalKey {
    hash: blake3::Hash,
    /// Its holder's name in the audit trail.
    pub(crate) name: String,
}

impl LocalKey {
    /// A new one, and its text.
    pub(crate) fn make(replica: u64) -> anyhow::Result<(Self, String)> {
        let NewSecret { text, hash } = fresh_secret(ID)?;
        Ok((Self { hash: blake3::Hash::from_bytes(hash), name: format!("{ID}-{replica}") }, text))
    }

    /// Takes the same time wherever the two differ.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let shown = ShownKey::parse(shown).filter(|shown| shown.id == KeyId(ID.to_owned()));
        shown.is_some_and(|shown| blake3::Hash::from_bytes(shown.hash()) == self.hash)
    }
}
