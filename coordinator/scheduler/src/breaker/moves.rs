//! The moves of breakers: what is written down, so that the next leader trusts nobody whom this one did not.
//!
//! Owns the shape of these facts. Refuses to keep them: they go to whoever replicates, and come back at a restart. Their times
//! are those of the clock that made them; who carries them to another machine translates.

use crate::ids::{Generation, Lane, NodeId};
use crate::time::At;

use super::health::{HardKind, SoftKind};

/// Which breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breaker {
    /// That of one model on one node.
    Lane(Lane),
    /// That of all models of a node.
    Node(NodeId),
}

/// What a breaker makes of its lane or node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Trusted.
    Closed,
    /// Trusted with half its width, and at a worse score: its answers are late.
    Degraded,
    /// Not trusted. It stays so until its time is over and its turn to be probed has come.
    Open,
    /// The one of the cluster that is being probed.
    Probing,
    /// On trial: trusted with one request, then two, then four.
    SlowStart,
}

/// Why a breaker is open, or was before its probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It fails.
    Hard,
    /// It is late.
    Soft,
}

/// A breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which one.
    pub breaker: Breaker,
    /// From what.
    pub from: BreakerState,
    /// To what.
    pub to: BreakerState,
    /// How often this breaker has opened in all.
    pub generation: Generation,
    /// When.
    pub at: At,
    /// The end of its time, when it opened.
    pub until: Option<At>,
    /// Why it is not trusted, when it opened or is probed.
    pub cause: Option<Cause>,
    /// How often it has opened since it was last closed.
    pub opens: u32,
    /// What moved it.
    pub why: MoveReason,
}

/// What moves a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveReason {
    /// One failure that is enough: a hang, a wrong canary, or any while on trial.
    Failure(HardKind),
    /// Hard failures in a row; the kind of the last.
    FailuresInARow(HardKind),
    /// Too many of the latest outcomes are hard failures; the kind of the last.
    FailureShare(HardKind),
    /// Too many of the latest answers are late; the kind of the last.
    Late(SoftKind),
    /// Too many are late even since it was degraded.
    StillLate(SoftKind),
    /// Answers in time, in a row.
    InTime,
    /// Its time was over and its turn came.
    TurnCame,
    /// The canary came to nothing, or to nothing in time.
    CanaryFailed,
    /// The runtime went away while it was probed.
    Vanished,
    /// The real request after the canary was answered.
    ProbeAnswered,
    /// The canary passed, and its one real request did not come, or did not end, while it had the probe.
    ProbeTimeOver,
    /// The slow start reached the lane's width.
    UpToSpeed,
    /// Several lanes of the node are open for hard failures.
    LanesOpen,
    /// The node is lost again and again.
    Flapping,
    /// No replica of the model is left, and a late answer is better than none.
    LastResort,
}
