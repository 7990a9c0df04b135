//! This coordinator's own certificate, for a start without the seal key.
//!
//! Owns the file `leaf` in the data folder, mode 0600: what it showed last, and the cluster's number for its hashes, which is made of
//! the authority's key. Refuses to keep anything that signs for others.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proto::identity::Identity;
use proto::tls::{self, Credentials};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::founding::write_secret;
use crate::trust::Trust;

const FILE: &str = "leaf";

/// Where it is kept, and what is kept with it.
#[derive(Clone)]
pub(crate) struct LeafFile {
    file: PathBuf,
    hash_key: [u8; 32],
}

/// On disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    certificate_pem: String,
    key_pem: String,
    ca_certificate_pem: String,
    hash_key: [u8; 32],
}

impl LeafFile {
    pub(crate) fn new(data_folder: &Path, hash_key: [u8; 32]) -> Self {
        Self { file: data_folder.join(FILE), hash_key }
    }

    /// What was kept for this identity; another cluster's, one of an authority that is trusted no more, or one of before the machine
    /// joined anew, is none.
    pub(crate) fn read(data_folder: &Path, trust: &Trust, identity: Identity) -> Option<(Self, Credentials)> {
        let text = std::fs::read_to_string(data_folder.join(FILE)).ok()?;
        let kept: Kept = serde_json::from_str(&text).ok()?;
        let Kept { certificate_pem, key_pem, hash_key, ca_certificate_pem: _ } = kept;
        let ca_certificate_pem = trust.all_pem.clone();
        let credentials = Credentials { certificate_pem, key_pem, ca_certificate_pem };
        let leaf = CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).ok()?;
        let named = Identity::from_leaf(&leaf).ok()?;
        let trusted = tls::authorities(&trust.all_pem).ok()?;
        let ours = named == identity && trusted.iter().any(|authority| tls::signed_by(authority, &leaf));
        ours.then(|| (Self::new(data_folder, hash_key), credentials))
    }

    pub(crate) fn keep(&self, credentials: &Credentials) -> anyhow::Result<()> {
        let Credentials { certificate_pem, key_pem, ca_certificate_pem } = credentials.clone();
        let kept = Kept { certificate_pem, key_pem, ca_certificate_pem, hash_key: self.hash_key };
        write_secret(&self.file, &serde_json::to_string(&kept).context("writing down the certificate")?)
    }

    pub(crate) fn hash_key(&self) -> [u8; 32] {
        self.hash_key
    }
}

#[cfg(test)]
mod tests {
    use proto::identity::Role;

    use super::*;
    use crate::authority::Authority;
    use crate::limits::LEAF_LIFE;

    #[test]
    fn a_leaf_is_found_again_by_the_member_it_is_of_and_by_no_other() {
        let folder = tempfile::tempdir().expect("scratch");
        let own = Identity { role: Role::Coordinator, node: 3 };
        let ca = Authority::create("room").expect("a CA");
        let read = |ca: &str, identity| LeafFile::read(folder.path(), &Trust::first(ca), identity);
        assert!(read(&ca.certificate_pem, own).is_none());
        let authority = Authority::open(&ca.certificate_pem, &ca.key_pem, LEAF_LIFE).expect("opens");
        let credentials = authority.credentials(own).expect("signed");
        LeafFile::new(folder.path(), [7; 32]).keep(&credentials).expect("kept");
        let (file, kept) = read(&ca.certificate_pem, own).expect("there");
        assert_eq!((file.hash_key(), kept.key_pem), ([7; 32], credentials.key_pem));
        let another = Authority::create("room").expect("a CA").certificate_pem;
        assert!(read(&another, own).is_none() && read("no certificate", own).is_none());
        assert!(
            read(&format!("{another}{}", ca.certificate_pem), own).is_some(),
            "the former is trusted still"
        );
        assert!(read(&ca.certificate_pem, Identity { node: 4, ..own }).is_none());
    }
}
