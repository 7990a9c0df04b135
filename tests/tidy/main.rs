//! The house rules as tests: sizes, headers, names, arrows between crates, dependencies, and that ARCHITECTURE.md tells the
//! truth about the files it names.
//!
//! Rules without a machine behind them fail. Each test here is one rule; each lists every offender, not the first.

#![expect(clippy::expect_used, reason = "a test fails loudly")]

mod arrows;
mod documents;
mod mutants;
mod names;
mod python;
mod sizes;
mod tree;
