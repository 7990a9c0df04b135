//! The mind: which request runs where, and when. Pure.
//!
//! Owns the global queue, the ledger of what runs, and the choice of a node for each attempt. Refuses clocks, IO, randomness,
//! threads and panics: time and every fact come in as arguments, every wish goes out as an [`Effect`], so the same machine
//! runs under the coordinator, under a simulator and behind a what-if question, and answers the same to the same commands.
//!
//! The parts of `machine`, one for each kind of fact, in the order in which a request meets them: `intake` (the door), `adoption`
//! (the door for what an earlier leader had taken in), `settling` (nothing starts before that is told), `dispatch` (from the line to
//! a node) over `candidates` (how each node looks to it), `endings` (what becomes of an attempt), `health` (what that says of the node
//! and of the request), `nodes` (reports and losses), `homes` (which model is where). They route between the rooms, none of which
//! calls another:
//!
//! 1. At the door: `blame` (has it killed), `prefix` (what is cached where), `answers` (how long they get), `reference` (how
//!    large it is), `requests` (the life of each).
//! 2. In line: `fairness` (whose turn), `queue` over `ranked` (the order), `wishes` (who wants which cache), `overload` (how far
//!    service is taken back), `drain` (how fast the line moves).
//! 3. To a node: `fleet` (who holds what), `breaker` (who is trusted), `batcher` (how wide each runtime may run), `rates` (how fast
//!    each is), `placement` (the score), `ledger` (what is in flight), `retry_budget` (how many may be retries).
//! 4. Beside: `residency` (which model should be where), `decisions` (why it came so).
//!
//! Before all that, and known to none of it: `allowance` (how much an account may ask for).
//!
//! What is told: `views` (figures), `verdict` and `tellings` (words), `fact` (what outlives a leader). What must be true: `invariants`
//! of each state, `witness` of the history.

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
mod adoption;
mod settling;
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
pub mod allowance;
pub mod invariants;
pub mod witness;

pub use blame::{BlameFact, Charge, Sentence};
pub use breaker::{
    Breaker, BreakerState, BreakerView, Cause, HardKind, Health, Move, MoveReason, ProbeNumber, ProbeOrder,
    ProbeResult, SoftKind, Tally,
};
pub use command::{Adopted, Class, Command, Failure, Outcome, Submission, Usage};
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
pub use prefix::PrefixTotals;
pub use report::{Measured, ModelReport, ModelState, NodeReport, Rates, StepSample};
pub use residency::{ModelPolicy, ReservationId, WhyNot};
pub use time::{At, Span};
pub use verdict::{Names, Standing, Verdict, gate_words, refusal_words};
pub use views::{Load, ModelLoad, Position, Waiting};
