//! A process's own papers while it runs: its certificate and key, the authorities it trusts, and the coordinators it must refuse.
//!
//! Owns the TLS configurations of both wires. They look at the papers at each handshake, so papers that are replaced count from
//! the next connection on, and no connection breaks for it. Refuses resumed sessions, which would go on under papers that were
//! checked long ago, and a server that is no coordinator, whatever its name.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use tokio::sync::watch;

use crate::STREAM_ALPN;
use crate::identity::{Identity, Role};
use crate::tls::{Credentials, TlsError, authorities, provider};
use crate::token::JoinToken;

/// Of HTTP/2, which carries gRPC.
const CONTROL_ALPN: &[u8] = b"h2";

/// Cheap to clone: all clones are the same papers.
#[derive(Clone)]
pub struct Papers {
    current: Arc<RwLock<Arc<Current>>>,
    turns: watch::Sender<[u8; 32]>,
}

struct Current {
    credentials: Credentials,
    certified: Arc<CertifiedKey>,
    servers: Arc<WebPkiServerVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    authority: [u8; 32],
    /// Coordinators that were revoked, by number.
    refused: BTreeSet<u64>,
}

impl Papers {
    /// Papers that hold these credentials and refuse nobody yet.
    pub fn new(credentials: Credentials) -> Result<Self, TlsError> {
        let current = Current::new(credentials, BTreeSet::new())?;
        let turns = watch::Sender::new(current.authority);
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(current))), turns })
    }

    /// Shows these from the next handshake on. Papers that do not fit together are refused, and the former stay.
    pub fn replace(&self, credentials: Credentials) -> Result<(), TlsError> {
        let next = Current::new(credentials, self.current().refused.clone())?;
        let authority = next.authority;
        self.put(next);
        self.turns.send_if_modified(|known| std::mem::replace(known, authority) != authority);
        Ok(())
    }

    /// Which authority signs: BLAKE3 of its certificate. Changes when another one does, and connections had better be made anew.
    pub fn turns(&self) -> watch::Receiver<[u8; 32]> {
        self.turns.subscribe()
    }

    /// As it is now.
    pub fn authority(&self) -> [u8; 32] {
        self.current().authority
    }

    /// Takes no coordinator of these numbers for one, from the next handshake on.
    pub fn refuse(&self, coordinators: BTreeSet<u64>) {
        let now = self.current();
        self.put(Current { refused: coordinators, ..now.copy() });
    }

    /// As they are now.
    pub fn credentials(&self) -> Credentials {
        self.current().credentials.clone()
    }

    /// The coordinator's side of the token streams: asks for a certificate of this cluster and takes nothing less.
    pub fn stream_server(&self) -> Result<ServerConfig, TlsError> {
        self.server(true, STREAM_ALPN)
    }

    /// The coordinator's side of gRPC: asks for a certificate, and lets in who has none, who may only ask for one.
    pub fn control_server(&self) -> Result<ServerConfig, TlsError> {
        self.server(false, CONTROL_ALPN)
    }

    /// The agent's side of the token streams.
    pub fn stream_client(&self) -> Result<ClientConfig, TlsError> {
        self.client(STREAM_ALPN)
    }

    /// The calling side of gRPC.
    pub fn control_client(&self) -> Result<ClientConfig, TlsError> {
        self.client(CONTROL_ALPN)
    }

    fn server(&self, mandatory: bool, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Clients { papers: self.clone(), mandatory }))
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client(&self, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Servers(self.clone())))
            .with_client_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, next: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }
}

impl Current {
    fn new(credentials: Credentials, refused: BTreeSet<u64>) -> Result<Self, TlsError> {
        let roots = Arc::new(credentials.roots()?);
        let authority = authorities(&credentials.ca_certificate_pem)?;
        let authority = authority.first().map(|signs| JoinToken::hash_of(signs)).unwrap_or_default();
        let certified = CertifiedKey::from_der(credentials.chain()?, credentials.key()?, &provider())?;
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build()?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Self { credentials, certified: Arc::new(certified), servers, clients, authority, refused })
    }

    fn copy(&self) -> Self {
        Self {
            credentials: self.credentials.clone(),
            certified: Arc::clone(&self.certified),
            servers: Arc::clone(&self.servers),
            clients: Arc::clone(&self.clients),
            authority: self.authority,
            refused: self.refused.clone(),
        }
    }
}

impl std::fmt::Debug for Papers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Papers").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Papers {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }
}

impl ResolvesClientCert for Papers {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whom a client takes for a coordinator of its cluster.
#[derive(Debug)]
struct Servers(Papers);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let current = self.0.current();
        let verified = current.servers.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        match Identity::from_leaf(leaf) {
            Ok(Identity { role: Role::Coordinator, node }) if current.refused.contains(&node) => {
                Err(Error::General(format!("coordinator {node} was removed from this cluster")))
            }
            Ok(Identity { role: Role::Coordinator, .. }) => Ok(verified),
            Ok(Identity { role: Role::Agent, .. }) | Err(_) => {
                Err(Error::General("the certificate shown is no coordinator's".to_owned()))
            }
        }
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
        self.0.current().servers.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current().servers.supported_verify_schemes()
    }
}

/// Whom a coordinator takes for a node of its cluster.
#[derive(Debug)]
struct Clients {
    papers: Papers,
    mandatory: bool,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: a node has one certificate, and shows it without being told which CA is asked for.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.papers.current().clients.verify_client_cert(leaf, intermediates, now)
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
        self.papers.current().clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.papers.current().clients.supported_verify_schemes()
    }
}
