//! What is true of the breakers after every call: one function per law.
//!
//! Owns the laws that can be read off a state, for tests and simulators. Refuses to mend. Laws over a history (a late end
//! changes nothing, lateness never shuts the last replica) are the tests'.

use crate::ids::Lane;
use crate::limits::BreakerLimits;

use super::circuit::{Circuit, Phase};
use super::{Admission, Breaker, Breakers};

/// A law that does not hold, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenTrust {
    /// It is being probed, and is not whom the one probe is for.
    ProbedTwice(Breaker),
    /// The probe is for one who is not being probed.
    ProbeOfNobody(Breaker),
    /// Something may be sent to a lane that is open, or whose node is.
    OpenAndAdmitting(Lane),
    /// A slow start allows nothing.
    Stuck(Breaker),
    /// An opening is longer than any may be.
    OpenTooLong(Breaker),
    /// The clock does not know when it is due, or has it wrong.
    Unclocked(Breaker),
    /// More is kept than there is room for.
    OverBound,
}

impl Breakers {
    /// All laws.
    pub(crate) fn check(&self, limits: &BreakerLimits) -> Result<(), BrokenTrust> {
        self.one_probe()?;
        self.shut_is_shut(limits)?;
        self.circuits().try_for_each(|(breaker, circuit)| self.sound(breaker, circuit, limits))?;
        self.clock()?;
        self.bounds(limits)
    }

