//! The seal key, and what it does to the authority's key: 32 random bytes, ChaCha20-Poly1305.
//!
//! Owns the form of what is sealed: the nonce and the ciphertext, in hex, bound to the cluster and to the authority's certificate, so
//! that neither another cluster's nor another authority's opens in its place. Refuses to be printed: the key has no `Debug`.

use anyhow::Context as _;
use registry::Cluster;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::authority;

const LEN: usize = 32;

/// Tells which key somebody holds, and nothing else of it.
const ID_CONTEXT: &str = "mlx-serving 2026 which seal key this is";

/// Begins what is authenticated with the sealed key: another use of the same key needs another one.
const PURPOSE: &[u8] = b"mlx-serving sealed authority 1";

#[derive(Clone)]
pub(crate) struct SealKey([u8; LEN]);

/// Which seal key.
pub(crate) type SealKeyId = [u8; LEN];

/// What stands in the place of a certificate where the number behind the keyed hashes is sealed; no certificate is this text.
const HASH_KEY: &str = "the number behind keyed hashes";

/// Whose key is sealed.
#[derive(Clone, Copy)]
pub(crate) struct Sealed<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) ca_certificate_pem: &'a str,
}

impl<'a> Sealed<'a> {
    /// The authority that signs.
    pub(crate) fn of(cluster: &'a Cluster) -> Self {
        let former = &cluster.ca_certificate_pem;
        let ca_certificate_pem =
            cluster.rotation.as_ref().map_or(former, |rotation| &rotation.ca_certificate_pem);
        Self { cluster: &cluster.id.0, ca_certificate_pem }
    }

    fn bound(self) -> Vec<u8> {
        let digest = blake3::hash(self.ca_certificate_pem.as_bytes());
        // The digest has one length, so no two pairs give the same bytes.
        [PURPOSE, digest.as_bytes(), self.cluster.as_bytes()].concat()
    }
}

impl SealKey {
    pub(crate) fn make() -> anyhow::Result<Self> {
        authority::random().map(Self)
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As it lies in its file.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::from_bytes(&bytes(text.trim())?)
    }

    pub(crate) fn text(&self) -> String {
        hex(&self.0)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    pub(crate) fn id(&self) -> SealKeyId {
        blake3::derive_key(ID_CONTEXT, &self.0)
    }

    /// The same key sealed twice is two different texts.
    pub(crate) fn seal(&self, whose: Sealed<'_>, key_pem: &str) -> anyhow::Result<String> {
        let nonce: [u8; NONCE_LEN] = authority::random()?;
        let mut text = key_pem.as_bytes().to_vec();
        let cipher = self.cipher().context("sealing the authority's key")?;
        let bound = Aad::from(whose.bound());
        let done = cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text);
        done.ok().context("sealing the authority's key")?;
        Ok(hex(&[nonce.as_slice(), &text].concat()))
    }

    /// The authority's key. `None`: it was sealed with another key or for somebody else, or it was changed since.
    pub(crate) fn open(&self, whose: Sealed<'_>, sealed: &str) -> Option<String> {
        let sealed = bytes(sealed)?;
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut rest = rest.to_vec();
        let opened = self.cipher()?.open_in_place(nonce, Aad::from(whose.bound()), &mut rest).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }

    /// The number behind all keyed hashes, which outlives the key that it was made of.
    pub(crate) fn seal_hash_key(&self, cluster: &str, hash_key: &[u8; 32]) -> anyhow::Result<String> {
        self.seal(Sealed { cluster, ca_certificate_pem: HASH_KEY }, &hex(hash_key))
    }

    pub(crate) fn open_hash_key(&self, cluster: &str, sealed: &str) -> Option<[u8; 32]> {
        bytes(&self.open(Sealed { cluster, ca_certificate_pem: HASH_KEY }, sealed)?)?.try_into().ok()
    }

    fn cipher(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.0).ok().map(LessSafeKey::new)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|char| char.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    if digits.len() % 2 == 1 {
        return None;
    }
    Some(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Sealed<'_> = Sealed { cluster: "room", ca_certificate_pem: "certificate" };
    const PEM: &str = "-----BEGIN PRIVATE KEY-----";

    fn key(byte: u8) -> SealKey {
        SealKey([byte; LEN])
    }

    #[test]
    fn what_is_sealed_opens_and_never_looks_the_same_twice() {
        let (one, two) = (key(1).seal(OURS, PEM).expect("sealed"), key(1).seal(OURS, PEM).expect("sealed"));
        assert_ne!(one, two);
        assert_eq!(key(1).open(OURS, &one).as_deref(), Some(PEM));
        assert_eq!(key(1).open(OURS, &two).as_deref(), Some(PEM));
        assert!(!one.contains(&hex(PEM.as_bytes())), "{one}");
    }

    #[test]
    fn nothing_opens_with_another_key_or_for_another_cluster_or_authority() {
        let sealed = key(1).seal(OURS, PEM).expect("sealed");
        assert_eq!(key(2).open(OURS, &sealed), None);
        assert_eq!(key(1).open(Sealed { cluster: "other", ..OURS }, &sealed), None);
        assert_eq!(key(1).open(Sealed { ca_certificate_pem: "other", ..OURS }, &sealed), None);
    }

    #[test]
    fn the_number_behind_hashes_opens_as_what_it_is_and_as_nothing_else() {
        let sealed = key(1).seal_hash_key("room", &[9; 32]).expect("sealed");
        assert_eq!(key(1).open_hash_key("room", &sealed), Some([9; 32]));
        assert_eq!(key(1).open_hash_key("other", &sealed), None);
        assert_eq!(key(2).open_hash_key("room", &sealed), None);
        assert_eq!(key(1).open(OURS, &sealed), None);
        assert_eq!(key(1).open_hash_key("room", &key(1).seal(OURS, PEM).expect("sealed")), None);
    }

    #[test]
    fn no_bit_of_it_may_flip_and_no_part_be_missing() {
        let sealed = key(1).seal(OURS, PEM).expect("sealed");
        let whole = bytes(&sealed).expect("hex");
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(1).open(OURS, &hex(&flipped)), None, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key(1).open(OURS, &sealed[..length]), None, "{length} digits");
        }
        assert_eq!(key(1).open(OURS, "not hex, nor ascii: é"), None);
    }

    #[test]
    fn a_key_comes_back_from_its_file_and_is_told_from_others_by_its_id() {
        let made = SealKey::make().expect("randomness");
        let again = SealKey::from_text(&format!("{}\n", made.text())).expect("a key");
        assert_eq!((again.id(), again.to_bytes()), (made.id(), made.to_bytes()));
        assert_ne!(made.id(), SealKey::make().expect("randomness").id());
        assert!(!hex(&made.id()).contains(&made.text()));
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(66), &"x".repeat(64)] {
            assert!(SealKey::from_text(bad).is_none(), "{bad}");
        }
    }
}
