//! How a rotation of the authority begins: another authority, known to whoever trusts the present one.
//!
//! Owns the command that begins it. Refuses to begin one where the present key or the seal key is not at hand, and to let either key
//! be seen.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use registry::{CaStep, Cluster, Command};

use crate::authority::Authority;
use crate::limits;
use crate::seal::{self, CANNOT_SIGN, Keyring, Sealed};

/// `at_unix_ms`: now.
pub(crate) fn begin(
    cluster: &Cluster,
    authority: &Authority,
    keyring: &Keyring,
    at_unix_ms: u64,
) -> anyhow::Result<Command> {
    let number = cluster.rotations.saturating_add(1);
    let present = seal::opened(cluster, keyring).context(CANNOT_SIGN)?;
    let hash_key = seal::hash_key(cluster, keyring).context(CANNOT_SIGN)?;
    let key = keyring.key().context(CANNOT_SIGN)?;
    let lasts = authority.leaf_life().min(Duration::from_millis(registry::limits::ROTATION_MS_MAX));
    let next = Authority::successor(
        (&cluster.ca_certificate_pem, &present),
        &cluster.id.0,
        number,
        SystemTime::now() + lasts + limits::CROSS_LINGERS,
    )?;
    let whose = Sealed { cluster: &cluster.id.0, ca_certificate_pem: &next.certificate_pem };
    let until_unix_ms =
        at_unix_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)).max(at_unix_ms + 1);
    let step = CaStep::Begin {
        sealed_ca_key: key.seal(whose, &next.key_pem)?,
        sealed_hash_key: key.seal_hash_key(&cluster.id.0, &hash_key)?,
        ca_certificate_pem: next.certificate_pem,
        cross_certificate_pem: next.cross_pem,
        until_unix_ms,
    };
    Ok(Command::RotateCa { number, step, at_unix_ms })
}

#[cfg(test)]
mod tests {
    use proto::identity::{Identity, Role};
    use proto::tls;
    use registry::{ClusterId, ClusterVersion, Registry, Reply};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::seal::SealKey;
    use crate::trust::Trust;

    const OWN: Identity = Identity { role: Role::Coordinator, node: 1 };

    struct Stage {
        _folder: tempfile::TempDir,
        facts: Registry,
        keyring: Keyring,
        authority: Authority,
    }

    fn stage() -> Stage {
        let folder = tempfile::tempdir().expect("scratch");
        let keyring = Keyring::open(folder.path()).expect("opens");
        let key = SealKey::make().expect("random");
        keyring.put(key.clone()).expect("kept");
        let ca = Authority::create("room").expect("a CA");
        let whose = Sealed { cluster: "room", ca_certificate_pem: &ca.certificate_pem };
        let mut facts = Registry::default();
        for command in [
            Command::FoundSealed {
                cluster: ClusterId("room".to_owned()),
                sealed_ca_key: key.seal(whose, &ca.key_pem).expect("sealed"),
                ca_certificate_pem: ca.certificate_pem.clone(),
                at_unix_ms: 1,
            },
            Command::RaiseVersion { to: ClusterVersion::NEWEST, at_unix_ms: 1 },
        ] {
            assert_eq!(facts.apply(&command), Reply::Done);
        }
        let authority = Authority::open(&ca.certificate_pem, &ca.key_pem, limits::LEAF_LIFE).expect("opens");
        Stage { _folder: folder, facts, keyring, authority }
    }

    impl Stage {
        fn cluster(&self) -> &Cluster {
            self.facts.cluster().expect("founded")
        }

        fn step(&mut self, command: &Command) {
            assert_eq!(self.facts.apply(command), Reply::Done);
            let trust = Trust::of(self.cluster());
            let key = seal::opened(self.cluster(), &self.keyring).expect("opens");
            self.authority.take_up(&trust, Some(&key)).expect("a key of this authority");
        }

        fn begin(&self) -> Command {
            begin(self.cluster(), &self.authority, &self.keyring, 5).expect("made")
        }
    }

    #[test]
    fn the_new_authority_signs_and_is_known_to_whoever_trusts_the_former() {
        let mut stage = stage();
        let before = stage.authority.credentials(OWN).expect("signed");
        let hashes = seal::hash_key(stage.cluster(), &stage.keyring);
        let begin = stage.begin();
        stage.step(&begin);
        let during = stage.authority.credentials(OWN).expect("signed");
        let leaf = CertificateDer::from_pem_slice(during.certificate_pem.as_bytes()).expect("PEM");
        assert!(tls::vouches(&during.ca_certificate_pem, &leaf));
        assert!(!tls::vouches(&before.ca_certificate_pem, &leaf));
        assert_eq!(
            tls::authorities(&during.certificate_pem).expect("PEM").len(),
            2,
            "and by whom it is known"
        );
        assert_eq!(tls::authorities(&during.ca_certificate_pem).expect("PEM").len(), 2);
        stage.step(&Command::RotateCa { number: 1, step: CaStep::End { abandon: true }, at_unix_ms: 6 });
        let after = stage.authority.credentials(OWN).expect("signed");
        assert_eq!(tls::authorities(&after.certificate_pem).expect("PEM").len(), 1);
        let leaf = CertificateDer::from_pem_slice(after.certificate_pem.as_bytes()).expect("PEM");
        assert!(tls::vouches(&after.ca_certificate_pem, &leaf));
        assert_eq!(
            seal::hash_key(stage.cluster(), &stage.keyring),
            hashes,
            "what was hashed before is found"
        );
        let begin = stage.begin();
        stage.step(&begin);
        assert_eq!(seal::hash_key(stage.cluster(), &stage.keyring), hashes, "for ever");
    }

    #[test]
    fn it_ends_when_the_last_certificate_of_the_former_authority_does() {
        let stage = stage();
        let Command::RotateCa { number, step: CaStep::Begin { until_unix_ms, .. }, at_unix_ms } =
            stage.begin()
        else {
            panic!("another command");
        };
        assert_eq!((number, at_unix_ms), (1, 5));
        assert_eq!(u128::from(until_unix_ms - 5), limits::LEAF_LIFE.as_millis());
    }

    #[test]
    fn without_the_seal_key_none_begins() {
        let stage = stage();
        let folder = tempfile::tempdir().expect("scratch");
        let empty = Keyring::open(folder.path()).expect("opens");
        let refused = begin(stage.cluster(), &stage.authority, &empty, 5).expect_err("refused");
        assert!(refused.to_string().contains("lacks the seal key"), "{refused}");
    }
}
