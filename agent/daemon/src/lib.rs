//! The agent of one Mac: child processes, model store, probes, session and token streams.
//!
//! Owns everything that touches the machine. Refuses decisions about a runtime's life: those are the pure supervisor's, and
//! the loop in `agent` only carries its effects out. Speaks to coordinators through `proto` alone, translated in `wire`.

mod config;
mod notice;
mod run;
mod folder_lock;
mod whole_file;
mod address;
mod identity;
mod coordinators;
mod session;
mod version;
mod agent;
mod deeds;
mod models;
mod preparing;
mod environment;
mod store;
mod probes;
mod board;
mod streams;
mod runtimes;
mod guard;
mod wire;
mod backoff;
mod clock;
pub mod limits;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use config::{Config, DEMO_MODEL, Offer, OfferSource, RuntimeProgram, UnnamableSource};
pub use guard::guard;
pub use identity::{Enlisted, become_coordinator, belongs_elsewhere, cluster_of, known_coordinators};
pub use notice::{ModelWord, Notice};
pub use proto::token::{JoinToken, TokenError};
pub use run::run;
pub use streams::codes;
