//! The registry, replicated. This is the only crate that names openraft.
//!
//! It owns the order of the cluster's durable facts: a command proposed through [`Consensus`] is flushed to a
//! majority's disks, applied to every replica's [`registry::Registry`] in the same order, and answered only
//! then. It refuses everything else: no request, token or heartbeat enters the log, nothing here looks inside a
//! command, and no type of openraft leaves the crate, so a change of library touches this folder alone.
//!
//! The way of a command: [`Consensus::propose`] in `handle.rs`, then openraft, then `raft/log_store.rs`, which
//! hands bytes to `wal/` (the write-ahead log: plain files, no Raft), then `raft/state_machine.rs`, which
//! applies and publishes. `wal/mod.rs` states what survives which failure.

mod handle;
mod options;
mod error;
mod health;
mod limits;
mod raft;
mod wal;

#[cfg(test)]
mod tests;

pub use error::{Damage, OpenError, ProposeError, ReadError, Retry, ShutdownError, SnapshotError};
pub use handle::Consensus;
pub use health::Health;
pub use options::{Options, ReplicaId};
