//! Random histories: whatever facts come in whatever order, memory is never promised twice and nothing is wished for twice.
//!
//! The mirror is a plain registry: what was granted and what was asked. After every event the planner's sum for each node is the
//! mirror's, byte for byte. The laws themselves are checked in every plan (debug builds do so).

use alloc::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::stage_tests::s;
use super::world_tests::World;
use super::*;
use crate::time::Span;

const NODES: u64 = 3;
const MODELS: u32 = 5;

#[derive(Clone, Debug)]
enum Event {
    Budget { node: u64, bytes: u64 },
    Usable { node: u64, usable: bool },
    Offer { node: u64, model: u32, bytes: u64 },
    Withdraw { node: u64, model: u32 },
    Policy { model: u32, pins: Vec<u64>, replicas_min: u32, replicas_max: u32, idle_s: Option<u64> },
    Arrive { model: u32, count: u32 },
    Served { model: u32 },
    Use { lane: usize, in_flight: u32 },
    Answer { pending: usize, granted: bool },
    Report { lane: usize, state: u8 },
    Release { lane: usize },
    Pass { seconds: u64 },
    NewLeader,
}

fn event() -> impl Strategy<Value = Event> {
    let (node, model, bytes) = (1..=NODES, 1..=MODELS, 1_u64..40);
    let pins = proptest::collection::vec(1..=NODES, 0..2);
    let policy = (model.clone(), pins, 0_u32..3, 0_u32..4, proptest::option::of(0_u64..100));
    prop_oneof![
        1 => (node.clone(), 5_u64..100).prop_map(|(node, bytes)| Event::Budget { node, bytes }),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, usable)| Event::Usable { node, usable }),
        3 => (node.clone(), model.clone(), bytes).prop_map(|(node, model, bytes)| Event::Offer { node, model, bytes }),
        1 => (node, model.clone()).prop_map(|(node, model)| Event::Withdraw { node, model }),
        1 => policy.prop_map(|(model, pins, replicas_min, replicas_max, idle_s)| {
            Event::Policy { model, pins, replicas_min, replicas_max, idle_s }
        }),
        6 => (model.clone(), 1_u32..30).prop_map(|(model, count)| Event::Arrive { model, count }),
        3 => model.prop_map(|model| Event::Served { model }),
        4 => (any::<usize>(), 0_u32..3).prop_map(|(lane, in_flight)| Event::Use { lane, in_flight }),
        8 => (any::<usize>(), proptest::bool::weighted(0.8)).prop_map(|(pending, granted)| Event::Answer { pending, granted }),
        12 => (any::<usize>(), 0_u8..8).prop_map(|(lane, state)| Event::Report { lane, state }),
        8 => any::<usize>().prop_map(|lane| Event::Release { lane }),
        12 => (0_u64..50).prop_map(|seconds| Event::Pass { seconds }),
        1 => Just(Event::NewLeader),
    ]
}

struct Mirror {
    planner: Residency,
    at: u64,
    nodes: BTreeMap<NodeId, NodeFacts>,
    offers: BTreeMap<Lane, u64>,
    policies: BTreeMap<ModelId, ModelPolicy>,
    granted: BTreeMap<Lane, u64>,
    pending: BTreeMap<ReservationId, (Lane, u64)>,
    leaving: BTreeSet<Lane>,
    waiting: BTreeMap<ModelId, Waiting>,
    uses: BTreeMap<Lane, Use>,
}

