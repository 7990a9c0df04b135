//! The life of one replica: a model on a node, from the intention to load it until its reservation is given back.
//!
//! ```text
//! Intended ─▶ Asked ─▶ Reserved ─▶ Loading ─▶ Ready ─▶ Leaving ─▶ (released)
//!  no memory   the registry         the agent reports   one way:
//!  yet         answers              └─▶ Failed ────────▶ no report ends it
//! ```
//!
//! Owns the phases and which report moves which. Refuses to believe an agent about memory: its bytes count from the proposal of
//! the reservation until the registry has released it, whatever a report says in between, since reports are late and
//! reservations are facts.

use alloc::format;
use alloc::string::{String, ToString};

use super::action::{EvictReason, LoadReason, ReservationId};
use crate::limits::ResidencyLimits;
use crate::time::{At, Span};
use crate::verdict::Names;

/// What an agent says of a model on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResidentState {
    /// The reservation is known there, and nothing runs.
    Reserved,
    /// It loads.
    Loading { ready_at: At },
    /// It serves.
    Ready,
    /// It is being unloaded.
    Unloading,
    /// It could not be loaded or has crashed, and the agent tries nothing more before `until`. A restart under way is
    /// `Loading`.
    Failed { until: At },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Chosen; its memory is not free yet.
    Intended {
        why: LoadReason,
    },
    /// The reservation is proposed.
    Asked {
        number: ReservationId,
        why: LoadReason,
    },
    /// The reservation is a fact; the agent has not begun.
    Reserved,
    Loading {
        ready_at: At,
    },
    Ready,
    Failed,
    Leaving {
        why: EvictReason,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Replica {
    pub(crate) bytes: u64,
    pub(crate) phase: Phase,
    /// When it came into its phase.
    pub(crate) since: At,
    /// The latest use seen.
    pub(crate) used: Option<At>,
    /// The age of the cache at its latest use: the L of GreedyDual-Size-Frequency.
    pub(crate) stamp: u64,
}

impl Phase {
    /// The phase of a model that was loaded without a reservation that is known; `None` when it uses no memory.
    pub(crate) fn unannounced(state: ResidentState) -> Option<Self> {
        match state {
            ResidentState::Loading { ready_at } => Some(Self::Loading { ready_at }),
            ResidentState::Ready => Some(Self::Ready),
            ResidentState::Unloading => Some(Self::Leaving { why: EvictReason::ByAgent }),
            ResidentState::Reserved | ResidentState::Failed { .. } => None,
        }
    }
}

impl Replica {
    pub(crate) fn new(bytes: u64, phase: Phase, at: At, stamp: u64) -> Self {
        Self { bytes, phase, since: at, used: None, stamp }
    }

    pub(crate) fn enter(&mut self, phase: Phase, at: At) {
        if self.phase != phase {
            self.phase = phase;
            self.since = at;
        }
    }

    /// How far it has come and why, in words; nothing for one that runs.
    pub(crate) fn phase_words(&self, names: &dyn Names) -> Option<String> {
        match self.phase {
            Phase::Intended { why } => Some(format!("to be loaded once there is room: {}", why.words())),
            Phase::Asked { why, .. } => Some(format!("its memory is being reserved: {}", why.words())),
            Phase::Reserved => Some("its memory is reserved, the load has not begun".to_string()),
            Phase::Loading { .. } => Some("loading".to_string()),
            Phase::Ready => None,
            Phase::Failed => Some("its load failed".to_string()),
            Phase::Leaving { why } => Some(format!("being unloaded: {}", why.words(names))),
        }
    }

    /// Takes in a report.
    pub(crate) fn report(&mut self, at: At, state: ResidentState) {
        let phase = match (self.phase, state) {
            // It goes, whatever an older report says; and a failure is the planner's to deal with.
            (Phase::Leaving { .. }, _)
            | (Phase::Intended { .. } | Phase::Asked { .. }, ResidentState::Failed { .. }) => return,
            // Nothing runs, as expected.
            (Phase::Intended { .. } | Phase::Asked { .. } | Phase::Failed, ResidentState::Reserved) => return,
            // The runtime is gone without a word (its agent started anew); the agent will load it again.
            (Phase::Reserved | Phase::Loading { .. } | Phase::Ready, ResidentState::Reserved) => {
                Phase::Reserved
            }
            // A load keeps the time of its start.
            (Phase::Loading { .. }, ResidentState::Loading { ready_at }) => {
                self.phase = Phase::Loading { ready_at };
                return;
            }
            (_, ResidentState::Loading { ready_at }) => Phase::Loading { ready_at },
            (_, ResidentState::Ready) => Phase::Ready,
            (_, ResidentState::Unloading) => Phase::Leaving { why: EvictReason::ByAgent },
            (
                Phase::Reserved | Phase::Loading { .. } | Phase::Ready | Phase::Failed,
                ResidentState::Failed { .. },
            ) => Phase::Failed,
        };
        self.enter(phase, at);
    }

    /// Whether its bytes count.
    pub(crate) fn is_taken(&self) -> bool {
        !matches!(self.phase, Phase::Intended { .. })
    }

    /// Whether it is on its way to be ready.
    pub(crate) fn is_coming(&self) -> bool {
        match self.phase {
            Phase::Intended { .. } | Phase::Asked { .. } | Phase::Reserved | Phase::Loading { .. } => true,
            Phase::Ready | Phase::Failed | Phase::Leaving { .. } => false,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether it may be told to go: it holds memory, and no answer to an earlier wish is open.
    pub(crate) fn is_evictable(&self) -> bool {
        match self.phase {
            Phase::Reserved | Phase::Loading { .. } | Phase::Ready | Phase::Failed => true,
            Phase::Intended { .. } | Phase::Asked { .. } | Phase::Leaving { .. } => false,
        }
    }

    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving { .. })
    }

    /// When it will be ready; `None` when it is not on its way.
    pub(crate) fn remaining(&self, at: At, load: Span, limits: &ResidencyLimits) -> Option<Span> {
        match self.phase {
            Phase::Intended { .. } => Some(limits.unload + load),
            Phase::Asked { .. } | Phase::Reserved => Some(load),
            Phase::Loading { ready_at } => Some(ready_at.since(at)),
            Phase::Ready => Some(Span::ZERO),
            Phase::Failed | Phase::Leaving { .. } => None,
        }
    }

    /// Whether it should long be ready. An unanswered proposal never is: the registry may still grant it.
    pub(crate) fn is_overdue(&self, at: At, load: Span, limits: &ResidencyLimits) -> bool {
        let patience = load.times(limits.overdue_loads).max(limits.overdue_min);
        match self.phase {
            Phase::Intended { .. } | Phase::Reserved | Phase::Loading { .. } => {
                at.since(self.since) > patience
            }
            Phase::Asked { .. } | Phase::Ready | Phase::Failed | Phase::Leaving { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHY: LoadReason = LoadReason::Waiting;
    const INTENDED: Phase = Phase::Intended { why: WHY };
    const ASKED: Phase = Phase::Asked { number: ReservationId(1), why: WHY };
    const LOADING: Phase = Phase::Loading { ready_at: At(9) };
    const GOING: Phase = Phase::Leaving { why: EvictReason::Idle };
    const BY_AGENT: Phase = Phase::Leaving { why: EvictReason::ByAgent };

    fn replica(phase: Phase) -> Replica {
        Replica::new(5, phase, At(1), 0)
    }

    #[test]
    fn every_report_meets_every_phase() {
        let states = [
            ResidentState::Reserved,
            ResidentState::Loading { ready_at: At(9) },
            ResidentState::Ready,
            ResidentState::Unloading,
            ResidentState::Failed { until: At(7) },
        ];
        let table = [
            (INTENDED, [INTENDED, LOADING, Phase::Ready, BY_AGENT, INTENDED]),
            (ASKED, [ASKED, LOADING, Phase::Ready, BY_AGENT, ASKED]),
            (Phase::Reserved, [Phase::Reserved, LOADING, Phase::Ready, BY_AGENT, Phase::Failed]),
            (LOADING, [Phase::Reserved, LOADING, Phase::Ready, BY_AGENT, Phase::Failed]),
            (Phase::Ready, [Phase::Reserved, LOADING, Phase::Ready, BY_AGENT, Phase::Failed]),
            (Phase::Failed, [Phase::Failed, LOADING, Phase::Ready, BY_AGENT, Phase::Failed]),
            (GOING, [GOING; 5]),
        ];
        for (before, after) in table {
            let reported = states.map(|state| {
                let mut replica = replica(before);
                replica.report(At(3), state);
                assert_eq!(
                    replica.since,
                    if replica.phase == before { At(1) } else { At(3) },
                    "{before:?} {state:?}"
                );
                replica.phase
            });
            assert_eq!(reported, after, "{before:?}");
        }
    }

    #[test]
    fn a_load_that_is_put_off_keeps_the_time_of_its_start() {
        let mut replica = replica(LOADING);
        replica.report(At(3), ResidentState::Loading { ready_at: At(20) });
        assert_eq!((replica.phase, replica.since), (Phase::Loading { ready_at: At(20) }, At(1)));
    }

    #[test]
    fn bytes_count_in_every_phase_but_the_intention() {
        let phases = [INTENDED, ASKED, Phase::Reserved, LOADING, Phase::Ready, Phase::Failed, GOING];
        assert_eq!(
            phases.map(|phase| replica(phase).is_taken()),
            [false, true, true, true, true, true, true]
        );
        assert_eq!(
            phases.map(|phase| replica(phase).is_coming()),
            [true, true, true, true, false, false, false]
        );
        assert_eq!(
            phases.map(|phase| replica(phase).is_ready()),
            [false, false, false, false, true, false, false]
        );
        assert_eq!(
            phases.map(|phase| replica(phase).is_leaving()),
            [false, false, false, false, false, false, true]
        );
    }

    #[test]
    fn the_time_until_ready_follows_the_phase() {
        let limits = ResidencyLimits { unload: Span(2), ..ResidencyLimits::default() };
        let phases = [INTENDED, ASKED, Phase::Reserved, LOADING, Phase::Ready, Phase::Failed, GOING];
        let remaining =
            phases.map(|phase| replica(phase).remaining(At(4), Span(30), &limits).map(|span| span.0));
        assert_eq!(remaining, [Some(32), Some(30), Some(30), Some(5), Some(0), None, None]);
    }

    #[test]
    fn only_a_load_nobody_decides_about_is_overdue() {
        let limits =
            ResidencyLimits { overdue_loads: 4, overdue_min: Span(60), ..ResidencyLimits::default() };
        let phases = [INTENDED, ASKED, Phase::Reserved, LOADING, Phase::Ready, Phase::Failed, GOING];
        let overdue = |at, load| phases.map(|phase| replica(phase).is_overdue(At(at), Span(load), &limits));
        assert_eq!(overdue(61, 1), [false; 7]);
        assert_eq!(overdue(62, 1), [true, false, true, true, false, false, false]);
        assert_eq!(overdue(62, 20), [false; 7], "four loads of 20 are longer than 60");
    }
}
