//! A room of Macs to try the planner in: a registry, agents and a queue, as plain lists in simulated time.
//!
//! Owns the mirror the planner is checked against. The registry here refuses what exceeds a budget, and the test fails when it ever
//! has to: the planner must not even ask. An agent loads nothing but what was granted.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::time::Span;

pub(super) const STEP: Span = Span::from_ms(50);
const SLOTS: usize = 4;
const GIB: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Runtime {
    Loading { until: At },
    Ready,
    Unloading { since: At },
}

#[derive(Clone, Copy, Debug)]
struct Job {
    arrived: At,
    work_s: f64,
}

pub(super) struct World {
    pub(super) planner: Residency,
    pub(super) at: At,
    pub(super) actions: Vec<(At, Action)>,
    budgets: BTreeMap<NodeId, u64>,
    speeds: BTreeMap<NodeId, f64>,
    loads: BTreeMap<Lane, Span>,
    registry: BTreeMap<Lane, u64>,
    runtimes: BTreeMap<Lane, Runtime>,
    lines: BTreeMap<ModelId, VecDeque<Job>>,
    running: BTreeMap<Lane, Vec<Job>>,
    used: BTreeMap<Lane, At>,
    pub(super) waits: Vec<(ModelId, Span)>,
}

impl World {
    pub(super) fn new(limits: ResidencyLimits) -> Self {
        Self {
            planner: Residency::new(&Limits { residency: limits, ..Limits::default() }),
            at: At(0),
            actions: Vec::new(),
            budgets: BTreeMap::new(),
            speeds: BTreeMap::new(),
            loads: BTreeMap::new(),
            registry: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            lines: BTreeMap::new(),
            running: BTreeMap::new(),
            used: BTreeMap::new(),
            waits: Vec::new(),
        }
    }

    pub(super) fn node(&mut self, node: u64, budget_gib: u64, speed: f64) {
        let (node, budget_bytes) = (NodeId(node), budget_gib * GIB);
        self.budgets.insert(node, budget_bytes);
        self.speeds.insert(node, speed);
        self.planner.node(self.at, NodeFacts { node, budget_bytes, usable: true, draining: false });
    }

    pub(super) fn offer(&mut self, node: u64, model: u32, gib: u64, load: Span) {
        let (node, model) = (NodeId(node), ModelId(model));
        self.loads.insert((node, model), load);
        self.planner.offer(OfferFacts {
            node,
            model,
            bytes: gib * GIB,
            load: Some(load),
            source_local: true,
        });
    }

    pub(super) fn arrive(&mut self, model: u32, work: Span) {
        let model = ModelId(model);
        let job = Job { arrived: self.at, work_s: work.0 as f64 / 1e6 };
        self.lines.entry(model).or_default().push_back(job);
        self.planner.arrived(self.at, model, work);
    }

