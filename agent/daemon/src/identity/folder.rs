//! Where the identity is kept.
//!
//! Owns `identity/` in the data folder, mode 0700: the key, which is made here, never leaves, and is readable by its owner only;
//! and the membership (node, certificate, CA) in one file, so that a crash leaves a whole one or none. Refuses a file it cannot
//! understand rather than joining again behind the operator's back.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proto::token::JoinToken;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::whole_file;

const KEY: &str = "key.pem";
const MEMBERSHIP: &str = "membership.json";

/// What a cluster gave this Mac.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) node: u64,
    pub(crate) cluster: String,
    pub(crate) certificate_pem: String,
    pub(crate) ca_certificate_pem: String,
    /// It was ended: the id of the token that the settings had then, empty if they had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked: Option<String>,
}

impl Membership {
    pub(crate) fn ca_hash(&self) -> Option<[u8; 32]> {
        let ca = CertificateDer::from_pem_slice(self.ca_certificate_pem.as_bytes()).ok()?;
        Some(JoinToken::hash_of(&ca))
    }

    /// Was the token issued by the cluster this Mac is a member of?
    pub(crate) fn is_of(&self, token: &JoinToken) -> bool {
        CertificateDer::from_pem_slice(self.ca_certificate_pem.as_bytes()).is_ok_and(|ca| token.pins(&ca))
    }
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
            revoked: None,
        }
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
        let key = KeyPair::generate().expect("a key");
        let ca = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        let token = |ca_hash| JoinToken { ca_hash, id: "a".to_owned(), secret: vec![0; 24] };
        let kept = membership(&ca.pem());
        assert!(kept.is_of(&token(*blake3::hash(ca.der()).as_bytes())));
        assert!(!kept.is_of(&token([0; 32])));
        assert!(!membership("no certificate").is_of(&token([0; 32])));
    }
}
