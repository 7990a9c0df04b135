//! What a coordinator is told at its start.
//!
//! Owns the settings and their check. Refuses an API address beyond loopback: without API keys that would be an
//! unauthenticated port.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proto::tls::Credentials;

/// Everything a coordinator needs to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the registry, the cards and the join token live; made with mode 0700.
    pub data_folder: PathBuf,
    /// Where clients reach the OpenAI API (HTTP).
    pub api: SocketAddr,
    /// Where agents reach the coordinator: gRPC on this TCP port, token streams on the same UDP port; mutual TLS on both.
    pub cluster: SocketAddr,
    /// `host:port` where other coordinators and agents reach `cluster`.
    pub advertise: String,
    /// This coordinator belongs to a cluster that another one founded. `None`: it founded its own, or is about to.
    pub joined: Option<Joined>,
    /// How long certificates last. `None`: a week. For tests, which have less time.
    pub leaf_life: Option<Duration>,
}

/// What a coordinator that joined was given.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its certificate, which says which replica it is.
    pub credentials: Credentials,
    pub replica: u64,
    /// `host:port` of coordinators that may know the leader.
    pub contacts: Vec<String>,
}

/// The settings cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error(
        "the API address {0} is reachable from other machines, and this version has no API keys to guard it: \
         use 127.0.0.1, and an authenticating proxy or an SSH tunnel for remote clients"
    )]
    ApiBeyondLoopback(SocketAddr),
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.api.ip().is_loopback() { Ok(()) } else { Err(ConfigError::ApiBeyondLoopback(self.api)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_beyond_loopback_is_refused() {
        let config = |api: &str| Config {
            data_folder: PathBuf::new(),
            api: api.parse().expect("an address"),
            cluster: "0.0.0.0:7443".parse().expect("an address"),
            advertise: String::new(),
            joined: None,
            leaf_life: None,
        };
        assert_eq!(config("127.0.0.1:7440").check(), Ok(()));
        assert_eq!(config("[::1]:7440").check(), Ok(()));
        for open in ["0.0.0.0:7440", "192.0.2.7:7440", "[::]:7440"] {
            assert!(config(open).check().is_err(), "{open}");
        }
    }
}
