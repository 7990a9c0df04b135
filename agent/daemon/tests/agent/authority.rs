//! A cluster's CA, as small as a test needs it.

use proto::identity::{Identity, Role};
use proto::tls::Credentials;
use proto::token::{JoinToken, SECRET_BYTES};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
    PublicKeyData, SanType,
};

pub(crate) struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    ca_hash: [u8; 32],
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
        Self { certificate_pem, issuer, ca_hash }
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken { ca_hash: self.ca_hash, id: "t1".to_owned(), secret: vec![7; SECRET_BYTES] }
    }

    pub(crate) fn certificate_pem(&self) -> String {
        self.certificate_pem.clone()
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
        params.signed_by(key, &self.issuer).expect("a leaf").pem()
    }
}
