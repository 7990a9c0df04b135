//! How what a client says of itself becomes a number: keyed hashes, with a key for each purpose.
//!
//! Owns the keys, all made from one secret of the cluster: the same client keeps its numbers through a restart, and nobody
//! outside can compute a number or aim at one. Refuses to keep what was hashed, and to let two purposes share a key.

use registry::Digest;

/// The keys of one cluster.
pub(crate) struct HashKeys {
    pub(crate) tenants: HashKey,
    pub(crate) sessions: HashKey,
    pub(crate) prompts: HashKey,
    pub(crate) salts: HashKey,
    /// Of jobs: their names, what is asked, and what is answered.
    pub(crate) jobs: HashKey,
    pub(crate) requests: HashKey,
    pub(crate) answers: HashKey,
    /// Of files.
    pub(crate) pieces: HashKey,
}

/// The key for one purpose, or one link of a chain.
#[derive(Clone, Copy)]
pub(crate) struct HashKey([u8; blake3::KEY_LEN]);

impl HashKeys {
    pub(crate) fn new(cluster: [u8; blake3::KEY_LEN]) -> Self {
        let key = |purpose: &str| HashKey(cluster).derived(&[purpose.as_bytes()]);
        Self {
            tenants: key("tenants"),
            sessions: key("sessions"),
            prompts: key("prompts"),
            salts: key("salts"),
            jobs: key("jobs"),
            requests: key("requests"),
            answers: key("answers"),
            pieces: key("pieces"),
        }
    }
}

impl HashKey {
    /// Differs whenever a part differs, also when the parts are only divided differently.
    pub(crate) fn number(&self, parts: &[&[u8]]) -> u64 {
        self.derived(parts).as_number()
    }

    /// [`Self::number`] where it shall name something for good.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> Digest {
        Digest(self.derived(parts).0)
    }

    /// A key that only those make who have this one and the parts.
    pub(crate) fn derived(&self, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// [`Self::derived`] for one part of a known length: without its length, a kilobyte is one chunk of BLAKE3.
    pub(crate) fn next<const BYTES: usize>(&self, block: &[u8; BYTES]) -> Self {
        Self(*blake3::keyed_hash(&self.0, block).as_bytes())
    }

    pub(crate) fn as_number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_has_a_key_of_its_own() {
        let keys = HashKeys::new([7; 32]);
        let of = |keys: &HashKeys| {
            let HashKeys { tenants, sessions, prompts, salts, jobs, requests, answers, pieces } = keys;
            [tenants, sessions, prompts, salts, jobs, requests, answers, pieces]
                .map(|key| key.number(&[b"same"]))
        };
        let numbers: std::collections::BTreeSet<_> =
            of(&keys).into_iter().chain(of(&HashKeys::new([8; 32]))).collect();
        assert_eq!(numbers.len(), 16, "no purpose and no cluster shares a number with another");
    }

    #[test]
    fn parts_that_are_divided_differently_differ() {
        let key = HashKeys::new([7; 32]).sessions;
        let all: [&[&[u8]]; 5] = [&[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""], &[]];
        let numbers: std::collections::BTreeSet<_> = all.iter().map(|parts| key.number(parts)).collect();
        assert_eq!(numbers.len(), all.len());
        assert_eq!(key.number(&[b"ab", b"c"]), key.number(&[b"ab", b"c"]));
    }

    #[test]
    fn numbers_survive_a_new_version() {
        // A coordinator of another version must not see another tenant. Worked out with another implementation of BLAKE3.
        assert_eq!(HashKeys::new([7; 32]).tenants.number(&[b"token"]), 16_911_287_580_457_418_636);
    }
}
