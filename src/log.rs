//! Logs go to stderr, never a prompt or an answer in them.
//!
//! Owns the one subscriber of the process. `RUST_LOG` overrides the level.

use tracing_subscriber::EnvFilter;

pub(crate) fn start(default_level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    // A second start (in tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
