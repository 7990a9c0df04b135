//! A small cluster that dispatches only what the gates allow, and keeps its own account of all that follows.
//!
//! The account believes nothing of the breakers but their answers and the moves they tell. After every step it checks that
//! there is one probe at a time, that nobody is given more than allowed, that what is late changes nothing, that lateness
//! never takes the last replica nor more than half, and that every opening has its length.

use std::collections::BTreeMap;

use super::rig_tests::SUCCESS;
use super::*;
use crate::ids::RequestId;
use crate::time::Span;

const WIDTH: u32 = 4;
pub(super) const MODELS: u32 = 2;
pub(super) const NODES: u64 = 4;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Report(u64, u32),
    Forget(u64, u32),
    Dispatch(u64, u32),
    /// One attempt after another, all with the same end.
    Serve(u64, u32, Health, usize),
    /// Of the attempts that run, the one at this index (modulo their number).
    End(usize, End),
    Probed(ProbeResult),
    StaleProbe,
    Wait(u64),
    Lose(u64),
    Relieve(u32),
    HandOver,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Told(Health),
    Neutral,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    lane: Lane,
    generation: Generation,
    request: RequestId,
}

/// What the moves tell of one breaker.
#[derive(Clone, Copy, Debug)]
struct Told {
    state: BreakerState,
    cause: Option<Cause>,
    generation: Generation,
    opens: u32,
    /// Answers heard in its slow start.
    answers: u32,
}

