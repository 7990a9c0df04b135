//! The first contact with a cluster.
//!
//! Owns the two steps: a TLS session that ends as soon as the coordinator has shown the CA that the token pins, and the `Join`
//! call over a second one that trusts exactly this CA. The key stays here, a signing request travels. Refuses a coordinator of
//! another cluster, and an answer that is not signed by that CA or for another key.

use anyhow::Context as _;
use proto::identity::{COORDINATOR_DNS, Identity, Role};
use proto::token::JoinToken;
use proto::v1::JoinRequest;
use proto::v1::cluster_client::ClusterClient;
use proto::{standing, tls};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;

use super::folder::Membership;
use crate::address::Address;
use crate::limits;
use crate::session::anonymous;

#[derive(Debug)]
pub(crate) enum JoinError {
    /// Nobody answers there yet; later somebody may.
    Unreachable(anyhow::Error),
    /// The answer is no, or cannot be trusted.
    Refused(anyhow::Error),
}

pub(crate) async fn join(
    address: &Address,
    token: &JoinToken,
    name: &str,
    key_pem: &str,
    role: Role,
    speaks: Option<u32>,
) -> Result<Membership, JoinError> {
    let ca_certificate_pem = pinned_ca(address, token).await?;
    let channel = anonymous(address, &ca_certificate_pem).await.map_err(JoinError::Unreachable)?;
    let request = JoinRequest {
        token_id: token.id.clone(),
        secret: token.secret.clone(),
        csr_pem: signing_request(key_pem).map_err(JoinError::Refused)?,
        name: name.to_owned(),
        speaks,
    };
    let reply = ClusterClient::new(channel).join(request).await.map_err(answered)?.into_inner();
    let joined = Membership {
        node: reply.node,
        cluster: reply.cluster,
        certificate_pem: reply.certificate_pem,
        ca_certificate_pem,
        former_authorities: Vec::new(),
        revoked: None,
    };
    check(&joined, role).map_err(JoinError::Refused)?;
    Ok(joined)
}

/// The CA certificate that the coordinator brings along and the token pins.
async fn pinned_ca(address: &Address, token: &JoinToken) -> Result<String, JoinError> {
    let dialling = timeout(limits::CONNECT, TcpStream::connect((address.host.as_str(), address.port))).await;
    let tcp = dialling.map_err(|_| JoinError::Unreachable(anyhow::anyhow!("no answer")))?;
    let tcp = tcp.map_err(|error| JoinError::Unreachable(error.into()))?;
    let config = tls::joining_client(token).context("TLS for joining").map_err(JoinError::Refused)?;
    let server = ServerName::try_from(COORDINATOR_DNS)
        .context("the coordinator's name")
        .map_err(JoinError::Refused)?;
    let handshake = timeout(limits::CONNECT, TlsConnector::from(Arc::new(config)).connect(server, tcp)).await;
    let stream = handshake.map_err(|_| JoinError::Unreachable(anyhow::anyhow!("no TLS handshake")))?;
    let stream = stream.map_err(handshake_failed)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let ca = chain.iter().find(|certificate| token.pins(certificate));
    // The verifier accepted the chain because of it.
    let ca = ca.context("the coordinator's chain lacks its CA").map_err(JoinError::Refused)?;
    Ok(pem(ca))
}

/// TLS that refuses is a "no"; a line that breaks is not.
fn handshake_failed(error: std::io::Error) -> JoinError {
    let refused = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    let error = anyhow::Error::new(error);
    if refused { JoinError::Refused(error) } else { JoinError::Unreachable(error) }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Names are the coordinator's to give: the request carries the public key and a proof of its private half.
pub(super) fn signing_request(key_pem: &str) -> anyhow::Result<String> {
    let key = KeyPair::from_pem(key_pem).context("reading this Mac's key")?;
    let request = CertificateParams::default().serialize_request(&key).context("making a signing request")?;
    request.pem().context("writing a signing request")
}

fn answered(status: tonic::Status) -> JoinError {
    let error = anyhow::anyhow!("{}", status.message());
    // What a coordinator without a leader or on its way out says; everything else is an answer.
    let passing = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
    if passing.contains(&status.code()) {
        JoinError::Unreachable(error)
    } else if standing::is_outdated(&status) {
        // Another token would not help.
        JoinError::Refused(error)
    } else {
        let words = "the coordinator refused; get a new token with `mlx-serving token create` there";
        JoinError::Refused(error.context(words))
    }
}

/// Is this a certificate that makes this Mac what it wants to be? Coordinators count from one, and the first was never admitted.
fn check(joined: &Membership, role: Role) -> anyhow::Result<()> {
    let leaf =
        CertificateDer::from_pem_slice(joined.certificate_pem.as_bytes()).context("the certificate given")?;
    let identity = Identity::from_leaf(&leaf).context("the certificate given")?;
    let node = match role {
        Role::Agent => joined.node,
        Role::Coordinator => joined.node.saturating_add(1),
    };
    let expected = Identity { role, node };
    anyhow::ensure!(
        identity == expected,
        "the certificate is {identity}'s, not {expected}'s: is the token one for {role}s?"
    );
    Ok(())
}