    fn one_probe(&self) -> Result<(), BrokenTrust> {
        let probing = |circuit: &Circuit| matches!(circuit.phase, Phase::Probing { .. });
        for (breaker, _) in self.circuits().filter(|(_, circuit)| probing(circuit)) {
            let own = |probe: &super::Probe| probe.breaker == breaker || Breaker::Lane(probe.lane) == breaker;
            if !self.probe.as_ref().is_some_and(own) {
                return Err(BrokenTrust::ProbedTwice(breaker));
            }
        }
        match self.probe {
            Some(probe) if !self.circuit(probe.breaker).is_some_and(probing) => {
                Err(BrokenTrust::ProbeOfNobody(probe.breaker))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn shut_is_shut(&self, limits: &BreakerLimits) -> Result<(), BrokenTrust> {
        let open = |breaker| {
            self.circuit(breaker).is_some_and(|circuit| matches!(circuit.phase, Phase::Open { .. }))
        };
        for lane in self.lanes.keys().copied() {
            let shut = matches!(self.gate(lane, limits), Admission::Shut { .. });
            if (open(Breaker::Lane(lane)) || open(Breaker::Node(lane.0))) && !shut {
                return Err(BrokenTrust::OpenAndAdmitting(lane));
            }
        }
        Ok(())
    }

    fn sound(&self, breaker: Breaker, circuit: &Circuit, limits: &BreakerLimits) -> Result<(), BrokenTrust> {
        match circuit.phase {
            Phase::SlowStart { allowed: 0 } => Err(BrokenTrust::Stuck(breaker)),
            Phase::Open { until, .. } if until.since(circuit.since) > limits.open_max => {
                Err(BrokenTrust::OpenTooLong(breaker))
            }
            Phase::Closed
            | Phase::Degraded { .. }
            | Phase::Open { .. }
            | Phase::Probing { .. }
            | Phase::SlowStart { .. } => Ok(()),
        }
    }

    fn clock(&self) -> Result<(), BrokenTrust> {
        for (breaker, circuit) in self.circuits() {
            let due_at = self.due_at(breaker);
            let set = due_at.is_none_or(|at| self.due.contains(&(at, breaker)));
            if circuit.timer != due_at || !set {
                return Err(BrokenTrust::Unclocked(breaker));
            }
        }
        let timers = self.circuits().filter(|(_, circuit)| circuit.timer.is_some()).count();
        match self.due.first() {
            Some((_, breaker)) if self.due.len() != timers => Err(BrokenTrust::Unclocked(*breaker)),
            Some(_) | None => Ok(()),
        }
    }

    fn bounds(&self, limits: &BreakerLimits) -> Result<(), BrokenTrust> {
        let full = self.lanes.len() > limits.lanes_max || self.nodes.len() > limits.lanes_max;
        let long = self.nodes.values().any(|watched| watched.losses.len() > limits.node_losses);
        if full || long { Err(BrokenTrust::OverBound) } else { Ok(()) }
    }

    fn circuits(&self) -> impl Iterator<Item = (Breaker, &Circuit)> {
        let lanes = self.lanes.iter().map(|(lane, watched)| (Breaker::Lane(*lane), &watched.circuit));
        let nodes = self.nodes.iter().map(|(node, watched)| (Breaker::Node(*node), &watched.circuit));
        lanes.chain(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Cause;
    use crate::breaker::rig_tests::*;
    use crate::time::{At, Span};

    const LANE: Breaker = Breaker::Lane(A);

    /// A is being probed; OTHER is open.
    fn room() -> Rig {
        let mut rig = Rig::new();
        [A, OTHER].into_iter().for_each(|lane| rig.end(lane, HANG));
        rig.due_in(5).expect("its turn");
        rig
    }

    fn broken(rig: &Rig) -> Result<(), BrokenTrust> {
        rig.breakers.check(&rig.limits)
    }

    fn set(rig: &mut Rig, lane: Lane, phase: Phase) {
        rig.breakers.circuit_mut(Breaker::Lane(lane)).expect("watched").phase = phase;
        rig.breakers.reindex(Breaker::Lane(lane));
    }

    #[test]
    fn a_second_probe_is_noticed() {
        let mut rig = room();
        set(&mut rig, OTHER, Phase::Probing { cause: Cause::Hard });
        assert_eq!(broken(&rig), Err(BrokenTrust::ProbedTwice(Breaker::Lane(OTHER))));
    }

    #[test]
    fn a_probe_that_nobody_is_under_is_noticed() {
        let mut rig = room();
        set(&mut rig, A, Phase::Closed);
        assert_eq!(broken(&rig), Err(BrokenTrust::ProbeOfNobody(LANE)));
    }

    #[test]
    fn an_open_lane_that_admits_is_noticed() {
        let mut rig = room();
        rig.probed(crate::breaker::ProbeResult::Passed);
        rig.lose(NODE);
        assert_eq!(broken(&rig), Ok(()));
        let mut rig = room();
        rig.probed(crate::breaker::ProbeResult::Passed);
        rig.breakers.nodes.insert(NODE, crate::breaker::WatchedNode::new());
        rig.breakers.circuit_mut(Breaker::Node(NODE)).expect("watched").phase =
            Phase::Open { until: At(9), cause: Cause::Hard };
        assert_eq!(broken(&rig), Err(BrokenTrust::OpenAndAdmitting(A)));
    }

    #[test]
    fn a_slow_start_of_nothing_is_noticed() {
        let mut rig = room();
        set(&mut rig, B, Phase::SlowStart { allowed: 0 });
        assert_eq!(broken(&rig), Err(BrokenTrust::Stuck(Breaker::Lane(B))));
    }

    #[test]
    fn an_opening_without_bound_is_noticed() {
        let mut rig = room();
        let until = rig.limits.open_max + Span(1);
        set(&mut rig, B, Phase::Open { until: At(0) + until, cause: Cause::Hard });
        assert_eq!(broken(&rig), Err(BrokenTrust::OpenTooLong(Breaker::Lane(B))));
    }

    #[test]
    fn a_clock_that_is_wrong_is_noticed() {
        let mut rig = room();
        rig.breakers.due.clear();
        assert_eq!(broken(&rig), Err(BrokenTrust::Unclocked(Breaker::Lane(OTHER))));
        let mut rig = room();
        rig.breakers.due.insert((At(1), LANE));
        assert_eq!(broken(&rig), Err(BrokenTrust::Unclocked(LANE)));
        let mut rig = room();
        rig.breakers.circuit_mut(LANE).expect("watched").timer = Some(At(1));
        assert_eq!(broken(&rig), Err(BrokenTrust::Unclocked(LANE)));
    }

    #[test]
    fn more_than_there_is_room_for_is_noticed() {
        let mut rig = room();
        rig.limits.lanes_max = 2;
        assert_eq!(broken(&rig), Err(BrokenTrust::OverBound));
        let mut rig = room();
        rig.lose(NODE);
        rig.limits.node_losses = 0;
        assert_eq!(broken(&rig), Err(BrokenTrust::OverBound));
    }
}
