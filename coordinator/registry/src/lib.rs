//! The durable facts of a cluster, and the only way they change. Pure.
//!
//! Owns what must outlive every process: who founded the cluster and with which certificate authority, which
//! join tokens are out, which nodes were admitted or revoked, which models each of them shall hold. A fact
//! changes by [`Registry::apply`] and by nothing else, so replicas that apply the same commands in the same
//! order are equal.
//!
//! Refuses what does not endure: no request, load, health or liveness is known here. Also refuses to guess:
//! it has no clock and no randomness. The proposer stamps a command with time, ids and hashes, and the reply to
//! an accepted command depends on the facts alone.
//!
//! What is on disk is the JSON of [`Command`] (the log) and of [`Registry`] (the snapshot). Both are read by
//! later releases: a new field gets a default, a field or name that was once written is never reused with
//! another meaning, and a change of meaning is a new command. `tests/golden/older` holds what must stay readable.

#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

extern crate alloc;

mod command;
mod registry;
mod joining;
mod wanting;
mod reply;
mod facts;
mod names;
mod model;
mod secret_hash;
pub mod limits;

pub use command::Command;
pub use facts::{Cluster, Node, Token};
pub use model::{InvalidModelName, ModelName, ModelSource};
pub use names::{ClusterId, NodeId, Role, TokenId};
pub use registry::Registry;
pub use reply::{Bounded, Field, Refusal, Reply};
