//! The other coordinators.
//!
//! Owns the way to them: a gRPC channel with mutual TLS, and who is at the other end of one that comes in; and, once, what to do where
//! two authorities do not know each other. Refuses a peer whose certificate says another role. The certificate of this coordinator is
//! signed by the CA in the registry, so a founder has it only once the registry is open: until then every call answers that it is too
//! early.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use consensus::{Dial, ReplicaId};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::identity::{Identity, Role};
use proto::papers::Papers;
use proto::tls::mistrust;
use tonic::transport::{Channel, Endpoint};

use crate::entrance::Caller;
use crate::limits;

/// What an operator reads where the cluster went on without this coordinator.
const STRANGERS: &str = "its certificate and this coordinator's are of different authorities: if the cluster's was rotated while this \
                         one was away, start it with an empty data folder, --join and a new token of `mlx-serving token create \
                         --role coordinator`";

#[derive(Clone, Default)]
pub(crate) struct Peers {
    papers: Arc<OnceLock<Papers>>,
    warned: Arc<AtomicBool>,
}

impl Peers {
    /// From now on others can be reached. Said again, it changes nothing: papers are replaced in place.
    pub(crate) fn know(&self, papers: &Papers) {
        let _ = self.papers.set(papers.clone());
    }

    pub(crate) async fn connect(&self, replica: ReplicaId, address: &str) -> Result<Channel, String> {
        let papers = self.papers.get().ok_or("this coordinator has no certificate yet")?;
        let unreached =
            |error: &dyn std::fmt::Display| format!("coordinator {replica} at {address}: {error}");
        let (host, port) = split(address).ok_or_else(|| unreached(&"no address of the form HOST:PORT"))?;
        let tls = papers.control_client().map_err(|error| unreached(&error))?;
        let channel = proto::channel::connect(host, port, tls, settled).await;
        channel.map_err(|error| {
            if mistrust(&error).is_some() && !self.warned.swap(true, Ordering::Relaxed) {
                tracing::error!("{}: {STRANGERS}", unreached(&error));
            }
            unreached(&error)
        })
    }
}

impl Dial for Peers {
    fn dial(&self, replica: ReplicaId, address: &str) -> BoxFuture<'static, Result<Channel, String>> {
        let (peers, address) = (self.clone(), address.to_owned());
        async move { peers.connect(replica, &address).await }.boxed()
    }
}

fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Some((bare.unwrap_or(host), port.parse().ok()?))
}

fn settled(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(limits::PEER_CONNECT)
        .http2_keep_alive_interval(limits::SESSION_KEEP_ALIVE)
        .keep_alive_timeout(limits::SESSION_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Which coordinator a call comes from, by its certificate.
pub(crate) fn who_is(extensions: &tonic::Extensions) -> Option<ReplicaId> {
    match extensions.get::<Caller>()?.identity? {
        Identity { role: Role::Coordinator, node } => Some(ReplicaId(node)),
        Identity { role: Role::Agent, .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(split("mini-01:7443"), Some(("mini-01", 7443)));
        assert_eq!(split("[::1]:7443"), Some(("::1", 7443)));
        assert_eq!(split("mini-01"), None);
    }
}