    pub(super) fn waiting(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    pub(super) fn loads_begun(&self) -> usize {
        self.actions.iter().filter(|(_, action)| matches!(action, Action::Reserve { .. })).count()
    }

    pub(super) fn run(&mut self, span: Span) {
        let end = self.at + span;
        while self.at < end {
            self.step();
        }
    }

    /// One step of time: agents, then dispatches, then the GPUs, then a plan if it is due.
    pub(super) fn step(&mut self) {
        self.at = self.at + STEP;
        self.agents();
        self.dispatch();
        self.serve();
        if self.planner.next_deadline().is_some_and(|due| due <= self.at) {
            self.plan();
        }
    }

    fn plan(&mut self) {
        let speeds = self.speeds.clone();
        let speed = move |node: NodeId, _: ModelId| speeds.get(&node).copied().unwrap_or(1.0);
        let mut actions = Vec::new();
        let view = PlanView { waiting: self.waiting_view(), lanes: self.lanes_view(), speed: &speed };
        self.planner.plan(self.at, &view, &mut actions);
        for action in actions {
            self.actions.push((self.at, action));
            self.carry_out(action);
        }
    }

    fn waiting_view(&self) -> BTreeMap<ModelId, Waiting> {
        let lines = self.lines.iter().filter_map(|(model, line)| {
            let oldest = line.front()?.arrived;
            let work_s: f64 = line.iter().map(|job| job.work_s).sum();
            Some((*model, Waiting { count: line.len() as u32, work: Span((work_s * 1e6) as u64), oldest }))
        });
        lines.collect()
    }

    fn lanes_view(&self) -> BTreeMap<Lane, Use> {
        let lanes = self.used.iter().map(|(lane, last_use)| {
            let jobs = self.running.get(lane).map_or(&[][..], Vec::as_slice);
            let work_s: f64 = jobs.iter().map(|job| job.work_s).sum();
            let busy = Span((work_s / self.speeds[&lane.0] * 1e6) as u64);
            (*lane, Use { in_flight: jobs.len() as u32, busy, last_use: *last_use, prefix_value: Span::ZERO })
        });
        lanes.collect()
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Reserve { node, model, bytes, number, .. } => {
                let taken: u64 =
                    self.registry.iter().filter(|((at, _), _)| *at == node).map(|(_, bytes)| bytes).sum();
                assert!(taken + bytes <= self.budgets[&node], "asked for more than there is");
                assert!(self.registry.insert((node, model), bytes).is_none());
                self.planner.reserved(self.at, number, true);
                let until = self.at + self.loads[&(node, model)];
                self.runtimes.insert((node, model), Runtime::Loading { until });
                self.planner.resident(self.at, node, model, ResidentState::Loading { ready_at: until });
            }
            Action::Evict { node, model, .. } => {
                self.runtimes.insert((node, model), Runtime::Unloading { since: self.at });
            }
        }
    }

    fn agents(&mut self) {
        for ((node, model), runtime) in self.runtimes.clone() {
            let lane = (node, model);
            match runtime {
                Runtime::Loading { until } if until <= self.at => {
                    self.runtimes.insert(lane, Runtime::Ready);
                    self.planner.resident(self.at, node, model, ResidentState::Ready);
                }
                Runtime::Unloading { since }
                    if self.running.get(&lane).is_none_or(Vec::is_empty)
                        && self.at.since(since) > Span::from_ms(500) =>
                {
                    self.runtimes.remove(&lane);
                    self.registry.remove(&lane);
                    self.used.remove(&lane);
                    self.planner.released(self.at, node, model);
                }
                Runtime::Loading { .. } | Runtime::Ready | Runtime::Unloading { .. } => {}
            }
        }
    }

    fn dispatch(&mut self) {
        for ((node, model), runtime) in &self.runtimes {
            let lane = (*node, *model);
            let running = self.running.entry(lane).or_default();
            while *runtime == Runtime::Ready && running.len() < SLOTS {
                assert!(self.planner.is_open(*node, *model));
                let Some(job) = self.lines.get_mut(model).and_then(VecDeque::pop_front) else { break };
                self.waits.push((*model, self.at.since(job.arrived)));
                self.used.insert(lane, self.at);
                running.push(job);
            }
        }
    }

    /// Each GPU divides its time evenly among what runs.
    fn serve(&mut self) {
        for (node, speed) in &self.speeds {
            let on = (*node, ModelId(0))..=(*node, ModelId(u32::MAX));
            let jobs: usize = self.running.range(on.clone()).map(|(_, jobs)| jobs.len()).sum();
            let share = speed * STEP.0 as f64 / 1e6 / jobs.max(1) as f64;
            for (lane, jobs) in self.running.range_mut(on) {
                let before = jobs.len();
                jobs.iter_mut().for_each(|job| job.work_s -= share);
                jobs.retain(|job| job.work_s > 0.0);
                if jobs.len() < before {
                    self.used.insert(*lane, self.at);
                }
            }
        }
    }
}
