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
mod report;
mod effect;
mod fact;
mod limits;
mod recent;
mod machine;
mod turn;
mod intake;
mod requests;
mod ranked;
mod queue;
mod fairness;
mod wishes;
mod overload;
mod nodes;
mod fleet;
mod batcher;
mod ledger;
mod rates;
mod answers;
mod reference;
mod prefix;
mod placement;
mod candidates;
mod dispatch;
mod endings;
mod health;
mod breaker;
mod blame;
mod retry_budget;
mod homes;
mod residency;
mod drain;
mod decisions;
mod verdict;
mod views;
mod tellings;
pub mod invariants;
pub mod witness;

pub use blame::{BlameFact, Charge, Sentence};
pub use breaker::{
    Breaker, BreakerState, BreakerView, Cause, HardKind, Health, Move, MoveReason, ProbeNumber, ProbeOrder,
    ProbeResult, SoftKind, Tally,
};
pub use command::{Class, Command, Failure, Outcome, Submission, Usage};
pub use effect::{AbortReason, Affinity, Effect, Refusal, Why};
pub use fact::Fact;
pub use ids::{
    Attempt, Block, Fingerprint, Generation, Lane, ModelId, NodeId, RequestId, SessionKey, TenantId,
};
pub use limits::{
    AnswerLimits, BlameLimits, BreakerLimits, Limits, OverloadLimits, PrefixLimits, RateLimits,
    ResidencyLimits, RetryLimits,
};
pub use machine::Scheduler;
pub use overload::Rung;
pub use placement::{Candidate, Gate, Terms};
pub use report::{Measured, ModelReport, ModelState, NodeReport, Rates, StepSample};
pub use residency::{ModelPolicy, ReservationId, WhyNot};
pub use time::{At, Span};
pub use verdict::{Names, Standing, Verdict, gate_words, refusal_words};
pub use views::{Load, ModelLoad, Position, Waiting};
