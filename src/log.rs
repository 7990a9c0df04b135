//! Logs go to stderr, never a prompt or an answer in them.
//!
//! Owns the one subscriber of the process. `RUST_LOG` overrides the level; colours are for terminals that want them.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

pub(crate) fn start(default_level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        // The library under the registry tells its inner life at the level at which we tell ours.
        EnvFilter::new(format!("{default_level},openraft=error"))
    });
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // A second start (in tests) keeps the first subscriber.
    let _ = subscriber.try_init();
}
