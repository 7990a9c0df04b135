//! The gRPC channel to the coordinator.
//!
//! Owns the settings of the connection: mutual TLS, the coordinator's name whatever address is dialled, and
//! pings that find a dead peer in seconds. Refuses plain text.

use anyhow::Context as _;
use proto::identity::COORDINATOR_DNS;
use proto::tls::Credentials;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::address::Address;
use crate::limits;

/// With this Mac's certificate.
pub(crate) fn mutual(address: &Address, credentials: &Credentials) -> anyhow::Result<Endpoint> {
    let identity = Identity::from_pem(&credentials.certificate_pem, &credentials.key_pem);
    endpoint(address, tls(&credentials.ca_certificate_pem).identity(identity))
}

/// Before this Mac has one.
pub(crate) fn joining_channel(address: &Address, ca_certificate_pem: &str) -> anyhow::Result<Endpoint> {
    endpoint(address, tls(ca_certificate_pem))
}

fn tls(ca_certificate_pem: &str) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca_certificate_pem))
        .domain_name(COORDINATOR_DNS)
}

fn endpoint(address: &Address, tls: ClientTlsConfig) -> anyhow::Result<Endpoint> {
    let endpoint =
        Endpoint::from_shared(format!("https://{address}")).context("the coordinator's address")?;
    let endpoint = endpoint
        .connect_timeout(limits::CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(limits::SESSION_KEEP_ALIVE)
        .keep_alive_timeout(limits::SESSION_TIMEOUT)
        .keep_alive_while_idle(true);
    endpoint.tls_config(tls).context("TLS towards the coordinator")
}
