//! What may be sent to a lane now. Owns the combination of a lane's breaker with its node's and with the probe; refuses to
//! count what runs, which is the caller's.

use crate::ids::Lane;
use crate::limits::BreakerLimits;
use crate::time::At;

use super::circuit::{Circuit, Phase};
use super::probing::Step;
use super::{Breaker, Breakers};

/// What a lane may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// All it can carry.
    Free,
    /// Less, and at a worse score.
    Penalised {
        /// What to multiply its score by.
        factor: u32,
        /// What to divide its width by.
        width_divisor: u32,
    },
    /// So many at once, those included that run there already.
    Limited { allowed: u32 },
    /// Nothing. When `until` is past it waits for its turn to be probed.
    Shut { until: At },
    /// One request with a prompt of at most `probe_prompt_tokens_max`, whatever else still runs there.
    OneProbeRequest {
        /// It has it.
        taken: bool,
    },
}

impl Breakers {
    /// 1 under the probe, 2 node shut, 3 lane shut, 4 on trial, 5 late; else free.
    pub(crate) fn gate(&self, lane: Lane, limits: &BreakerLimits) -> Admission {
        // 1
        if let Some(probe) = self.probe.filter(|probe| probe.covers(lane)) {
            return match probe.step {
                Step::Request { taken } if probe.lane == lane => Admission::OneProbeRequest { taken },
                Step::Request { .. } | Step::Canary => Admission::Shut { until: probe.until },
            };
        }
        let (of_lane, of_node) = (self.circuit(Breaker::Lane(lane)), self.circuit(Breaker::Node(lane.0)));
        // 2, 3
        let until = of_lane.and_then(Circuit::until).max(of_node.and_then(Circuit::until));
        if let Some(until) = until {
            return Admission::Shut { until };
        }
        // 4
        let allowances = [of_lane, of_node].into_iter().flatten().filter_map(Circuit::allowed);
        if let Some(allowed) = allowances.min() {
            return Admission::Limited { allowed };
        }
        // 5
        let (factor, width_divisor) = (limits.degraded_factor, limits.degraded_width_divisor);
        match of_lane.map(|circuit| circuit.phase) {
            Some(Phase::Degraded { .. }) => Admission::Penalised { factor, width_divisor },
            Some(Phase::Closed | Phase::Open { .. } | Phase::Probing { .. } | Phase::SlowStart { .. })
            | None => Admission::Free,
        }
    }
}

impl Admission {
    /// The most that may be in flight on a lane which may carry `width` when it is trusted.
    pub(crate) fn width(self, width: u32) -> u32 {
        match self {
            Self::Free | Self::OneProbeRequest { taken: false } => width,
            Self::Penalised { width_divisor, .. } => (width / width_divisor.max(1)).max(1).min(width),
            Self::Limited { allowed } => allowed.min(width),
            Self::Shut { .. } | Self::OneProbeRequest { taken: true } => 0,
        }
    }

    /// Whether a model whose replicas are all like this one has nowhere to go.
    pub(crate) fn is_shut(self) -> bool {
        match self {
            Self::Shut { .. } | Self::OneProbeRequest { .. } => true,
            Self::Free | Self::Penalised { .. } | Self::Limited { .. } => false,
        }
    }

    /// Whether attempts of the lane's present life may be under way.
    pub(super) fn has_attempts(self) -> bool {
        match self {
            Self::Free
            | Self::Penalised { .. }
            | Self::Limited { .. }
            | Self::OneProbeRequest { taken: true } => true,
            Self::Shut { .. } | Self::OneProbeRequest { taken: false } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_follows_the_admission() {
        let penalised = Admission::Penalised { factor: 3, width_divisor: 2 };
        let widths = |admission: Admission| [0, 1, 2, 5, 8].map(|width| admission.width(width));
        assert_eq!(widths(Admission::Free), [0, 1, 2, 5, 8]);
        assert_eq!(widths(penalised), [0, 1, 1, 2, 4]);
        assert_eq!(widths(Admission::Limited { allowed: 2 }), [0, 1, 2, 2, 2]);
        assert_eq!(widths(Admission::Shut { until: At(1) }), [0; 5]);
        assert_eq!(widths(Admission::OneProbeRequest { taken: false }), [0, 1, 2, 5, 8]);
        assert_eq!(widths(Admission::OneProbeRequest { taken: true }), [0; 5]);
        let undivided = Admission::Penalised { factor: 3, width_divisor: 0 };
        assert_eq!(widths(undivided), [0, 1, 2, 5, 8]);
    }
}
