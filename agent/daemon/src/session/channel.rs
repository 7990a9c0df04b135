//! The gRPC channel to the coordinator.
//!
//! Owns the settings of the connection: this Mac's papers, and pings that find a dead peer in seconds. Refuses plain text.

use anyhow::Context as _;
use proto::papers::Papers;
use proto::tls;
use rustls::ClientConfig;
use tonic::transport::{Channel, Endpoint};

use crate::address::Address;
use crate::limits;

/// With this Mac's certificate.
pub(crate) async fn mutual(address: &Address, papers: &Papers) -> anyhow::Result<Channel> {
    connect(address, papers.control_client().context("TLS towards the coordinator")?).await
}

/// Before this Mac has one, or when the one it has has expired.
pub(crate) async fn anonymous(address: &Address, ca_certificate_pem: &str) -> anyhow::Result<Channel> {
    connect(address, tls::anonymous_client(ca_certificate_pem).context("TLS towards the coordinator")?).await
}

async fn connect(address: &Address, tls: ClientConfig) -> anyhow::Result<Channel> {
    Ok(proto::channel::connect(&address.host, address.port, tls, settled).await?)
}

fn settled(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(limits::CONNECT)
        .http2_keep_alive_interval(limits::SESSION_KEEP_ALIVE)
        .keep_alive_timeout(limits::SESSION_TIMEOUT)
        .keep_alive_while_idle(true)
}
