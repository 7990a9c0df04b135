//! A planner with facts set by hand, for tests of single rules.
//!
//! Owns short ways to say a situation and to read a plan: sizes in GiB, times in seconds, an action as a short sentence.

use super::*;
use crate::time::Span;

pub(super) const GIB: u64 = 1 << 30;

pub(super) struct Stage {
    pub(super) planner: Residency,
    pub(super) waiting: BTreeMap<ModelId, Waiting>,
    pub(super) lanes: BTreeMap<Lane, Use>,
    pub(super) speeds: BTreeMap<NodeId, f64>,
}

use alloc::collections::BTreeMap;

pub(super) fn s(seconds: u64) -> At {
    At(0) + Span::from_s(seconds)
}

pub(super) fn lane(node: u64, model: u32) -> Lane {
    (NodeId(node), ModelId(model))
}

impl Stage {
    pub(super) fn new(limits: ResidencyLimits) -> Self {
        Self {
            planner: Residency::new(&Limits { residency: limits, ..Limits::default() }),
            waiting: BTreeMap::new(),
            lanes: BTreeMap::new(),
            speeds: BTreeMap::new(),
        }
    }

    /// One node with room for three of the eight models it offers; models 1 to 3 are ready from `since`, and have been asked for
    /// once, twice and three times then.
    pub(super) fn full(since: u64) -> Self {
        let mut stage = Self::new(ResidencyLimits::default());
        stage.node(1, 30);
        (1..=8).for_each(|model| stage.offer(1, model, 10, 2));
        for model in 1..=3 {
            stage.ready(since, 1, model);
            stage.asked(since, model, model);
        }
        stage
    }

    pub(super) fn node(&mut self, node: u64, budget_gib: u64) {
        let facts =
            NodeFacts { node: NodeId(node), budget_bytes: budget_gib * GIB, usable: true, draining: false };
        self.planner.node(s(0), facts);
    }

    pub(super) fn unusable(&mut self, node: u64, budget_gib: u64) {
        let facts =
            NodeFacts { node: NodeId(node), budget_bytes: budget_gib * GIB, usable: false, draining: false };
        self.planner.node(s(0), facts);
    }

    pub(super) fn drains(&mut self, node: u64, budget_gib: u64) {
        let facts =
            NodeFacts { node: NodeId(node), budget_bytes: budget_gib * GIB, usable: false, draining: true };
        self.planner.node(s(0), facts);
    }

    pub(super) fn offer(&mut self, node: u64, model: u32, gib: u64, load_s: u64) {
        let (node, model) = lane(node, model);
        let load = Some(Span::from_s(load_s));
        self.planner.offer(OfferFacts { node, model, bytes: gib * GIB, load, source_local: true });
    }

    /// Reserved with the size it is offered with, and in this state.
    pub(super) fn reports(&mut self, at: u64, node: u64, model: u32, state: ResidentState) {
        let lane = lane(node, model);
        let bytes = self.planner.offers.get(lane).map_or(0, |offer| offer.bytes);
        self.planner.reservation(s(at), lane.0, lane.1, bytes);
        self.planner.resident(s(at), lane.0, lane.1, state);
    }

    pub(super) fn ready(&mut self, at: u64, node: u64, model: u32) {
        self.reports(at, node, model, ResidentState::Ready);
    }

    pub(super) fn policy(&mut self, model: u32, policy: ModelPolicy) {
        self.planner.policy(s(0), ModelId(model), policy);
    }

    pub(super) fn pin(&mut self, node: u64, model: u32) {
        self.policy(model, ModelPolicy { pinned: [NodeId(node)].into(), ..ModelPolicy::default() });
    }

    pub(super) fn minimum(&mut self, model: u32, replicas_min: u32) {
        self.policy(model, ModelPolicy { replicas_min, ..ModelPolicy::default() });
    }

    /// Requests that cost nothing: they say that the model is in use, and no more.
    pub(super) fn asked(&mut self, at: u64, model: u32, times: u32) {
        (0..times).for_each(|_| self.planner.arrived(s(at), ModelId(model), Span::ZERO));
    }

    pub(super) fn waits(&mut self, model: u32, count: u32, work_s: u64, oldest: u64) {
        let waiting = Waiting { count, work: Span::from_s(work_s), oldest: s(oldest) };
        self.waiting.insert(ModelId(model), waiting);
    }

    pub(super) fn uses(&mut self, node: u64, model: u32, in_flight: u32, busy_s: u64, last_use: u64) {
        let busy = Span::from_s(busy_s);
        let usage = Use { in_flight, busy, last_use: s(last_use), prefix_value: Span::ZERO };
        self.lanes.insert(lane(node, model), usage);
    }

    pub(super) fn actions(&mut self, at: At) -> Vec<Action> {
        let speeds = self.speeds.clone();
        let speed = move |node: NodeId, _: ModelId| speeds.get(&node).copied().unwrap_or(1.0);
        let (waiting, lanes) = (self.waiting.clone(), self.lanes.clone());
        let mut actions = Vec::new();
        self.planner.plan(at, &PlanView { waiting, lanes, speed: &speed }, &mut actions);
        actions
    }

    /// The plan of that second, in words.
    pub(super) fn plan(&mut self, at: u64) -> Vec<String> {
        self.actions(s(at)).iter().map(told).collect()
    }

    /// What lies on a node, in words.
    pub(super) fn on(&self, node: u64) -> Vec<String> {
        let replicas = self.planner.memory.on(NodeId(node));
        replicas.map(|((_, model), replica)| format!("{} {}", model.0, phase(&replica.phase))).collect()
    }

    pub(super) fn release(&mut self, at: u64, node: u64, model: u32) {
        self.lanes.remove(&lane(node, model));
        self.planner.released(s(at), NodeId(node), ModelId(model));
    }

    pub(super) fn answer(&mut self, at: u64, number: u64, granted: bool) {
        self.planner.reserved(s(at), ReservationId(number), granted);
    }
}

fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Intended { .. } => "intended",
        Phase::Asked { .. } => "asked",
        Phase::Reserved => "reserved",
        Phase::Loading { .. } => "loading",
        Phase::Ready => "ready",
        Phase::Failed => "failed",
        Phase::Leaving { .. } => "leaving",
    }
}

fn told(action: &Action) -> String {
    match *action {
        Action::Reserve { node, model, why, .. } => format!("load {} on {}: {why:?}", model.0, node.0),
        Action::Evict { node, model, why: EvictReason::Displaced { by } } => {
            format!("evict {} from {} for {}", model.0, node.0, by.0)
        }
        Action::Evict { node, model, why } => format!("evict {} from {}: {why:?}", model.0, node.0),
    }
}
