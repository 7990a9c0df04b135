//! What the supervisor is told.
//!
//! Owns the list of commands: one wish, and the facts the shell observed. Refuses none of them: a fact about a process
//! that is no longer the model's is ignored.

use alloc::string::String;
use alloc::vec::Vec;

use crate::exit::ExitStatus;
use crate::process::Incarnation;
use crate::supervisor::ModelKey;
use crate::time::Span;

/// A wish, or something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The complete desired set; what is not in it is not desired.
    Want {
        /// One entry per model; of two for the same model the last counts.
        models: Vec<Wanted>,
    },
    /// A model's folder could not be prepared or read. Also answers `Start` when nothing was spawned.
    Unresolvable {
        /// The model.
        model: ModelKey,
        /// In words for a person.
        reason: String,
        /// Trying again later may help.
        retry: bool,
    },
    /// The process was spawned.
    Started {
        /// Which one.
        incarnation: Incarnation,
        /// Its process id.
        pid: u32,
    },
    /// The process could not be spawned; there is none.
    StartFailed {
        /// Which one.
        incarnation: Incarnation,
        /// In words for a person.
        reason: String,
    },
    /// The runtime connected.
    Hello {
        /// Which one.
        incarnation: Incarnation,
    },
    /// The runtime holds the model.
    Loaded {
        /// Which one.
        incarnation: Incarnation,
        /// What it holds, as far as the runtime knows; may exceed the prediction.
        bytes: u64,
    },
    /// The runtime could not load the model; it is still alive.
    LoadFailed {
        /// Which one.
        incarnation: Incarnation,
        /// In words for a person.
        reason: String,
        /// The same folder will fail again.
        permanent: bool,
    },
    /// A progress or step frame: the thread that owns the GPU is alive.
    Progress {
        /// Which one.
        incarnation: Incarnation,
        /// How long its next step is expected to take.
        expected_step: Span,
    },
    /// Nothing runs in the runtime that was to be drained, and nothing new can begin in it.
    Drained {
        /// Which one.
        incarnation: Incarnation,
    },
    /// The process is gone.
    Exited {
        /// Which one.
        incarnation: Incarnation,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        last_words: String,
    },
    /// Stop everything and start nothing more, for the rest of this agent's life. Waits for nothing that runs: the shell has
    /// done so before.
    Drain,
    /// Time passed; nothing else happened.
    Wake,
}

/// One desired model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The model.
    pub model: ModelKey,
    /// Predicted footprint: weights, KV cache and overhead. 0: not known yet, the folder is being prepared. Another size
    /// than before counts from the next start; a process keeps the reservation it was started with.
    pub bytes: u64,
}
