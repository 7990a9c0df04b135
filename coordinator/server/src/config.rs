//! What a coordinator is told at its start.
//!
//! Owns the settings. Refuses none of them: what an address beyond loopback asks of callers is the gateway's to know.

use std::ffi::OsString;
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
    /// The newest version of the cluster that it speaks, [`crate::OLDEST_VERSION`] to [`crate::NEWEST_VERSION`]. `None`: the newest.
    pub speaks: Option<u32>,
    pub renderer: RendererProgram,
}

/// What runs [`crate::render_templates`] and nothing else: in production this very binary.
#[derive(Clone, Debug)]
pub struct RendererProgram {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
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
