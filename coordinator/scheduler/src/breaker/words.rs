//! States of a breaker and what moved it, in words. Owns the words that people read in explanations and events; refuses numbers,
//! which [`super::BreakerView`] has.

use super::health::{HardKind, SoftKind};
use super::moves::{BreakerState, MoveReason};

impl BreakerState {
    /// The state as an adjective.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Degraded => "degraded",
            Self::Open => "open",
            Self::Probing => "being probed",
            Self::SlowStart => "in slow start",
        }
    }
}

impl MoveReason {
    /// The reason as a clause.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Failure(kind) | Self::FailuresInARow(kind) | Self::FailureShare(kind) => kind.words(),
            Self::Late(kind) | Self::StillLate(kind) => kind.words(),
            Self::InTime => "its answers come in time again",
            Self::TurnCame => "it is its turn to be probed",
            Self::CanaryFailed => "the canary had no answer",
            Self::Vanished => "the runtime went away while it was probed",
            Self::ProbeAnswered => "the first real request was answered",
            Self::ProbeTimeOver => "the canary passed and no real request came in time",
            Self::UpToSpeed => "it carries its full width again",
            Self::LanesOpen => "several of its models fail",
            Self::Flapping => "it is lost again and again",
            Self::LastResort => "no other replica of the model is left",
        }
    }
}

impl HardKind {
    /// The failure as a clause.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::RuntimeExit => "the runtime exited",
            Self::Reset => "streams were reset",
            Self::Hang => "the runtime hung",
            Self::CorruptFrame => "the runtime sent garbage",
            Self::CanaryMismatch => "the canary's answer is wrong",
            Self::NodeLost => "the node was lost",
        }
    }
}

impl SoftKind {
    /// The lateness as a clause.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::FirstTokenLate => "first tokens come late",
            Self::TokensLate => "tokens come slowly",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_told_by_what_went_wrong() {
        assert_eq!(MoveReason::FailuresInARow(HardKind::Reset).words(), "streams were reset");
        assert_eq!(MoveReason::StillLate(SoftKind::TokensLate).words(), "tokens come slowly");
        assert_eq!(BreakerState::SlowStart.words(), "in slow start");
    }
}
