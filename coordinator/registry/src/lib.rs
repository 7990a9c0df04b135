//! The durable facts of a cluster, and the only way they change. Pure.
//!
//! Owns what must outlive every process: who founded the cluster and with which certificate authority, which gives way to it, which
//! join tokens are out, which nodes were admitted, drained or revoked, which models each of them offers, which it
//! holds and how much memory that reserves, how often each model shall be held, how each breaker last moved, which
//! requests killed runtimes, what a healthy runtime answers to the canary, which change of the coordinators' group is
//! under way, which API keys there are, how much they may use and have used, which requests are answered only once and who has their answers, which
//! files and batches there are and who has their bytes, what administrators did, and which version of all this every replica understands. A fact changes by [`Registry::apply`] and by nothing else, so replicas that apply the same
//! commands in the same order are equal; [`Registry::begin_epoch`] makes another registry of a copy.
//!
//! Refuses what does not endure: no load, heartbeat or waiting request is known here, and of a request that killed
//! never more than its fingerprint, of one that is answered only once never more than keyed digests. Also refuses to
//! guess: it has no clock and no randomness. The proposer stamps a command with time, ids and hashes, and the reply to
//! an accepted command depends on the facts alone.
//!
//! What is on disk is the JSON of [`Command`] (the log) and of [`Registry`] (the snapshot). Both are read by
//! later releases: a new field gets a default, a field or name that was once written is never reused with
//! another meaning, and a change of meaning is a new command, with a new version of the cluster (`version.rs`). `tests/golden/older` holds what must stay readable.

#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

extern crate alloc;

mod command;
mod command_debug;
mod registry;
mod version;
mod sealing;
mod rotation;
mod ca_refusal;
mod joining;
mod wanting;
mod placing;
mod policy;
mod draining;
mod breakers;
mod blame;
mod canary;
mod voters;
mod key;
mod allowance;
mod usage;
mod keys;
mod key_refusal;
mod job;
mod jobs;
mod job_refusal;
mod responses;
mod response_change;
mod file;
mod files;
mod batch;
mod batch_change;
mod batches;
mod batch_refusal;
mod batch_field;
mod audit;
mod command_words;
mod reply;
mod field;
mod key_field;
mod facts;
mod names;
mod model;
mod fingerprint;
mod hex_number;
mod secret_hash;
pub mod limits;

pub use allowance::Allowance;
pub use audit::{AuditEntry, BrokenTrail, Outcome, verify};
pub use batch::{Batch, BatchEndpoint, BatchId, BatchStatus, EndedBatch, Ending, Opened, Problem, Progress};
pub use batch_change::BatchChange;
pub use batch_field::BatchField;
pub use batch_refusal::BatchRefusal;
pub use blame::{Charge, Death, Quarantine};
pub use breakers::{Breaker, BreakerState};
pub use ca_refusal::CaRefusal;
pub use command::Command;
pub use facts::{Cluster, Node, Token};
pub use field::Field;
pub use file::{FileChange, FileId, Purpose, StoredFile};
pub use fingerprint::Fingerprint;
pub use job::{Deferred, Digest, Ended, Job, JobId, JobRun, KeptAnswer, Life, Tenant};
pub use job_refusal::JobRefusal;
pub use key::{ApiKey, Grant, KeySecret, Scope};
pub use key_field::KeyField;
pub use key_refusal::KeyRefusal;
pub use model::{InvalidModelName, ModelName, ModelSource};
pub use names::{ClusterId, KeyId, NodeId, Role, TokenId};
pub use placing::Placement;
pub use policy::ModelPolicy;
pub use registry::Registry;
pub use reply::{Bounded, Refusal, Reply};
pub use response_change::ResponseChange;
pub use rotation::{CaStep, FOUNDER, Rotation};
pub use usage::{KeyUsage, UsageMark, Used, rest_of_month_ms};
pub use version::ClusterVersion;
pub use voters::VoterChange;
