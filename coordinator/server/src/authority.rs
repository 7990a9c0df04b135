//! The cluster's certificate authority: makes the CA and its successor, signs leaves, issues the join token.
//!
//! Owns the private key while it signs; at rest the key is a fact of the registry, sealed (`seal/`). Without it everything but signing
//! goes on. When the facts name another authority, it is that from then on. Refuses to take anything from a signing
//! request but its public key: names and roles are what the registry says, never what a joiner asks for.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use proto::identity::{self, BACKDATED, Identity};
use proto::tls::Credentials;
use proto::token::{JoinToken, SECRET_BYTES};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::limits;
use crate::trust::Trust;

/// The CA that signs, with its key at hand or not yet.
pub(crate) struct Authority {
    signing: RwLock<Arc<Signing>>,
    leaf_life: Duration,
}

struct Signing {
    trust: Trust,
    issuer: Option<Issuer<'static, KeyPair>>,
}

/// A CA as it is stored.
pub(crate) struct NewCa {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// One that takes the place of another.
pub(crate) struct Successor {
    pub(crate) certificate_pem: String,
    /// Its key, certified by the former one.
    pub(crate) cross_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    /// Makes the CA of a new cluster.
    pub(crate) fn create(cluster: &str) -> anyhow::Result<NewCa> {
        let key = KeyPair::generate().context("making the CA key")?;
        let params = as_ca(format!("mlx-serving cluster {cluster}"));
        let certificate = params.self_signed(&key).context("signing the CA certificate")?;
        Ok(NewCa { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Makes the CA that takes the place of the present one, which certifies it until then. The name is another one, so that nobody
    /// who looks for the signer of a certificate takes one for the other.
    pub(crate) fn successor(
        (certificate_pem, key_pem): (&str, &str),
        cluster: &str,
        number: u64,
        until: SystemTime,
    ) -> anyhow::Result<Successor> {
        let present = issuer(certificate_pem, key_pem)?;
        let key = KeyPair::generate().context("making the CA key")?;
        let params = as_ca(format!("mlx-serving cluster {cluster}, authority {number}"));
        let certificate = params.self_signed(&key).context("signing the CA certificate")?;
        let mut known = params;
        known.not_after = until.into();
        let cross = known.signed_by(&key, &present).context("certifying the new CA")?;
        Ok(Successor {
            certificate_pem: certificate.pem(),
            cross_pem: cross.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The CA that the registry holds, while its key cannot be opened.
    pub(crate) fn locked(trust: Trust, leaf_life: Duration) -> Self {
        Self { signing: RwLock::new(Arc::new(Signing { trust, issuer: None })), leaf_life }
    }

    /// It is what the facts say, and with the key, which must be this authority's, it can sign. What it can already it keeps.
    pub(crate) fn take_up(&self, trust: &Trust, key_pem: Option<&str>) -> anyhow::Result<()> {
        let now = self.signing();
        if now.trust == *trust && (now.issuer.is_some() || key_pem.is_none()) {
            return Ok(());
        }
        let issuer = key_pem.map(|key_pem| issuer(&trust.signs_pem, key_pem)).transpose()?;
        let next = Arc::new(Signing { trust: trust.clone(), issuer });
        *self.signing.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    pub(crate) fn can_sign(&self) -> bool {
        self.signing().issuer.is_some()
    }

    pub(crate) fn trust(&self) -> Trust {
        self.signing().trust.clone()
    }

    fn signing(&self) -> Arc<Signing> {
        Arc::clone(&self.signing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes up the CA that the registry holds.
    #[cfg(test)]
    pub(crate) fn open(certificate_pem: &str, key_pem: &str, leaf_life: Duration) -> anyhow::Result<Self> {
        let trust = Trust::first(certificate_pem);
        let authority = Self::locked(trust.clone(), leaf_life);
        authority.take_up(&trust, Some(key_pem))?;
        Ok(authority)
    }

    /// How long the certificates last that it signs.
    pub(crate) fn leaf_life(&self) -> Duration {
        self.leaf_life
    }

    /// Credentials for a process on this machine, with a key made here and now.
    pub(crate) fn credentials(&self, identity: Identity) -> anyhow::Result<Credentials> {
        let key = KeyPair::generate().context("making a node key")?;
        let Signed { certificate_pem, ca_certificate_pem } = self.leaf(identity, &key)?;
        Ok(Credentials { certificate_pem, key_pem: key.serialize_pem(), ca_certificate_pem })
    }

    /// The public key of a joiner's request, for the registry and for [`Authority::sign`].
    pub(crate) fn read_request(csr_pem: &str) -> anyhow::Result<CertificateSigningRequestParams> {
        CertificateSigningRequestParams::from_pem(csr_pem).context("reading the certificate signing request")
    }

    /// Signs the request's public key for `identity`; every other wish of the request is dropped.
    pub(crate) fn sign(
        &self,
        request: &CertificateSigningRequestParams,
        identity: Identity,
    ) -> anyhow::Result<Signed> {
        self.leaf(identity, &request.public_key)
    }

    /// A token and the hash of its secret, which is all that the registry gets to see.
    pub(crate) fn issue_token(&self) -> anyhow::Result<(JoinToken, [u8; 32])> {
        let signing = self.signing();
        let ca = signing.trust.signs_pem.as_bytes();
        let ca = CertificateDer::from_pem_slice(ca).context("reading the CA")?;
        let token = JoinToken {
            ca_hash: JoinToken::hash_of(&ca),
            id: random_hex::<6>()?,
            secret: random::<SECRET_BYTES>()?.to_vec(),
        };
        let hash = JoinToken::secret_hash(&token.secret);
        Ok((token, hash))
    }

    fn leaf(&self, identity: Identity, key: &impl PublicKeyData) -> anyhow::Result<Signed> {
        let mut params = valid_for(self.leaf_life);
        params.distinguished_name.push(DnType::CommonName, identity.dns_name());
        let dns = identity.dns_name().try_into().context("a node's DNS name")?;
        let uri = identity.to_string().try_into().context("a node's URI")?;
        params.subject_alt_names = vec![SanType::DnsName(dns), SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signing = self.signing();
        let issuer = signing.issuer.as_ref().context("the authority's key is sealed")?;
        let mut certificate_pem = params.signed_by(key, issuer).context("signing a node certificate")?.pem();
        if let Some(cross) = &signing.trust.cross_pem {
            certificate_pem.push_str(cross);
        }
        Ok(Signed { certificate_pem, ca_certificate_pem: signing.trust.all_pem.clone() })
    }
}

/// What a member gets: both are of one moment.
pub(crate) struct Signed {
    pub(crate) certificate_pem: String,
    pub(crate) ca_certificate_pem: String,
}

fn issuer(certificate_pem: &str, key_pem: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(key_pem).context("reading the CA key")?;
    Issuer::from_ca_cert_pem(certificate_pem, key).context("reading the CA certificate")
}

fn as_ca(name: String) -> CertificateParams {
    let mut params = valid_for(limits::CA_LIFE);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// BLAKE3 of a public key, the form in which the registry recognises a node that joins twice.
pub(crate) fn key_fingerprint(request: &CertificateSigningRequestParams) -> String {
    blake3::hash(request.public_key.der_bytes()).to_hex().to_string()
}

/// The same of a certificate; none where it cannot be read.
pub(crate) fn leaf_fingerprint(leaf: &CertificateDer<'_>) -> Option<String> {
    Some(blake3::hash(&identity::key_of(leaf).ok()?).to_hex().to_string())
}

/// `N` random bytes as hex, from the operating system.
pub(crate) fn random_hex<const N: usize>() -> anyhow::Result<String> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * N);
    for byte in random::<N>()? {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    Ok(bytes)
}

fn valid_for(life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::identity::Role;

    fn authority() -> Authority {
        let ca = Authority::create("test").expect("a CA");
        Authority::open(&ca.certificate_pem, &ca.key_pem, limits::LEAF_LIFE).expect("opens again")
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
    }

    #[test]
    fn a_signing_request_cannot_choose_its_own_role() {
        let key = KeyPair::generate().expect("a key");
        let mut wish = CertificateParams::default();
        wish.subject_alt_names = vec![SanType::URI("spiffe://mlxc/coordinator/1".try_into().expect("ia5"))];
        let csr = wish.serialize_request(&key).expect("a request").pem().expect("PEM");
        let request = Authority::read_request(&csr).expect("readable");
        let agent = Identity { role: Role::Agent, node: 9 };
        let leaf = authority().sign(&request, agent).expect("signed").certificate_pem;
        assert_eq!(Identity::from_leaf(&der(&leaf)), Ok(agent));
    }

    #[test]
    fn a_certificate_has_the_fingerprint_of_the_request_it_was_signed_from() {
        let key = KeyPair::generate().expect("a key");
        let csr =
            CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
        let request = Authority::read_request(&csr).expect("readable");
        let agent = Identity { role: Role::Agent, node: 9 };
        let leaf = authority().sign(&request, agent).expect("signed").certificate_pem;
        assert_eq!(leaf_fingerprint(&der(&leaf)), Some(key_fingerprint(&request)));
        let other = authority().credentials(agent).expect("credentials").certificate_pem;
        assert_ne!(leaf_fingerprint(&der(&other)), Some(key_fingerprint(&request)));
    }

    #[test]
    fn a_token_pins_the_authority_that_issued_it() {
        let (ours, theirs) = (authority(), authority());
        let (token, hash) = ours.issue_token().expect("a token");
        assert!(token.pins(&der(&ours.trust().signs_pem)));
        assert!(!token.pins(&der(&theirs.trust().signs_pem)));
        assert_eq!(JoinToken::secret_hash(&token.secret), hash);
    }

    #[test]
    fn credentials_make_both_sides_of_a_token_stream() {
        let credentials =
            authority().credentials(Identity { role: Role::Coordinator, node: 1 }).expect("credentials");
        credentials.stream_server().expect("a server side");
        credentials.stream_client().expect("a client side");
    }

    #[test]
    fn a_request_that_is_not_signed_with_its_own_key_is_none() {
        use base64::Engine as _;
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request");
        let mut der = csr.der().to_vec();
        *der.last_mut().expect("a signature") ^= 1;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let forged =
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(Authority::read_request(&csr.pem().expect("PEM")).is_ok());
        assert!(Authority::read_request(&forged).is_err());
    }

    #[test]
    fn garbage_is_no_signing_request() {
        assert!(Authority::read_request("-----BEGIN NONSENSE-----").is_err());
    }
}