#[derive(Debug)]
pub(super) struct World {
    breakers: Breakers,
    limits: BreakerLimits,
    at: At,
    pub(super) facts: Vec<Move>,
    told: BTreeMap<Breaker, Told>,
    resident: BTreeSet<Lane>,
    running: Vec<Attempt>,
    canary: Option<ProbeOrder>,
    requests: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            breakers: Breakers::new(3),
            limits: BreakerLimits::default(),
            at: At(0),
            facts: Vec::new(),
            told: BTreeMap::new(),
            resident: BTreeSet::new(),
            running: Vec::new(),
            canary: None,
            requests: 0,
        };
        world.all_lanes().into_iter().for_each(|lane| world.report(lane));
        world
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Report(node, model) => self.report((NodeId(node), ModelId(model))),
            Step::Forget(node, model) => self.forget((NodeId(node), ModelId(model))),
            Step::Dispatch(node, model) => self.dispatch((NodeId(node), ModelId(model))),
            Step::Serve(node, model, health, times) => {
                (0..times).for_each(|_| self.serve((NodeId(node), ModelId(model)), health));
            }
            Step::End(index, end) if !self.running.is_empty() => {
                let attempt = self.running.remove(index % self.running.len());
                self.end(attempt, end);
            }
            Step::End(..) => {}
            Step::Probed(result) => self.probed(result),
            Step::StaleProbe => self.stale_probe(),
            Step::Wait(ms) => self.at = self.at + Span::from_ms(ms),
            Step::Lose(node) => self.lose(NodeId(node)),
            Step::Relieve(model) => self.relieve(ModelId(model)),
            Step::HandOver => self.hand_over(),
        }
        self.take_turns();
        assert_eq!(self.breakers.check(&self.limits), Ok(()));
        self.one_probe();
        self.allowances();
    }

    fn report(&mut self, lane: Lane) {
        self.resident.insert(lane);
        self.breakers.report(lane, &self.limits);
    }

    fn forget(&mut self, lane: Lane) {
        self.resident.remove(&lane);
        self.told(|world, moves| world.breakers.forget(world.at, lane, &world.limits, moves));
        self.canary = self.canary.filter(|order| order.lane != lane);
        if self.breakers.explain(Breaker::Lane(lane)).is_none() {
            self.told.remove(&Breaker::Lane(lane));
        }
    }

    fn dispatch(&mut self, lane: Lane) {
        let on_lane = self.running.iter().filter(|attempt| attempt.lane == lane).count();
        let gate = self.breakers.gate(lane, &self.limits);
        if !self.resident.contains(&lane) || u32::try_from(on_lane).expect("few") >= gate.width(WIDTH) {
            return;
        }
        let of_lane = self.told.get(&Breaker::Lane(lane)).map(|told| told.state);
        let of_node = self.told.get(&Breaker::Node(lane.0)).map(|told| told.state);
        assert!(![of_lane, of_node].contains(&Some(BreakerState::Open)), "sent to {lane:?}, which is open");
        self.requests += 1;
        let generation = self.breakers.dispatched(lane);
        self.running.push(Attempt { lane, generation, request: RequestId(self.requests) });
    }

    fn serve(&mut self, lane: Lane, health: Health) {
        let before = self.running.len();
        self.dispatch(lane);
        if let Some(attempt) = self.running.get(before).copied() {
            self.running.truncate(before);
            self.end(attempt, End::Told(health));
        }
    }

    fn end(&mut self, attempt: Attempt, end: End) {
        let lane = attempt.lane;
        let stale = attempt.generation < self.breakers.generation(lane);
        let before = stale.then(|| format!("{:?}", self.breakers));
        match end {
            End::Neutral => self.breakers.released(lane, attempt.generation),
            End::Told(health) => self.told(|world, moves| {
                let replicas = world.usable(lane.1);
                let Attempt { lane, generation, request } = attempt;
                let ending = Ending { lane, generation, request, health, replicas, width: WIDTH };
                world.breakers.observe(world.at, &ending, &world.limits, moves);
                if health == Health::Success && !stale {
                    world.answered(lane);
                }
            }),
        }
        if let Some(before) = before {
            assert_eq!(format!("{:?}", self.breakers), before, "late news changed something");
        }
    }

    fn answered(&mut self, lane: Lane) {
        for breaker in [Breaker::Lane(lane), Breaker::Node(lane.0)] {
            if let Some(told) =
                self.told.get_mut(&breaker).filter(|told| told.state == BreakerState::SlowStart)
            {
                told.answers += 1;
            }
        }
    }

    fn probed(&mut self, result: ProbeResult) {
        let Some(order) = self.canary.take() else { return };
        self.told(|world, moves| world.breakers.probed(world.at, order.number, result, &world.limits, moves));
    }

    fn stale_probe(&mut self) {
        let old = ProbeNumber(self.canary.map_or(0, |order| order.number.0.saturating_sub(1)));
        let before = format!("{:?}", self.breakers);
        self.told(|world, moves| {
            world.breakers.probed(world.at, old, ProbeResult::Passed, &world.limits, moves);
        });
        assert_eq!(format!("{:?}", self.breakers), before);
    }

    fn lose(&mut self, node: NodeId) {
        self.told(|world, moves| world.breakers.node_lost(world.at, node, &world.limits, moves));
        self.canary = self.canary.filter(|order| order.lane.0 != node);
    }

    fn relieve(&mut self, model: ModelId) {
        let replicas: Vec<Lane> = self.resident.iter().filter(|lane| lane.1 == model).copied().collect();
        let shut = self.usable(model) == 0;
        assert_eq!(self.breakers.is_panicked(&replicas, &self.limits), shut && !replicas.is_empty());
        self.told(|world, moves| world.breakers.relieve(world.at, &replicas, &world.limits, moves));
        let state = |breaker| self.told.get(&breaker).map(|told| (told.state, told.cause));
        for lane in replicas.into_iter().filter(|_| shut) {
            let node = state(Breaker::Node(lane.0)).and_then(|(_, cause)| cause);
            let waits = state(Breaker::Lane(lane)) == Some((BreakerState::Open, Some(Cause::Soft)));
            assert!(!waits || node.is_some(), "{lane:?} is only late, and no replica is left");
        }
    }

    fn hand_over(&mut self) {
        self.breakers = Breakers::new(3);
        self.breakers.restore(self.at, &self.facts, &self.limits);
        self.canary = None;
        self.resident.clone().into_iter().for_each(|lane| self.report(lane));
        // What the old leader had sent is not known to the new one; it sends each request anew.
        self.running.clear();
        for told in self.told.values_mut() {
            if [BreakerState::Probing, BreakerState::SlowStart].contains(&told.state) {
                told.state = BreakerState::Open;
                told.cause = told.cause.or(Some(Cause::Hard));
                told.generation.0 += 1;
            }
        }
    }

    /// Asks whose turn it is until it is nobody's, as the shell does after every fact.
    fn take_turns(&mut self) {
        let mut order = None;
        self.told(|world, moves| order = world.breakers.due(world.at, &world.limits, moves));
        if let Some(order) = order {
            assert!(self.resident.contains(&order.lane), "a lane that is not there cannot be probed");
            assert_eq!(order.generation, self.breakers.generation(order.lane));
            self.canary = Some(order);
            self.told(|world, moves| assert_eq!(world.breakers.due(world.at, &world.limits, moves), None));
        }
        assert!(self.breakers.next_deadline().is_none_or(|(at, _)| at > self.at), "woken for nothing");
    }

    /// Calls the breakers, and takes their moves into account.
    fn told(&mut self, call: impl FnOnce(&mut Self, &mut Vec<Move>)) {
        let usable: BTreeMap<ModelId, usize> =
            (1..=MODELS).map(|model| (ModelId(model), self.usable(ModelId(model)))).collect();
        let mut moves = Vec::new();
        call(self, &mut moves);
        for fact in &moves {
            self.account(fact, &usable);
        }
        self.facts.extend(moves);
    }

    fn account(&mut self, fact: &Move, usable: &BTreeMap<ModelId, usize>) {
        let first = Told {
            state: BreakerState::Closed,
            cause: None,
            // A lane that was forgotten comes back above its old lives.
            generation: Generation(fact.generation.0 - u32::from(fact.to == BreakerState::Open)),
            opens: 0,
            answers: 0,
        };
        let told = *self.told.entry(fact.breaker).or_insert(first);
        let opened = u32::from(fact.to == BreakerState::Open);
        assert_eq!((fact.from, fact.at), (told.state, self.at), "{fact:?}");
        assert_ne!(fact.from, fact.to);
        assert_eq!(fact.generation.0, told.generation.0 + opened, "{fact:?}");
        let opens = if fact.to == BreakerState::Closed { 0 } else { told.opens + opened };
        assert_eq!(fact.opens, opens, "{fact:?}");
        assert_eq!(fact.until.is_some(), opened == 1);
        if let Some(until) = fact.until {
            let nominal = (5_u64 << (opens - 1).min(20)).min(300) * 1_000_000;
            let length = until.since(fact.at).0;
            assert!((nominal / 10 * 8..=(nominal / 10 * 12).min(300_000_000)).contains(&length), "{fact:?}");
        }
        self.told.insert(
            fact.breaker,
            Told { state: fact.to, cause: fact.cause, generation: fact.generation, opens, answers: 0 },
        );
        if let (Breaker::Lane((_, model)), BreakerState::Open, Some(Cause::Soft)) =
            (fact.breaker, fact.to, fact.cause)
        {
            self.soft_cap(model, usable[&model]);
        }
    }

    /// Another replica was usable, and at most half of those that do not fail are open for lateness.
    fn soft_cap(&self, model: ModelId, usable_before: usize) {
        let late = self.resident.iter().filter(|lane| {
            lane.1 == model
                && self.told.get(&Breaker::Lane(**lane)).is_some_and(|told| told.cause == Some(Cause::Soft))
        });
        let late = late.count();
        assert!(usable_before >= 2, "lateness shut the last usable replica");
        assert!(2 * late <= usable_before - 1 + late, "lateness shut {late} of {}", usable_before - 1 + late);
    }

    fn usable(&self, model: ModelId) -> usize {
        let usable = |lane: &&Lane| lane.1 == model && !self.breakers.gate(**lane, &self.limits).is_shut();
        self.resident.iter().filter(usable).count()
    }

    /// Those who are being probed are one lane, or one node and one of its lanes; with one canary or one request out.
    fn one_probe(&self) {
        let probing = |(_, told): &(&Breaker, &Told)| told.state == BreakerState::Probing;
        let probing: Vec<Breaker> = self.told.iter().filter(probing).map(|(breaker, _)| *breaker).collect();
        match probing.as_slice() {
            [] | [_] => {}
            [Breaker::Lane(lane), Breaker::Node(node)] => assert_eq!(lane.0, *node),
            more => panic!("probed at once: {more:?}"),
        }
        let covered =
            |lane: Lane| probing.contains(&Breaker::Lane(lane)) || probing.contains(&Breaker::Node(lane.0));
        let requests = self.running.iter().filter(|attempt| {
            covered(attempt.lane) && attempt.generation == self.breakers.generation(attempt.lane)
        });
        let canary = self.canary.filter(|order| covered(order.lane)).is_some();
        assert!(requests.count() + usize::from(canary) <= 1, "two probes in flight");
    }

    /// In a slow start as many attempts of the present life run as its answers have earned.
    fn allowances(&self) {
        for (breaker, told) in self.told.iter().filter(|(_, told)| told.state == BreakerState::SlowStart) {
            let Breaker::Lane(lane) = *breaker else { continue };
            let present = self.breakers.generation(lane);
            let running =
                self.running.iter().filter(|attempt| attempt.lane == lane && attempt.generation == present);
            let earned = 1_usize << told.answers.min(16);
            assert!(running.count() <= earned, "{breaker:?} runs more than {earned}");
        }
    }

    /// Faults are over: all probes pass and all answers come. Returns how long it takes until everybody is trusted.
    pub(super) fn recover(&mut self) -> Span {
        let start = self.at;
        self.canary = None;
        self.all_lanes().into_iter().for_each(|lane| self.report(lane));
        for attempt in core::mem::take(&mut self.running) {
            self.end(attempt, End::Neutral);
        }
        while self.all_lanes().iter().any(|lane| self.breakers.gate(*lane, &self.limits) != Admission::Free) {
            self.take_turns();
            self.probed(ProbeResult::Passed);
            for lane in self.all_lanes() {
                self.dispatch(lane);
            }
            for attempt in core::mem::take(&mut self.running) {
                self.end(attempt, End::Told(SUCCESS));
            }
            let shut = self.breakers.next_deadline().filter(|_| self.canary.is_none());
            if let Some((at, _)) = shut {
                self.at = self.at.max(at);
            }
            assert_eq!(self.breakers.check(&self.limits), Ok(()));
        }
        self.at.since(start)
    }

    fn all_lanes(&self) -> Vec<Lane> {
        (1..=NODES).flat_map(|node| (1..=MODELS).map(move |model| (NodeId(node), ModelId(model)))).collect()
    }
}
