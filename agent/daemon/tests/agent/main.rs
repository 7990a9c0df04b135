//! The agent from outside: a real agent with real child processes, between a coordinator and a runtime that the test plays.
//!
//! Each file proves one side of the promise; `room` sets the stage, `coordinator` and `runtime` are the two doubles.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod authority;
mod coordinator;
mod runtime;
mod room;
mod joining;
mod streaming;
mod turning;
mod faults;
mod several;
mod residency;
mod measuring;
mod leaving;
mod guarding;
#[path = "../../../../proto/tests/nonsense/mod.rs"]
mod nonsense;
mod liar;
mod lying;
