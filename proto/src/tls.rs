//! TLS between coordinators and agents: one cryptographic provider, one place that builds configurations.
//!
//! Owns credentials and what they are made of, which authority a certificate is of, and how a joining Mac, which holds a token and no
//! certificate yet, recognises the true cluster; what a member shows and trusts while it runs are its papers (`papers.rs`). Refuses
//! TLS 1.2.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::identity::Validity;
use crate::papers::Papers;
use crate::token::JoinToken;

/// A node's certificate, its key and the authorities it trusts, all PEM. `Debug` hides the key.
#[derive(Clone)]
pub struct Credentials {
    /// Behind the node's own there may be one by which whoever trusts a former authority knows the present one.
    pub certificate_pem: String,
    pub key_pem: String,
    /// The one that signs first.
    pub ca_certificate_pem: String,
}

/// The material does not make a working TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("a PEM block is malformed: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("TLS refuses the certificate or key: {0}")]
    Refused(#[from] Error),
    #[error("TLS cannot build its verifier: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The one provider of the whole project; two linked providers make rustls panic unless one is named.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Credentials {
    /// The coordinator's side of the token streams, under papers that nobody replaces.
    pub fn stream_server(&self) -> Result<ServerConfig, TlsError> {
        Papers::new(self.clone())?.stream_server()
    }

    /// The agent's side of the token streams, under papers that nobody replaces.
    pub fn stream_client(&self) -> Result<ClientConfig, TlsError> {
        Papers::new(self.clone())?.stream_client()
    }

    /// Leaf and authorities in one PEM text: these go along so that a joining Mac can compare them with its token.
    pub fn chain_pem(&self) -> String {
        format!("{}\n{}", self.certificate_pem.trim_end(), self.ca_certificate_pem)
    }

    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        Ok(CertificateDer::pem_slice_iter(self.chain_pem().as_bytes()).collect::<Result<_, _>>()?)
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        Ok(PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?)
    }

    pub(crate) fn roots(&self) -> Result<RootCertStore, TlsError> {
        roots(&self.ca_certificate_pem)
    }
}

fn roots(ca_certificate_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities(ca_certificate_pem)? {
        roots.add(authority)?;
    }
    Ok(roots)
}

/// The certificates of a PEM text, in their order.
pub fn authorities(ca_certificate_pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(ca_certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
    // A text without any would be trust in nobody.
    if all.is_empty() { Err(rustls::pki_types::pem::Error::NoItemsFound.into()) } else { Ok(all) }
}

/// Whether this authority itself, the first of the text, signed the leaf; not whether that is still good.
pub fn vouches(ca_certificate_pem: &str, leaf: &CertificateDer<'_>) -> bool {
    let authority = CertificateDer::from_pem_slice(ca_certificate_pem.as_bytes());
    authority.is_ok_and(|authority| signed_by(&authority, leaf))
}

/// The same of one authority.
pub fn signed_by(authority: &CertificateDer<'_>, leaf: &CertificateDer<'_>) -> bool {
    let signed = || {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        let from = Validity::of_leaf(leaf).map_err(|_| Error::General("no leaf".to_owned()))?.from_unix_ms;
        let then = UnixTime::since_unix_epoch(Duration::from_millis(from));
        Ok::<_, TlsError>(verifier.verify_client_cert(leaf, &[], then).is_ok())
    };
    signed().unwrap_or(false)
}

/// Why two ends of a connection are no members of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistrust {
    /// The other end's certificate is not of an authority that is trusted here.
    Theirs,
    /// The other end does not take the certificate that was shown.
    Ours,
}

/// Finds it among the causes of an error; TLS hides its own inside those of the transport.
pub fn mistrust(error: &(dyn StdError + 'static)) -> Option<Mistrust> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        match inner.and_then(|inner| inner.downcast_ref()).or(error.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(_)) => return Some(Mistrust::Theirs),
            Some(Error::AlertReceived(AlertDescription::UnknownCA)) => return Some(Mistrust::Ours),
            Some(_) | None => cause = error.source(),
        }
    }
    None
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// TLS of a Mac that has no certificate, or none that lasts: trusts these authorities, shows nothing.
pub fn anonymous_client(ca_certificate_pem: &str) -> Result<ClientConfig, TlsError> {
    let roots = roots(ca_certificate_pem)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// TLS of a first contact: trusts exactly the cluster whose CA the token pins, and remembers nothing.
pub fn joining_client(token: &JoinToken) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(PinnedCa { token: token.clone() });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts a chain only if it brings along the CA that the token pins and verifies against that CA in the ordinary way.
#[derive(Debug)]
struct PinnedCa {
    token: JoinToken,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|certificate| self.token.pins(certificate));
        let Some(ca) = pinned else {
            let words = "this is not the cluster that issued the join token, or its authority was rotated since: make a new token \
                         there with `mlx-serving token create`";
            return Err(Error::General(words.to_owned()));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
