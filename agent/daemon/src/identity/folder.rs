//! Where the identity is kept.
//!
//! Owns `identity/` in the data folder, mode 0700: the key, which is made here, never leaves, and is readable by its owner only;
//! and the membership (node, certificate, CA) in one file, so that a crash leaves a whole one or none. Refuses a file it cannot
//! understand rather than joining again behind the operator's back.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proto::tls::{self, Credentials};
use proto::token::JoinToken;
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};

use crate::{limits, whole_file};

const KEY: &str = "key.pem";
const MEMBERSHIP: &str = "membership.json";

/// What a cluster gave this Mac.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) node: u64,
    pub(crate) cluster: String,
    pub(crate) certificate_pem: String,
    /// All authorities that are trusted, the one that signs first.
    pub(crate) ca_certificate_pem: String,
    /// Hashes of the cluster's authorities of before, in hex, the latest last: a token in the settings may pin one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former_authorities: Vec<String>,
    /// It was ended: the id of the token that the settings had then, empty if they had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<String>,
}

impl Membership {
    /// Of all that are trusted.
    pub(crate) fn ca_hashes(&self) -> Vec<[u8; 32]> {
        let all = tls::authorities(&self.ca_certificate_pem).unwrap_or_default();
        all.iter().map(|authority| JoinToken::hash_of(authority)).collect()
    }

    /// Was the token issued by the cluster this Mac is a member of, under whichever authority?
    pub(crate) fn is_of(&self, token: &JoinToken) -> bool {
        self.is_under(token.ca_hash)
    }

    /// Is that, or was it once, an authority of this Mac's cluster?
    pub(crate) fn is_under(&self, ca_hash: [u8; 32]) -> bool {
        self.ca_hashes().contains(&ca_hash) || self.former_authorities.contains(&hex(ca_hash))
    }

    /// The same membership, under what the cluster gave anew.
    pub(crate) fn renewed(mut self, credentials: Credentials) -> Self {
        let before = self.ca_hashes();
        self.certificate_pem = credentials.certificate_pem;
        self.ca_certificate_pem = credentials.ca_certificate_pem;
        let present = self.ca_hashes();
        let left = before.into_iter().filter(|hash| !present.contains(hash)).map(hex);
        self.former_authorities.extend(left);
        self.former_authorities.retain(|former| !present.iter().any(|hash| hex(*hash) == *former));
        let beyond = self.former_authorities.len().saturating_sub(limits::FORMER_AUTHORITIES);
        self.former_authorities.drain(..beyond);
        self
    }
}

fn hex(hash: [u8; 32]) -> String {
    blake3::Hash::from_bytes(hash).to_hex().to_string()
}

pub(crate) struct IdentityFolder(PathBuf);

