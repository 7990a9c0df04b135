//! A room of lanes to drive in tests: short words for long calls. Every call is followed by all laws.

use super::*;
use crate::ids::RequestId;
use crate::time::Span;

/// The lane most tests are about; another model beside it; its model on another node.
pub(super) const A: Lane = (NodeId(1), ModelId(1));
pub(super) const B: Lane = (NodeId(1), ModelId(2));
pub(super) const OTHER: Lane = (NodeId(2), ModelId(1));
pub(super) const NODE: NodeId = NodeId(1);

pub(super) const RESET: Health = Health::Hard(HardKind::Reset);
pub(super) const HANG: Health = Health::Hard(HardKind::Hang);
pub(super) const LATE: Health = Health::Soft(SoftKind::TokensLate);
pub(super) const SUCCESS: Health = Health::Success;

#[derive(Debug)]
pub(super) struct Rig {
    pub(super) breakers: Breakers,
    pub(super) limits: BreakerLimits,
    pub(super) at: At,
    pub(super) moves: Vec<Move>,
    pub(super) order: Option<ProbeOrder>,
    /// What is told of the other replicas with each ending.
    pub(super) replicas: usize,
    requests: u64,
}

impl Rig {
    /// Lanes A, B and OTHER are there, no spread.
    pub(super) fn new() -> Self {
        Self::with(BreakerLimits { open_jitter_permille: 0, ..BreakerLimits::default() })
    }

    pub(super) fn with(limits: BreakerLimits) -> Self {
        let mut breakers = Breakers::new(7);
        [A, B, OTHER].into_iter().for_each(|lane| breakers.report(lane, &limits));
        Self { breakers, limits, at: At(0), moves: Vec::new(), order: None, replicas: 4, requests: 0 }
    }

    /// An attempt of the lane's present life ends; each is of another request.
    pub(super) fn end(&mut self, lane: Lane, health: Health) {
        let generation = self.breakers.generation(lane);
        self.end_of(lane, health, generation);
    }

    pub(super) fn end_of(&mut self, lane: Lane, health: Health, generation: Generation) {
        self.requests += 1;
        let request = RequestId(self.requests);
        let ending = Ending { lane, generation, request, health, replicas: self.replicas, width: 4 };
        self.breakers.observe(self.at, &ending, &self.limits, &mut self.moves);
        self.checked();
    }

    pub(super) fn ends(&mut self, lane: Lane, healths: &[Health]) {
        healths.iter().for_each(|health| self.end(lane, *health));
    }

    pub(super) fn wait(&mut self, span: Span) {
        self.at = self.at + span;
    }

    /// Asks whose turn it is, after `s` seconds.
    pub(super) fn due_in(&mut self, s: u64) -> Option<ProbeOrder> {
        self.wait(Span::from_s(s));
        let order = self.breakers.due(self.at, &self.limits, &mut self.moves);
        self.checked();
        let next = self.breakers.next_deadline();
        assert!(order.is_some() || next.is_none_or(|(at, _)| at > self.at), "a wake-up that changes nothing");
        self.order = order.or(self.order);
        order
    }

    pub(super) fn probed(&mut self, result: ProbeResult) {
        let number = self.order.map_or(ProbeNumber(0), |order| order.number);
        self.breakers.probed(self.at, number, result, &self.limits, &mut self.moves);
        self.checked();
    }

    /// Through a probe that is passed, up to the slow start.
    pub(super) fn prove(&mut self, lane: Lane) {
        assert_eq!(self.due_in(300).map(|order| order.lane), Some(lane));
        self.probed(ProbeResult::Passed);
        self.breakers.dispatched(lane);
        self.end(lane, SUCCESS);
    }

    pub(super) fn lose(&mut self, node: NodeId) {
        self.breakers.node_lost(self.at, node, &self.limits, &mut self.moves);
        self.checked();
    }

    pub(super) fn forget(&mut self, lane: Lane) {
        self.breakers.forget(self.at, lane, &self.limits, &mut self.moves);
        self.checked();
    }

    pub(super) fn report(&mut self, lane: Lane) {
        self.breakers.report(lane, &self.limits);
        self.checked();
    }

    pub(super) fn relieve(&mut self, replicas: &[Lane]) {
        self.breakers.relieve(self.at, replicas, &self.limits, &mut self.moves);
        self.checked();
    }

    /// A new leader reads what was written down. It knows no lane until it is reported.
    pub(super) fn hand_over(&mut self) {
        self.breakers = Breakers::new(7);
        self.breakers.restore(self.at, &self.moves, &self.limits);
        self.checked();
    }

    pub(super) fn gate(&self, lane: Lane) -> Admission {
        self.breakers.gate(lane, &self.limits)
    }

    pub(super) fn view(&self, breaker: Breaker) -> BreakerView {
        self.breakers.explain(breaker).expect("watched")
    }

    pub(super) fn state(&self, lane: Lane) -> BreakerState {
        self.view(Breaker::Lane(lane)).state
    }

    /// How long it is open from now.
    pub(super) fn open_s(&self, breaker: Breaker) -> Option<u64> {
        Some(self.view(breaker).until?.since(self.at).0 / 1_000_000)
    }

    /// What moved since the last time somebody asked.
    pub(super) fn reasons(&mut self) -> Vec<MoveReason> {
        self.moves.drain(..).map(|fact| fact.why).collect()
    }

    fn checked(&self) {
        assert_eq!(self.breakers.check(&self.limits), Ok(()));
    }
}
