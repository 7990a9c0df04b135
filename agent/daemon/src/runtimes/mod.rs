//! Runtimes: the processes that own the GPU, one for each loaded model.
//!
//! Owns the way from "start this" to frames and back. Refuses to know models, sessions or streams: it is handed a program, a
//! folder and token ids.

mod run_folder;
mod process;
mod group;
mod last_words;
mod connection;
mod frames;
mod incoming;
mod rows;
mod outbox;
mod rates;
mod step_sums;
mod figures;
mod told;
mod runtime;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

pub(crate) use figures::SharedFigures;
#[cfg(test)]
pub(crate) use frames::StepStats;
pub(crate) use frames::{Generate, Logprobs, RowExtra, RowFinish, Sampling};
pub(crate) use outbox::{Loss, Piece, RowEnd};
pub(crate) use process::{Ending, Launch};
pub(crate) use rows::NoRow;
pub(crate) use run_folder::RunFolder;
pub(crate) use runtime::{Attempt, Event, Events, Runtime};
pub(crate) use step_sums::StepSample;
pub(crate) use told::Told;
