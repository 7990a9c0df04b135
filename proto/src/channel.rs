//! The gRPC connection from one process of the cluster to another.
//!
//! Owns TCP and our own TLS below tonic, whose own takes a certificate once and for all and asks nobody who the other end is.
//! Refuses to choose times and retries: they are the caller's.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Error};

use crate::identity::COORDINATOR_DNS;

/// Connects to the coordinator at `host:port`. `settled` sets times and keep-alives of the connection.
pub async fn connect(
    host: &str,
    port: u16,
    tls: ClientConfig,
    settled: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, Error> {
    // The connector dials; this name goes into requests only, and says nothing of TLS, which is below.
    let endpoint = settled(Endpoint::from_shared(format!("http://{COORDINATOR_DNS}"))?);
    let (host, tls) = (Arc::<str>::from(host), TlsConnector::from(Arc::new(tls)));
    let connector = tower::service_fn(move |_| {
        let (host, tls) = (Arc::clone(&host), tls.clone());
        async move { dial(&host, port, tls).await.map(TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await
}

async fn dial(host: &str, port: u16, tls: TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(COORDINATOR_DNS).map_err(std::io::Error::other)?;
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    tls.connect(name, tcp).await
}
