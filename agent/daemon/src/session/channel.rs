//! The gRPC channel to the coordinator.
//!
//! Owns the address and the settings of the connection: mutual TLS, the coordinator's name whatever address is dialled, and
//! pings that find a dead peer in seconds. Refuses plain text.

use std::fmt;

use anyhow::Context as _;
use proto::identity::COORDINATOR_DNS;
use proto::tls::Credentials;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::limits;

/// `host:port`, taken apart: the token streams are on the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{text:?} is no coordinator's address: expected host:port");
        let (host, port) = text.rsplit_once(':').with_context(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).with_context(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = !bare.is_empty() && (bare == host) != bare.contains(':');
        anyhow::ensure!(plain && !bare.contains(['/', '@', ' ']), wrong());
        Ok(Self { host: bare.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_put_together() {
        for (text, host) in
            [("mini-01.local:7443", "mini-01.local"), ("127.0.0.1:1", "127.0.0.1"), ("[::1]:9", "::1")]
        {
            let address = Address::parse(text).expect("an address");
            assert_eq!((address.host.as_str(), address.to_string().as_str()), (host, text));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for text in
            ["mini-01", ":7443", "mini:0", "mini:99999", "::1:7443", "https://mini:7443", "a b:1", "[mini]:1"]
        {
            let words = Address::parse(text).expect_err(text).to_string();
            assert!(words.contains("host:port"), "{words}");
        }
    }
}