impl Mirror {
    fn new() -> Self {
        let mut mirror = Self {
            planner: Residency::new(&Limits::default()),
            at: 0,
            nodes: BTreeMap::new(),
            offers: BTreeMap::new(),
            policies: BTreeMap::new(),
            granted: BTreeMap::new(),
            pending: BTreeMap::new(),
            leaving: BTreeSet::new(),
            waiting: BTreeMap::new(),
            uses: BTreeMap::new(),
        };
        for node in 1..=NODES {
            mirror.tell(NodeFacts { node: NodeId(node), budget_bytes: 60, usable: true, draining: false });
            (1..=MODELS)
                .for_each(|model| mirror.offer((NodeId(node), ModelId(model)), u64::from(10 + model)));
        }
        mirror
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Budget { node, bytes } => {
                let usable = self.nodes.get(&NodeId(node)).is_none_or(|facts| facts.usable);
                self.tell(NodeFacts { node: NodeId(node), budget_bytes: bytes, usable, draining: false });
            }
            Event::Usable { node, usable } => {
                let budget_bytes = self.nodes.get(&NodeId(node)).map_or(60, |facts| facts.budget_bytes);
                self.tell(NodeFacts { node: NodeId(node), budget_bytes, usable, draining: false });
            }
            Event::Offer { node, model, bytes } => self.offer((NodeId(node), ModelId(model)), bytes),
            Event::Withdraw { node, model } => {
                self.offers.remove(&(NodeId(node), ModelId(model)));
                self.planner.withdrawn(NodeId(node), ModelId(model));
            }
            Event::Policy { model, pins, replicas_min, replicas_max, idle_s } => {
                let pinned = pins.into_iter().map(NodeId).collect();
                let policy =
                    ModelPolicy { pinned, replicas_min, replicas_max, idle_unload: idle_s.map(Span::from_s) };
                self.planner.policy(s(self.at), ModelId(model), policy.clone());
                self.policies.insert(ModelId(model), policy);
            }
            Event::Arrive { model, count } => self.arrive(ModelId(model), count),
            Event::Served { model } => {
                self.waiting.remove(&ModelId(model));
            }
            Event::Use { lane, in_flight } => self.use_lane(lane, in_flight),
            Event::Answer { pending, granted } => self.answer(pending, granted),
            Event::Report { lane, state } => self.report(lane, state),
            Event::Release { lane } => self.release(lane),
            Event::Pass { seconds } => {
                self.at += seconds;
                self.plan();
            }
            Event::NewLeader => self.new_leader(),
        }
    }

    fn tell(&mut self, facts: NodeFacts) {
        self.nodes.insert(facts.node, facts);
        self.planner.node(s(self.at), facts);
    }

    fn offer(&mut self, (node, model): Lane, bytes: u64) {
        self.offers.insert((node, model), bytes);
        let load = Some(Span::from_s(bytes));
        self.planner.offer(OfferFacts { node, model, bytes, load, source_local: true });
    }

    fn arrive(&mut self, model: ModelId, count: u32) {
        let (work, oldest) = (Span::from_s(u64::from(count)), s(self.at));
        let waiting = self.waiting.entry(model).or_insert(Waiting { count: 0, work: Span::ZERO, oldest });
        (waiting.count, waiting.work) = (waiting.count + count, waiting.work + work);
        self.planner.arrived(s(self.at), model, work);
    }

    /// Requests run only where the planner lets them be sent; those that run already end when they like.
    fn use_lane(&mut self, lane: usize, in_flight: u32) {
        let Some(lane) = self.pick(lane) else { return };
        let before = self.uses.get(&lane).map_or(0, |usage| usage.in_flight);
        if self.planner.is_open(lane.0, lane.1) || in_flight < before {
            let busy = Span::from_s(u64::from(in_flight) * 3);
            self.uses.insert(lane, Use { in_flight, busy, last_use: s(self.at), prefix_value: Span::ZERO });
        }
    }

    fn answer(&mut self, pending: usize, granted: bool) {
        let Some(number) = self.pending.keys().copied().nth(pending % self.pending.len().max(1)) else {
            return;
        };
        let Some((lane, bytes)) = self.pending.remove(&number) else { return };
        let budget = self.nodes.get(&lane.0).map_or(0, |facts| facts.budget_bytes);
        let granted = granted && self.registered(lane.0) + bytes <= budget;
        if granted {
            self.granted.insert(lane, bytes);
        }
        self.planner.reserved(s(self.at), number, granted);
    }

    /// An agent says something, late or wrong as it may be, of a model it has reserved.
    fn report(&mut self, lane: usize, state: u8) {
        let Some((node, model)) = self.pick(lane) else { return };
        let state = match state {
            0 => ResidentState::Reserved,
            1 => ResidentState::Unloading,
            2 => ResidentState::Failed { until: s(self.at + 3) },
            3 | 4 => ResidentState::Loading { ready_at: s(self.at + 9) },
            _ => ResidentState::Ready,
        };
        if state == ResidentState::Unloading {
            self.leaving.insert((node, model));
        }
        self.planner.resident(s(self.at), node, model, state);
    }

    /// A replica that was told to go goes when nothing runs there.
    fn release(&mut self, lane: usize) {
        let leaving = self.leaving.iter().copied().nth(lane % self.leaving.len().max(1));
        let Some(lane) = leaving.filter(|lane| self.uses.get(lane).is_none_or(|usage| usage.in_flight == 0))
        else {
            return;
        };
        self.leaving.remove(&lane);
        self.granted.remove(&lane);
        self.uses.remove(&lane);
        self.planner.released(s(self.at), lane.0, lane.1);
    }

    fn plan(&mut self) {
        let view = PlanView {
            waiting: self.waiting.clone(),
            lanes: self.uses.clone(),
            speed: &|node, _| node.0 as f64,
        };
        let mut actions = Vec::new();
        self.planner.plan(s(self.at), &view, &mut actions);
        for action in actions {
            match action {
                Action::Reserve { node, model, bytes, number, .. } => {
                    let facts = self.nodes[&node];
                    let promised = self.registered(node) + self.asked(node);
                    assert!(promised + bytes <= facts.budget_bytes && facts.usable, "{action:?}");
                    assert!(!self.granted.contains_key(&(node, model)), "{action:?} while it is there");
                    assert!(
                        self.pending.insert(number, ((node, model), bytes)).is_none(),
                        "{action:?} again"
                    );
                }
                Action::Evict { node, model, .. } => {
                    assert!(self.granted.contains_key(&(node, model)), "{action:?} of what is not there");
                    assert!(self.leaving.insert((node, model)), "{action:?} again");
                }
            }
        }
    }

    /// The registry's facts, the nodes, the offers, the policies; then the agents repeat what they do.
    fn new_leader(&mut self) {
        self.planner = Residency::new(&Limits::default());
        self.pending.clear();
        for ((node, model), bytes) in &self.granted {
            self.planner.reservation(s(self.at), *node, *model, *bytes);
        }
        for facts in self.nodes.clone().into_values() {
            self.tell(facts);
        }
        for (lane, bytes) in self.offers.clone() {
            self.offer(lane, bytes);
        }
        for (model, policy) in self.policies.clone() {
            self.planner.policy(s(self.at), model, policy);
        }
        for (node, model) in &self.leaving {
            self.planner.resident(s(self.at), *node, *model, ResidentState::Unloading);
        }
    }

    fn pick(&self, lane: usize) -> Option<Lane> {
        self.granted.keys().copied().nth(lane % self.granted.len().max(1))
    }

    fn registered(&self, node: NodeId) -> u64 {
        self.granted.iter().filter(|(lane, _)| lane.0 == node).map(|(_, bytes)| bytes).sum()
    }

    fn asked(&self, node: NodeId) -> u64 {
        self.pending.values().filter(|(lane, _)| lane.0 == node).map(|(_, bytes)| bytes).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_planner_and_the_registry_agree_on_every_byte(events in proptest::collection::vec(event(), 1..120)) {
        let mut mirror = Mirror::new();
        for event in events {
            mirror.apply(event.clone());
            for node in (1..=NODES).map(NodeId) {
                let promised = mirror.registered(node) + mirror.asked(node);
                prop_assert_eq!(mirror.planner.memory.taken(node), promised, "node {} after {:?}", node.0, event);
            }
        }
    }

    #[test]
    fn the_same_history_gives_the_same_plans(events in proptest::collection::vec(event(), 1..60)) {
        let run = || {
            let mut mirror = Mirror::new();
            events.iter().for_each(|event| mirror.apply(event.clone()));
            let mut outstanding = Vec::new();
            mirror.planner.resume(&mut outstanding);
            (outstanding, mirror.planner.next_deadline(), (1..=MODELS).map(|model| mirror.planner.eta(s(mirror.at), ModelId(model))).collect::<Vec<_>>())
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn a_model_has_either_a_time_or_a_reason(events in proptest::collection::vec(event(), 1..60)) {
        let mut mirror = Mirror::new();
        events.into_iter().for_each(|event| mirror.apply(event));
        for model in (1..=MODELS).map(ModelId) {
            let (eta, refusal) = (mirror.planner.eta(s(mirror.at), model), mirror.planner.refusal(s(mirror.at), model));
            prop_assert_eq!(eta.is_some(), refusal.is_none(), "{:?} {:?}", eta, refusal);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whoever_fits_somewhere_is_served(
        budgets in proptest::collection::vec(10_u64..50, 1..4),
        sizes in proptest::collection::vec(4_u64..45, 1..8),
        arrivals in proptest::collection::vec((0_u64..20, 0_usize..8), 1..40),
    ) {
        let mut world = World::new(ResidencyLimits::default());
        for (node, budget) in (1..).zip(&budgets) {
            world.node(node, *budget, 1.0);
            for (model, size) in (1..).zip(&sizes) {
                world.offer(node, model, *size, Span::from_s(size / 4));
            }
        }
        let largest = budgets.iter().copied().max().unwrap_or_default();
        let mut expected = 0;
        for (pause, model) in arrivals {
            world.run(Span::from_ms(pause * 100));
            let model = model % sizes.len();
            if sizes[model] <= largest {
                world.arrive(model as u32 + 1, Span::from_ms(500));
                expected += 1;
            }
        }
        let mut patience = 600;
        while world.waiting() > 0 && patience > 0 {
            world.run(Span::from_s(1));
            patience -= 1;
        }
        prop_assert_eq!(world.waits.len(), expected);
    }
}
