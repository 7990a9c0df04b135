//! The mind: which request runs where, and when. Pure.
//!
//! Owns the global queue, the ledger of what runs, and the choice of a node for each attempt. Refuses clocks, IO, randomness,
//! threads and panics: time and every fact come in as arguments, every wish goes out as an [`Effect`], so the same machine
//! runs under the coordinator, under a simulator and behind a what-if question, and answers the same to the same commands.
//!
//! The rooms, in the order in which a request meets them; none calls another, only `machine` and `dispatch` route between
//! them: `requests` (the life of each), `queue` (lines), `fleet` (nodes and what they hold), `batcher` (how wide each
//! runtime may run), `ledger` (what is in flight), `predictor` (how long answers get), `placement` (the score), `drain`
//! (how fast the queue moves), `decisions` (why it came so).

#![cfg_attr(not(test), no_std)]
#![warn(missing_docs)]

extern crate alloc;

mod time;
mod ids;
mod command;
mod effect;
mod limits;
mod machine;
mod turn;
mod requests;
mod queue;
mod fleet;
mod batcher;
mod ledger;
mod predictor;
mod placement;
mod dispatch;
mod drain;
mod decisions;
mod verdict;
mod views;
pub mod invariants;
pub mod witness;

pub use command::{Class, Command, ModelReport, NodeReport, Outcome, Rates, Submission};
pub use effect::{AbortReason, Effect, Refusal, Why};
pub use ids::{
    Attempt, Block, Fingerprint, Generation, Lane, ModelId, NodeId, RequestId, SessionKey, TenantId,
};
pub use limits::Limits;
pub use machine::Scheduler;
pub use placement::{Candidate, Gate, Terms};
pub use time::{At, Span};
pub use verdict::{Names, Standing, Verdict};
pub use views::{Load, ModelLoad, Position};
