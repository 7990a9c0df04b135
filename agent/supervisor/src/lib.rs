//! The life of every runtime on one Mac, as a state machine. Pure.
//!
//! Owns the decisions of an agent: which runtime process starts, loads, stops or is killed, and when; how long a model
//! that fails is left alone; and that memory is never promised twice. Time comes in with each command, effects go
//! out, and the shell carries them out and tells what came of it:
//!
//! ```text
//! Want ──▶ Start ──▶ Started, Hello ──▶ Load ──▶ Loaded (Ready) ──▶ Progress, Progress, …
//!               any failure ──▶ Stop or Kill ──▶ Exited ──▶ back-off ──▶ Start
//!               no longer wanted ──▶ Drain ──▶ Drained ──▶ Stop ──▶ Exited
//! ```
//!
//! Refuses to know what a process, a folder or a socket is, and to believe in anything but progress: a runtime that
//! is connected and silent is hung.
//!
//! The contract with the shell. After `Start` it answers `Started` or `StartFailed`; after `Started` there is an
//! `Exited`, sooner or later. It calls `apply` with [`Command::Wake`] when [`Supervisor::next_deadline`] is reached.
//! It lists a model whose folder is not read yet with 0 bytes, and again with its size when that is known.

#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

extern crate alloc;

mod command;
mod supervisor;
mod life;
mod process;
mod backoff;
mod state;
mod effect;
mod verdict;
mod invariants;
mod exit;
mod time;
pub mod limits;

pub use command::{Command, Wanted};
pub use effect::{Effect, KillReason, Why};
pub use exit::ExitStatus;
pub use invariants::Violation;
pub use limits::Limits;
pub use process::Incarnation;
pub use state::{ModelState, WaitingFor};
pub use supervisor::{ModelKey, Supervisor};
pub use time::{At, Span};
pub use verdict::Verdict;
