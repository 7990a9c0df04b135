//! The QUIC endpoint of an agent, for its connections to all coordinators.
//!
//! Owns the transport's settings and the way from a name to a connection. Refuses peers that are not this cluster's coordinator:
//! the certificate is checked against its name, whatever address was dialled.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use proto::identity::COORDINATOR_DNS;
use proto::papers::Papers;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, IdleTimeout, TransportConfig, VarInt};
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Target;
use crate::identity::{Tie, Ties};
use crate::limits;

pub(crate) struct Dialler {
    config: ClientConfig,
    /// A machine may lack one of the two address families.
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    papers: Papers,
    ties: Ties,
}

impl Dialler {
    pub(crate) fn new(papers: &Papers, ties: Ties) -> anyhow::Result<Self> {
        let tls = QuicClientConfig::try_from(papers.stream_client()?).context("TLS for QUIC")?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport()?));
        let bind = |address: SocketAddr| Endpoint::client(address).ok();
        let (v4, v6) = (bind((Ipv4Addr::UNSPECIFIED, 0).into()), bind((Ipv6Addr::UNSPECIFIED, 0).into()));
        anyhow::ensure!(v4.is_some() || v6.is_some(), "no UDP socket can be bound");
        Ok(Self { config, v4, v6, papers: papers.clone(), ties })
    }

    /// Which authority signs.
    pub(crate) fn turns(&self) -> watch::Receiver<[u8; 32]> {
        self.papers.turns()
    }

    /// A connection under this one is about to be made.
    pub(crate) fn tie(&self, authority: [u8; 32]) -> Tie {
        self.ties.tie(authority)
    }

    /// Tries the addresses of the name one after another.
    pub(crate) async fn dial(&self, target: &Target) -> anyhow::Result<Connection> {
        let addresses = lookup_host((target.host.as_str(), target.port)).await;
        let addresses = addresses.with_context(|| format!("looking up {}", target.host))?;
        let mut last = anyhow::anyhow!("{} has no address", target.host);
        for address in addresses {
            match self.dial_address(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error.context(format!("dialling {address} (UDP)")),
            }
        }
        Err(last)
    }

    /// Says goodbye on every connection.
    pub(crate) async fn close(&self, code: VarInt) {
        for endpoint in [&self.v4, &self.v6].into_iter().flatten() {
            endpoint.close(code, b"the agent stops");
            let _ = timeout(limits::GOODBYE, endpoint.wait_idle()).await;
        }
    }

    async fn dial_address(&self, address: SocketAddr) -> anyhow::Result<Connection> {
        let endpoint = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let endpoint = endpoint.as_ref().context("this machine lacks the address family")?;
        let connecting = endpoint.connect_with(self.config.clone(), address, COORDINATOR_DNS)?;
        Ok(timeout(limits::CONNECT, connecting).await.context("no answer")??)
    }
}

fn transport() -> anyhow::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(limits::STREAM_IDLE)?));
    transport.keep_alive_interval(Some(limits::STREAM_KEEP_ALIVE));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS_MAX));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.stream_receive_window(VarInt::from_u32(limits::STREAM_WINDOW_BYTES));
    Ok(transport)
}
