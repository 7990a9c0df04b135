//! What the end of an attempt says about the runtime it ran on. Owns the classes; refuses to guess them.
//!
//! Only tokens prove health, so an attempt speaks once, when it has ended: a success that is counted when the stream opens
//! would close a breaker on a runtime that never sends a token. Three kinds of end are not told here at all, since they say
//! nothing about the runtime: "busy" (the batcher narrows the lane), what the client did (it hung up, it asked for what no
//! runtime can do), and the death that a poison request brought about (the request is charged).

use crate::ids::{Generation, Lane, RequestId};

/// What an ended attempt says about its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It came to nothing, and not by its own fault.
    Hard(HardKind),
    /// The answer is complete, but was late. Told in place of a success, not beside it.
    Soft(SoftKind),
    /// The answer is complete, to its finish reason.
    Success,
}

/// How an attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardKind {
    /// The runtime's process ended.
    RuntimeExit,
    /// The stream was reset before its end.
    Reset,
    /// The runtime's step loop showed no progress.
    Hang,
    /// A frame that makes no sense.
    CorruptFrame,
    /// The fixed prompt had another answer than the known one: the runtime computes wrongly, whatever it looks like.
    CanaryMismatch,
    /// The whole node went away.
    NodeLost,
}

/// How an answer was late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftKind {
    /// The first token took far longer than predicted.
    FirstTokenLate,
    /// The tokens after it came far slower than they should.
    TokensLate,
}

/// An attempt that has ended, as far as its lane's health goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) lane: Lane,
    /// The lane's when the attempt was dispatched.
    pub(crate) generation: Generation,
    pub(crate) request: RequestId,
    pub(crate) health: Health,
    /// Replicas of the model that could take work now, this lane included.
    pub(crate) replicas: usize,
    /// The most attempts the lane may carry when it is trusted.
    pub(crate) width: u32,
}

impl HardKind {
    /// A runtime that hangs or computes wrongly will do so again; one that died or dropped a stream may not.
    pub(super) fn is_enough_alone(self) -> bool {
        match self {
            Self::Hang | Self::CanaryMismatch => true,
            Self::RuntimeExit | Self::Reset | Self::CorruptFrame | Self::NodeLost => false,
        }
    }
}
