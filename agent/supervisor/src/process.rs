//! One runtime process, from `Start` to `Exited`.
//!
//! Owns its phases and the one deadline each phase has. Refuses to end by itself: only `Exited` (or the news that it
//! never began) takes a process out of its life, because until then it may hold memory.

use core::fmt;

use crate::effect::{KillReason, Why};
use crate::limits::Limits;
use crate::supervisor::ModelKey;
use crate::time::{At, Span};

/// The number of one runtime process. Grows by one with each start of whichever model; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) incarnation: Incarnation,
    /// Held from `Start` to `Exited`.
    pub(crate) reserved_bytes: u64,
    /// None until the shell said that it was spawned.
    pub(crate) pid: Option<u32>,
    pub(crate) phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting {
        deadline: At,
    },
    Loading {
        watch: Watch,
    },
    Ready {
        watch: Watch,
        since: At,
        bytes: u64,
    },
    /// Ready, and not wanted any more: what runs in it may finish until the deadline.
    Draining {
        watch: Watch,
        since: At,
        bytes: u64,
        deadline: At,
    },
    /// Asked to stop, then killed and killed again. `failed`: because of a failure, not of a changed wish.
    Ending {
        kills: u32,
        next_kill: At,
        failed: bool,
    },
}

/// The last sign of life, and how long silence may last from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    last: At,
    silence_max: Span,
}

impl Watch {
    pub(crate) fn new(at: At, limits: &Limits) -> Self {
        Watch { last: at, silence_max: limits.hang_after(Span(0)) }
    }

    pub(crate) fn loading(at: At, limits: &Limits) -> Self {
        Watch { last: at, silence_max: limits.load_silence }
    }

    pub(crate) fn progress(&mut self, at: At, expected_step: Span, limits: &Limits) {
        *self = Watch { last: at, silence_max: limits.hang_after(expected_step) };
    }

    fn deadline(&self) -> At {
        self.last.after(self.silence_max)
    }
}

impl Process {
    pub(crate) fn deadline(&self, model: ModelKey) -> (At, Why) {
        match &self.phase {
            Phase::Starting { deadline } => (*deadline, Why::StartDeadline(model)),
            Phase::Loading { watch } | Phase::Ready { watch, .. } => {
                (watch.deadline(), Why::HangDeadline(model))
            }
            Phase::Draining { watch, deadline, .. } => {
                let finished = (*deadline, Why::DrainDeadline(model));
                finished.min((watch.deadline(), Why::HangDeadline(model)))
            }
            Phase::Ending { kills: 0, next_kill, .. } => (*next_kill, Why::StopGrace(model)),
            Phase::Ending { next_kill, .. } => (*next_kill, Why::KillAgain(model)),
        }
    }

    /// What a missed deadline of the present phase means; nothing worse than a stop for one that had its time to finish.
    pub(crate) fn overdue(&self, at: At) -> Option<KillReason> {
        match &self.phase {
            Phase::Starting { .. } => Some(KillReason::NoHello),
            Phase::Loading { .. } => Some(KillReason::LoadStalled),
            Phase::Ready { .. } => Some(KillReason::Hung),
            Phase::Draining { watch, .. } => (watch.deadline() <= at).then_some(KillReason::Hung),
            Phase::Ending { kills: 0, .. } => Some(KillReason::StopIgnored),
            Phase::Ending { kills, .. } => Some(KillReason::WontDie { kills: *kills }),
        }
    }

    /// How long it was ready and alive: to its last sign of life, not to the end of a silence.
    pub(crate) fn healthy(&self) -> Span {
        match &self.phase {
            Phase::Ready { watch, since, .. } | Phase::Draining { watch, since, .. } => {
                watch.last.since(*since)
            }
            Phase::Starting { .. } | Phase::Loading { .. } | Phase::Ending { .. } => Span(0),
        }
    }

    pub(crate) fn ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// On its way out, perhaps with work to finish.
    pub(crate) fn leaving(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Ending { .. })
    }

    /// What it was doing, for the sentence about its end.
    pub(crate) fn doing(&self) -> &'static str {
        match self.phase {
            Phase::Starting { .. } => "starting",
            Phase::Loading { .. } => "loading",
            Phase::Ready { .. } => "ready",
            Phase::Draining { .. } => "draining",
            Phase::Ending { .. } => "stopping",
        }
    }
}
