//! What is reported of a model.
//!
//! Owns the states and their words. A state is always derived from a model's life, never stored beside it, so the two
//! cannot disagree.

use alloc::string::String;
use core::fmt;

use crate::process::Incarnation;
use crate::time::At;

/// The state of a model on this Mac.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Wanted, without a process, and about to get one as soon as something allows.
    Waiting {
        /// What has to happen first.
        for_: WaitingFor,
    },
    /// Its process is coming up.
    Starting,
    /// Its runtime reads the weights.
    Loading,
    /// It can run requests.
    Ready {
        /// The process that holds it.
        incarnation: Incarnation,
        /// What it holds.
        bytes: u64,
    },
    /// It is not wanted any more, and lets what runs finish; nothing new begins.
    Draining,
    /// Its process is on the way out because the model is not wanted, or not in this size.
    Stopping,
    /// It cannot run requests, and why.
    Failed {
        /// In words for a person.
        reason: String,
        /// It will not be tried again until it is wanted anew.
        permanent: bool,
    },
    /// It is neither wanted nor here; the last state of a model.
    Gone,
}

/// What a model waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingFor {
    /// It failed, and is left alone for a while.
    Backoff {
        /// When it is tried again.
        until: At,
        /// The failure.
        reason: String,
    },
    /// Other models hold the memory it needs.
    Memory {
        /// Its footprint in bytes.
        needed: u64,
        /// What is left of the budget, in bytes.
        free: u64,
    },
    /// Its folder is being prepared; how large it is will be known then.
    Footprint,
    /// As many processes are alive as can be.
    Processes {
        /// How many that is.
        limit: usize,
    },
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelState::Waiting { for_ } => write!(f, "waiting {for_}"),
            ModelState::Starting => f.write_str("starting"),
            ModelState::Loading => f.write_str("loading"),
            ModelState::Ready { incarnation, bytes } => {
                write!(f, "ready in process {incarnation}, {bytes} bytes")
            }
            ModelState::Draining => f.write_str("draining"),
            ModelState::Stopping => f.write_str("stopping"),
            ModelState::Failed { reason, permanent: false } => write!(f, "failed: {reason}"),
            ModelState::Failed { reason, permanent: true } => write!(f, "failed for good: {reason}"),
            ModelState::Gone => f.write_str("gone"),
        }
    }
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitingFor::Backoff { until: _, reason } => write!(f, "a while after a failure: {reason}"),
            WaitingFor::Memory { needed, free } => {
                write!(f, "for memory: {needed} bytes needed, {free} free of this Mac's budget")
            }
            WaitingFor::Footprint => f.write_str("for its folder"),
            WaitingFor::Processes { limit } => write!(f, "for one of {limit} processes to end"),
        }
    }
}
