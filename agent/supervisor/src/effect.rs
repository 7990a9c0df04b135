//! What the supervisor wants done, and what it waits for.
//!
//! Owns the list of effects. Refuses queries: an effect is carried out in order, and its outcome comes back as a command.

use core::fmt;

use crate::process::Incarnation;
use crate::state::ModelState;
use crate::supervisor::ModelKey;

/// Something for the shell to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Spawn a runtime process in a process group of its own.
    Start {
        /// The new process.
        incarnation: Incarnation,
        /// The model it is for.
        model: ModelKey,
    },
    /// Tell the connected runtime to load its model.
    Load {
        /// The process.
        incarnation: Incarnation,
        /// The model.
        model: ModelKey,
    },
    /// Let nothing new begin in the runtime, and say `Drained` as soon as nothing runs in it. `Stop` follows then, or when
    /// that takes too long.
    Drain {
        /// The process.
        incarnation: Incarnation,
    },
    /// The model is wanted again before it was drained: let work begin as before.
    Resume {
        /// The process.
        incarnation: Incarnation,
    },
    /// Ask the runtime to end by itself, whatever runs in it; `Kill` follows if it does not.
    Stop {
        /// The process.
        incarnation: Incarnation,
    },
    /// SIGKILL to the whole process group.
    Kill {
        /// The process.
        incarnation: Incarnation,
        /// Why.
        reason: KillReason,
    },
    /// What to report of a model; only when it changed.
    State {
        /// The model.
        model: ModelKey,
        /// Its state.
        state: ModelState,
    },
}

/// Why a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It did not connect in time.
    NoHello,
    /// It made no progress while loading.
    LoadStalled,
    /// It made no progress while ready.
    Hung,
    /// It did not end by itself after `Stop`.
    StopIgnored,
    /// It was killed before, this many times, and did not go. An alarm: the process hangs in the kernel, and its memory
    /// stays reserved.
    WontDie {
        /// Kills so far.
        kills: u32,
    },
    /// It was given up before it was reported as started; the shell broke its contract. An alarm.
    Stray,
}

impl KillReason {
    /// Something that should not happen; log it where people look.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        match self {
            KillReason::NoHello | KillReason::LoadStalled | KillReason::Hung | KillReason::StopIgnored => {
                false
            }
            KillReason::WontDie { .. } | KillReason::Stray => true,
        }
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillReason::NoHello => f.write_str("the runtime did not connect"),
            KillReason::LoadStalled => f.write_str("the runtime stopped making progress while loading"),
            KillReason::Hung => f.write_str("the runtime stopped making progress"),
            KillReason::StopIgnored => f.write_str("the runtime did not stop when asked"),
            KillReason::WontDie { kills } => {
                write!(
                    f,
                    "the runtime is still there though killed before (kills: {kills}); if it stays, restart this Mac"
                )
            }
            KillReason::Stray => f.write_str("a process that was given up appeared after all"),
        }
    }
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The runtime must have connected.
    StartDeadline(ModelKey),
    /// The runtime must have made progress.
    HangDeadline(ModelKey),
    /// What runs in the unwanted runtime must have finished.
    DrainDeadline(ModelKey),
    /// The runtime must have ended by itself.
    StopGrace(ModelKey),
    /// The killed process must be gone.
    KillAgain(ModelKey),
    /// The model has been left alone long enough.
    BackoffOver(ModelKey),
}
