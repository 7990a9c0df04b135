//! A cluster's CA, as small as a test needs it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use proto::identity::{BACKDATED, Identity, Role};
use proto::tls::Credentials;
use proto::token::{JoinToken, SECRET_BYTES};
use proto::v1::Authorities;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    PublicKeyData, SanType,
};

pub(crate) struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    ca_hash: [u8; 32],
    /// In whole seconds, like certificates.
    life: AtomicI64,
    /// Trusted before the one that is here, once there was a turn.
    next_pem: Mutex<String>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).expect("a CA");
        let certificate_pem = certificate.pem();
        let ca_hash = *blake3::hash(certificate.der()).as_bytes();
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).expect("an issuer");
        let (life, next_pem) = (AtomicI64::new(7 * 24 * 3_600), Mutex::default());
        Self { certificate_pem, issuer, ca_hash, life, next_pem }
    }

    /// Another authority is trusted too, and named first. Returns what agents are told of it, and its hash.
    pub(crate) fn turn(&self) -> (Authorities, Vec<u8>) {
        let next = Self::new();
        *self.next_pem.lock().expect("not poisoned") = next.certificate_pem.clone();
        (self.word(1, &self.certificate_pem()), next.ca_hash.to_vec())
    }

    pub(crate) fn word(&self, step: u64, trusted: &str) -> Authorities {
        Authorities { digest: blake3::hash(trusted.as_bytes()).as_bytes().to_vec(), epoch: 0, step }
    }

    /// What agents get from here on lasts so long; below zero, it has ended already.
    pub(crate) fn sign_for(&self, seconds: i64) {
        self.life.store(seconds, Ordering::Relaxed);
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken { ca_hash: self.ca_hash, id: "t1".to_owned(), secret: vec![7; SECRET_BYTES] }
    }

    pub(crate) fn certificate_pem(&self) -> String {
        format!("{}{}", self.next_pem.lock().expect("not poisoned"), self.certificate_pem)
    }

    pub(crate) fn coordinator(&self, replica: u64) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        Credentials {
            certificate_pem: self.leaf(Identity { role: Role::Coordinator, node: replica }, &key),
            key_pem: key.serialize_pem(),
            ca_certificate_pem: self.certificate_pem.clone(),
        }
    }

    pub(crate) fn sign(&self, csr_pem: &str, node: u64) -> String {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).expect("a signing request");
        self.leaf(Identity { role: Role::Agent, node }, &request.public_key)
    }

    fn leaf(&self, identity: Identity, key: &impl PublicKeyData) -> String {
        let mut params = CertificateParams::new(vec![identity.dns_name()]).expect("a name");
        params.subject_alt_names.push(SanType::URI(identity.to_string().try_into().expect("ASCII")));
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        let life = match identity.role {
            Role::Agent => self.life.load(Ordering::Relaxed),
            Role::Coordinator => 3_600,
        };
        let life_and_more = Duration::from_secs(u64::try_from(life + 3_600).expect("not below an hour ago"));
        params.not_after = (now - BACKDATED + life_and_more).into();
        params.signed_by(key, &self.issuer).expect("a leaf").pem()
    }
}
