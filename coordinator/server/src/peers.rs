//! The other coordinators.
//!
//! Owns the way to them: a gRPC channel with mutual TLS, and who is at the other end of one that comes in. Refuses a peer whose
//! certificate says another role. The certificate of this coordinator is signed by the CA in the registry, so a founder has it
//! only once the registry is open: until then every call answers that it is too early.

use std::sync::{Arc, OnceLock};

use consensus::{Dial, ReplicaId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::identity::{COORDINATOR_DNS, Identity, Role};
use proto::tls::Credentials;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::limits;

#[derive(Clone, Default)]
pub(crate) struct Peers {
    credentials: Arc<OnceLock<Credentials>>,
}

impl Peers {
    /// From now on others can be reached. Said again, it changes nothing.
    pub(crate) fn know(&self, credentials: &Credentials) {
        let _ = self.credentials.set(credentials.clone());
    }

    pub(crate) async fn connect(&self, replica: ReplicaId, address: &str) -> Result<Channel, String> {
        let credentials = self.credentials.get().ok_or("this coordinator has no certificate yet")?;
        let endpoint = endpoint(credentials, address)
            .map_err(|error| format!("the address of coordinator {replica}, {address:?}: {error}"))?;
        endpoint.connect().await.map_err(|error| format!("coordinator {replica} at {address}: {error}"))
    }
}

impl Dial for Peers {
    fn dial(&self, replica: ReplicaId, address: &str) -> BoxFuture<'static, Result<Channel, String>> {
        let (peers, address) = (self.clone(), address.to_owned());
        async move { peers.connect(replica, &address).await }.boxed()
    }
}

fn endpoint(credentials: &Credentials, address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let identity = tonic::transport::Identity::from_pem(&credentials.certificate_pem, &credentials.key_pem);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&credentials.ca_certificate_pem))
        .domain_name(COORDINATOR_DNS)
        .identity(identity);
    Endpoint::from_shared(format!("https://{address}"))?
        .connect_timeout(limits::PEER_CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(limits::SESSION_KEEP_ALIVE)
        .keep_alive_timeout(limits::SESSION_TIMEOUT)
        .keep_alive_while_idle(true)
        .tls_config(tls)
}

/// Which coordinator a call comes from, by its certificate.
pub(crate) fn who_is(extensions: &tonic::Extensions) -> Option<ReplicaId> {
    let chain = extensions.get::<TlsConnectInfo<TcpConnectInfo>>()?.peer_certs()?;
    match Identity::from_leaf(chain.first()?) {
        Ok(Identity { role: Role::Coordinator, node }) => Some(ReplicaId(node)),
        Ok(Identity { role: Role::Agent, .. }) | Err(_) => None,
    }
}
