//! One breaker: its phase, its life, and how it changes. The same for a lane and for a node; a node is never degraded.
//!
//! Owns the phases and what an ended attempt means to a breaker that is on trial. Refuses evidence over several attempts
//! (`memory` has it) and to know which breaker it is.

use crate::ids::Generation;
use crate::time::{At, Span};

use super::health::Health;
use super::moves::{Breaker, BreakerState, Cause, Move, MoveReason};

#[derive(Clone, Debug)]
pub(super) struct Circuit {
    pub(super) phase: Phase,
    pub(super) since: At,
    /// How often it has opened.
    pub(super) generation: Generation,
    /// How often it has opened since it was last closed.
    pub(super) opens: u32,
    /// What moved it last.
    pub(super) why: Option<MoveReason>,
    /// When it is due for a probe, as the breakers' clock has it.
    pub(super) timer: Option<At>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Degraded {
        /// Answers in time since the last late one.
        calm: u32,
    },
    Open {
        until: At,
        cause: Cause,
    },
    Probing {
        cause: Cause,
    },
    SlowStart {
        allowed: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Close,
    Degrade,
    Open(Cause),
    Probe,
    SlowStart,
}

impl Circuit {
    pub(super) fn new(generation: Generation) -> Self {
        Self { phase: Phase::Closed, since: At(0), generation, opens: 0, why: None, timer: None }
    }

    /// Carries out a change; an opening is to last for `open_for`.
    pub(super) fn change(&mut self, at: At, change: Change, why: MoveReason, open_for: Span) {
        self.phase = match change {
            Change::Close => Phase::Closed,
            Change::Degrade => Phase::Degraded { calm: 0 },
            Change::Open(cause) => Phase::Open { until: at + open_for, cause },
            Change::Probe => Phase::Probing { cause: self.cause().unwrap_or(Cause::Hard) },
            Change::SlowStart => Phase::SlowStart { allowed: 1 },
        };
        match change {
            Change::Close => self.opens = 0,
            Change::Open(_) => {
                self.opens = self.opens.saturating_add(1);
                self.generation = Generation(self.generation.0.saturating_add(1));
            }
            Change::Degrade | Change::Probe | Change::SlowStart => {}
        }
        self.since = at;
        self.why = Some(why);
    }

    /// What an attempt that ended means to it while it is probed or starts slowly. A late answer is an answer, so it ends a
    /// probe; but only one in time makes a slow start faster. From an allowance of `width` the next step is full trust.
    pub(super) fn tried(&mut self, health: Health, width: u32) -> Option<(Change, MoveReason)> {
        match (self.phase, health) {
            (Phase::Closed | Phase::Degraded { .. } | Phase::Open { .. }, _)
            | (Phase::SlowStart { .. }, Health::Soft(_)) => None,
            (Phase::Probing { .. } | Phase::SlowStart { .. }, Health::Hard(kind)) => {
                Some((Change::Open(Cause::Hard), MoveReason::Failure(kind)))
            }
            (Phase::Probing { .. }, Health::Soft(_) | Health::Success) => {
                Some((Change::SlowStart, MoveReason::ProbeAnswered))
            }
            (Phase::SlowStart { allowed }, Health::Success) if allowed >= width => {
                Some((Change::Close, MoveReason::UpToSpeed))
            }
            (Phase::SlowStart { allowed }, Health::Success) => {
                self.phase = Phase::SlowStart { allowed: allowed.saturating_mul(2).min(width) };
                None
            }
        }
    }

    /// Ends an opening sooner.
    pub(super) fn open_until_at_most(&mut self, earliest: At) {
        if let Phase::Open { until, .. } = &mut self.phase {
            *until = earliest.min(*until);
        }
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Degraded { .. } => BreakerState::Degraded,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Probing { .. } => BreakerState::Probing,
            Phase::SlowStart { .. } => BreakerState::SlowStart,
        }
    }

    pub(super) fn until(&self) -> Option<At> {
        match self.phase {
            Phase::Open { until, .. } => Some(until),
            Phase::Closed | Phase::Degraded { .. } | Phase::Probing { .. } | Phase::SlowStart { .. } => None,
        }
    }

    /// Why it is not trusted; `None` while it is, or is on trial.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self.phase {
            Phase::Open { cause, .. } | Phase::Probing { cause } => Some(cause),
            Phase::Closed | Phase::Degraded { .. } | Phase::SlowStart { .. } => None,
        }
    }

    pub(super) fn allowed(&self) -> Option<u32> {
        match self.phase {
            Phase::SlowStart { allowed } => Some(allowed),
            Phase::Closed | Phase::Degraded { .. } | Phase::Open { .. } | Phase::Probing { .. } => None,
        }
    }

    /// Its latest change, as a fact.
    pub(super) fn moved(&self, breaker: Breaker, from: BreakerState, why: MoveReason) -> Move {
        Move {
            breaker,
            from,
            to: self.state(),
            generation: self.generation,
            at: self.since,
            until: self.until(),
            cause: self.cause(),
            opens: self.opens,
            why,
        }
    }
}
