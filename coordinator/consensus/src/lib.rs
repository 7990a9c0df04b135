//! The registry, replicated. This is the only crate that names openraft.
//!
//! It owns the order of the cluster's durable facts: a command proposed through [`Consensus`] is flushed to a
//! majority's disks, applied to every replica's [`registry::Registry`] in the same order, and answered only
//! then. It refuses everything else: no request, token or heartbeat enters the log, nothing here looks inside a
//! command, and no type of openraft leaves the crate, so a change of library touches this folder alone.
//!
//! The way of a command: [`Consensus::propose`] in `handle.rs`, `forwarding.rs` (to the leader, if that is another),
//! `replica.rs`, then openraft, then `raft/log_store.rs`, which hands bytes to `wal/` (the write-ahead log: plain
//! files, no Raft), and `raft/network.rs`, which sends them to the others' `raft/service.rs`, then
//! `raft/state_machine.rs`, which applies and publishes. `wal/mod.rs` states what survives which failure.
//!
//! Groups of 1, 3 or 5: `changing.rs` checks and begins a change, `steward.rs` carries it out and completes what an
//! earlier leader began. `speech.rs` keeps a replica out of a cluster that speaks what it does not. `leadership.rs` says who leads, `room.rs` whether the disk has room; `epoch.rs` begins a new life from a copy of the facts.

mod handle;
mod options;
mod speech;
mod dial;
mod opening;
mod replica;
mod forwarding;
mod leadership;
mod members;
mod changing;
mod steward;
mod room;
mod epoch;
mod erasing;
mod change_error;
mod error;
mod health;
pub mod limits;
mod raft;
mod wal;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod tests;

pub use change_error::ChangeError;
pub use changing::{Even, Progress};
pub use dial::{Dial, NoDial};
pub use error::{
    Damage, EpochError, OpenError, ProposeError, ReadError, Retry, ShutdownError, SnapshotError,
};
pub use handle::Consensus;
pub use health::Health;
pub use leadership::Leadership;
pub use members::{MemberState, Role};
pub use options::{Options, ReplicaId, Start};
pub use raft::door::WhoIs;
pub use raft::service::{ReplicaService, Service};
pub use speech::Outdated;