impl IdentityFolder {
    pub(crate) fn open(data_folder: &Path) -> anyhow::Result<Self> {
        let folder = data_folder.join("identity");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        // It may have been there before, with another mode.
        let private = made.and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)));
        private.with_context(|| format!("making {} private", folder.display()))?;
        Ok(Self(folder))
    }

    /// The key of this Mac, made on the first call.
    pub(crate) fn key_pem(&self) -> anyhow::Result<String> {
        let path = self.0.join(KEY);
        if let Some(key) = whole_file::read(&path)? {
            KeyPair::from_pem(&key).with_context(|| format!("{} holds no key", path.display()))?;
            return Ok(key);
        }
        self.new_key_pem()
    }

    /// Another key in place of the former one.
    pub(crate) fn new_key_pem(&self) -> anyhow::Result<String> {
        let key = KeyPair::generate().context("making a key")?.serialize_pem();
        whole_file::write(&self.0, KEY, &key)?;
        Ok(key)
    }

    pub(crate) fn membership(&self) -> anyhow::Result<Option<Membership>> {
        let path = self.0.join(MEMBERSHIP);
        let Some(text) = whole_file::read(&path)? else { return Ok(None) };
        let unreadable = || format!("{} cannot be read; remove it and join with a new token", path.display());
        serde_json::from_str(&text).map(Some).with_context(unreadable)
    }

    pub(crate) fn keep(&self, membership: &Membership) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(membership).context("writing down the membership")?;
        whole_file::write(&self.0, MEMBERSHIP, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn membership(ca: &str) -> Membership {
        Membership {
            node: 7,
            cluster: "c".to_owned(),
            certificate_pem: "leaf".to_owned(),
            ca_certificate_pem: ca.to_owned(),
            former_authorities: Vec::new(),
            revoked: None,
        }
    }

    fn ca() -> (String, [u8; 32]) {
        let key = KeyPair::generate().expect("a key");
        let ca = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        (ca.pem(), JoinToken::hash_of(ca.der()))
    }

    #[test]
    fn the_key_is_made_once_and_private() {
        let data = tempfile::tempdir().expect("scratch");
        let folder = IdentityFolder::open(data.path()).expect("opens");
        let key = folder.key_pem().expect("a key");
        assert_eq!(
            IdentityFolder::open(data.path()).and_then(|folder| folder.key_pem()).expect("the key"),
            key
        );
        assert_eq!((mode(&folder.0), mode(&folder.0.join(KEY))), (0o700, 0o600));
    }

    #[test]
    fn a_membership_survives_a_restart_and_leaves_no_parts() {
        let data = tempfile::tempdir().expect("scratch");
        let folder = IdentityFolder::open(data.path()).expect("opens");
        assert_eq!(folder.membership().expect("readable"), None);
        folder.keep(&membership("one")).expect("kept");
        folder.keep(&membership("two")).expect("replaced");
        assert_eq!(folder.membership().expect("readable"), Some(membership("two")));
        assert_eq!(fs::read_dir(&folder.0).expect("readable").count(), 1);
    }

    #[test]
    fn a_damaged_membership_is_an_error_that_says_what_to_do() {
        let data = tempfile::tempdir().expect("scratch");
        let folder = IdentityFolder::open(data.path()).expect("opens");
        fs::write(folder.0.join(MEMBERSHIP), "{").expect("written");
        let words = folder.membership().expect_err("refused").to_string();
        assert!(words.contains("new token"), "{words}");
    }

    #[test]
    fn a_token_belongs_to_the_cluster_whose_ca_it_pins() {
        let (pem, hash) = ca();
        let token = |ca_hash| JoinToken { ca_hash, id: "a".to_owned(), secret: vec![0; 24] };
        let kept = membership(&pem);
        assert!(kept.is_of(&token(hash)));
        assert!(!kept.is_of(&token([0; 32])));
        assert!(!membership("no certificate").is_of(&token([0; 32])));
    }

    #[test]
    fn a_token_of_an_authority_of_before_is_still_the_same_clusters() {
        let ((former, former_hash), (new, new_hash)) = (ca(), ca());
        let token = |ca_hash| JoinToken { ca_hash, id: "a".to_owned(), secret: vec![0; 24] };
        let given = |ca: &str| Credentials {
            certificate_pem: "leaf".to_owned(),
            key_pem: String::new(),
            ca_certificate_pem: ca.to_owned(),
        };
        let both = membership(&former).renewed(given(&format!("{new}{former}")));
        assert_eq!((both.ca_hashes(), both.former_authorities.len()), (vec![new_hash, former_hash], 0));
        let over = both.renewed(given(&new)).renewed(given(&new));
        assert_eq!((over.ca_hashes(), over.former_authorities.len()), (vec![new_hash], 1));
        assert!(
            over.is_of(&token(former_hash)) && over.is_of(&token(new_hash)) && !over.is_of(&token([0; 32]))
        );
        let mut last = over;
        for _ in 0..20 {
            last = last.renewed(given(&ca().0));
        }
        assert_eq!(last.former_authorities.len(), limits::FORMER_AUTHORITIES);
        assert!(last.is_of(&token(last.ca_hashes()[0])) && !last.is_of(&token(former_hash)));
    }
}
